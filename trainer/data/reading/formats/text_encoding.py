"""Bytes become text, block by block; where they do not, the message says where and what the encoding probably is."""

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.data.reading.formats.packed import open_bytes
from trainer.errors import DataError, first_line

COMMON_ENCODINGS = [
    "cp1252",
    "mac_roman",
    "cp1250",
    "cp1251",
    "utf_16",
    "gb18030",
    "cp932",
    "euc_kr",
    "big5",
]
BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAMPLE_BYTES = 60_000
"""Read to tell the encoding of a file."""
LONGEST_RECORD = 1 << 25
"""32 MiB: characters of the longest line or CSV record; a 10 MB text fits."""


def check_encoding_name(encoding: str) -> None:
    """Raises DataError for a name that is no text encoding."""
    try:
        "".encode(encoding)  # refuses codecs that are no text encoding, such as hex
        codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise DataError(
            f"data.encoding is '{encoding}', no text encoding that Python knows; examples: utf-8, latin-1, cp1252, utf-16."
        ) from None


def check_encoding(path: Path, encoding: str, remedy: str = "Set data.encoding") -> None:
    """Raises DataError with byte offset, line and likely encoding when a text file cannot be decoded."""
    check_encoding_name(encoding)
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = line = 0
    with open_bytes(path) as file:
        while True:
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                start = offset - pending + error.start
                line += (chunk[: max(0, error.start - pending)]).count(b"\n") + 1
                raise DataError(
                    f"{path}: byte {start} (line {line}) is not {encoding}; {_advice(path, start, encoding, remedy)}"
                ) from None
            except UnicodeError as error:  # UTF-16 and UTF-32 without a byte order mark
                raise DataError(
                    f"{path}: is not {encoding}: {first_line(error)} {_advice(path, 0, encoding, remedy)}"
                ) from None
            if not chunk:
                break
            offset += len(chunk)
            line += chunk.count(b"\n")


def _advice(path: Path, offset: int, encoding: str, remedy: str) -> str:
    """What the encoding of a file probably is, judged by the bytes around one, and what to do."""
    with open_bytes(path) as file:
        skip = max(0, offset - SAMPLE_BYTES // 3)
        while skip > 0 and (
            chunk := file.read(min(skip, 1 << 20))
        ):  # not every packed file can seek
            skip -= len(chunk)
        sample = file.read(SAMPLE_BYTES)
    sample = sample[
        next(
            (
                at
                for at in range(4)
                if sample[at : at + 1] < b"\x80" or sample[at : at + 1] >= b"\xc0"
            ),
            0,
        ) :
    ]
    text = sample.decode("utf-8", "surrogateescape")
    damaged = sum("\udc80" <= character <= "\udcff" for character in text[:-3])
    sound = sum(character > "\x7f" for character in text) - damaged
    if codecs.lookup(encoding).name.startswith("utf-8"):
        if sound > damaged:
            number = f"{damaged:,} damaged byte{'' if damaged == 1 else 's'}"
            mend = "Mend the file there, or leave such bytes out: iconv -f utf-8 -t utf-8 -c FILE > MENDED"
            return f"the text around it is UTF-8 but for {number}. {mend}."
    elif not damaged and b"\0" not in sample:
        return f"it looks like utf-8. {remedy}."
    return f"it looks like {_likely_encoding(sample)}. {remedy}, or save the file as UTF-8."


def _likely_encoding(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    for place, name in ((1, "utf_16_le"), (0, "utf_16_be")):  # without a byte order mark
        if sample[:2] not in BYTE_ORDER_MARKS and 2 * sample[place::2].count(0) > len(sample) // 2:
            return name
    matches = from_bytes(sample, cp_isolation=COMMON_ENCODINGS)
    if not matches:
        return "latin_1"
    best = min(
        matches,
        key=lambda match: (match.chaos, -match.coherence, COMMON_ENCODINGS.index(match.encoding)),
    )
    return min(
        best.could_be_from_charset, key=COMMON_ENCODINGS.index
    )  # several give the same text: the commonest


@contextmanager
def worded_decoding(
    where: str, path: Path | None, encoding: str, remedy: str = "Set data.encoding"
) -> Iterator[None]:
    """Turn a UnicodeError into a DataError.

    Args:
        path: the file; None for standard input, which cannot be read again to say more.
    """
    check_encoding_name(encoding)
    try:
        yield
    except UnicodeError as error:
        if path is not None:
            check_encoding(path, encoding, remedy)
        raise DataError(
            f"{where}: is not {encoding} ({getattr(error, 'reason', error)}). {remedy}."
        ) from error


def text_blocks(
    read: Callable[[int], bytes], where: str, encoding: str, block_bytes: int
) -> Iterator[str]:
    """Give the text in blocks that end where a line ends, without a byte order mark; nothing is read before it is asked for.

    Lines end with a line feed, a carriage return, or both.

    Args:
        read: gives at most so many bytes; of a pipe `read1`, which does not wait for more than are there.
    Raises:
        DataError: a line of more than LONGEST_RECORD characters.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    pending: list[str] = []
    is_start, num_lines = True, 0
    while chunk := read(block_bytes):
        text = decoder.decode(chunk)
        if is_start and text:
            text, is_start = text.removeprefix("\ufeff"), False
        cut = (
            max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
        )  # a last \r may be half of \r\n
        num_lines += text.count("\n")
        if cut:
            yield "".join([*pending, text[:cut]])
            pending = []
        pending.append(text[cut:])
        if sum(map(len, pending)) > LONGEST_RECORD:
            raise DataError(
                f"{where}:{num_lines + 1}: a record is longer than 32 MiB; is a quote left open? A line without its end is as long."
            )
    if rest := "".join([*pending, decoder.decode(b"", final=True)]):
        yield rest.removeprefix("\ufeff") if is_start else rest
