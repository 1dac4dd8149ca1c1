"""Decode bytes to text, and say where and why a file cannot be decoded."""

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.data.reading.formats.compression import open_bytes
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
"""Bytes that are read to guess the encoding of a file."""
LONGEST_RECORD = 1 << 25
"""32 MiB: characters of the longest line or CSV record; a text of 10 MB fits."""


def without_mark(encoding: str) -> str:
    """Return the encoding that also removes a byte order mark, for UTF-8; else the same name."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def check_encoding(path: Path, encoding: str, remedy: str = "Set data.encoding") -> None:
    """Raise DataError with byte offset, line and likely encoding if a file cannot be decoded."""
    fault = _first_fault(path, encoding)
    if fault is None:
        return
    start, line, reason = fault
    is_one_byte = f"byte {start} (line {line}) is not {encoding};"
    words = f"is not {encoding}: {reason}" if reason else is_one_byte
    raise DataError(f"{path}: {words} {_advice(path, start, encoding, remedy)}")


def find_encoding(path: Path) -> str:
    """Return utf-8 if a file can be decoded with it, else the encoding that its bytes look like."""
    with open_bytes(path) as file:
        if file.read(2) in BYTE_ORDER_MARKS:
            return "utf-16"
    fault = _first_fault(path, "utf-8")
    return _likely_encoding(_sample(path, fault[0])) if fault else "utf-8"


def _first_fault(path: Path, encoding: str) -> tuple[int, int, str] | None:
    """Return byte offset, line and reason of the first byte that is not in an encoding.

    The reason is empty unless the whole file is not in the encoding. None means no fault.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = line = 0
    with open_bytes(path) as file:
        chunk = None
        while chunk != b"":
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += (chunk[: max(0, error.start - pending)]).count(b"\n") + 1
                return offset - pending + error.start, line, ""
            except UnicodeError as error:  # UTF-16 or UTF-32 without a byte order mark
                return 0, 1, first_line(error)
            offset += len(chunk)
            line += chunk.count(b"\n")
    return None


def _advice(path: Path, offset: int, encoding: str, remedy: str) -> str:
    """Return the probable encoding of a file, from the bytes around `offset`, and what to do."""
    sample = _sample(path, offset)
    text = sample.decode("utf-8", "surrogateescape")
    damaged = sum("\udc80" <= character <= "\udcff" for character in text[:-3])
    sound = sum(character > "\x7f" for character in text) - damaged
    if codecs.lookup(encoding).name.startswith("utf-8"):
        if sound > damaged:
            number = f"{damaged:,} damaged byte{'' if damaged == 1 else 's'}"
            return (
                f"the text around it is UTF-8 but for {number}. Fix the file there, or leave such "
                "bytes out: iconv -f utf-8 -t utf-8 -c FILE > FIXED."
            )
    elif not damaged and b"\0" not in sample:
        return f"it looks like utf-8. {remedy}."
    return f"it looks like {_likely_encoding(sample)}. {remedy}, or save the file as UTF-8."


def _sample(path: Path, offset: int) -> bytes:
    """Return the bytes of a file around `offset`, from the start of a UTF-8 character."""
    with open_bytes(path) as file:
        skip = max(0, offset - SAMPLE_BYTES // 3)
        while skip > 0 and (chunk := file.read(min(skip, 1 << 20))):  # Some streams cannot seek.
            skip -= len(chunk)
        sample: bytes = file.read(SAMPLE_BYTES)
    starts = [
        at for at in range(4) if sample[at : at + 1] < b"\x80" or sample[at : at + 1] > b"\xbf"
    ]
    return sample[starts[0] if starts else 0 :]  # The sample may begin inside a character.


def _likely_encoding(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    for place, name in ((1, "utf_16_le"), (0, "utf_16_be")):  # UTF-16 without a byte order mark
        if sample[:2] not in BYTE_ORDER_MARKS and 2 * sample[place::2].count(0) > len(sample) // 2:
            return name
    matches = from_bytes(sample, cp_isolation=COMMON_ENCODINGS)
    if not matches:
        return "latin_1"
    rank = COMMON_ENCODINGS.index
    # Below a percent, chaos says nothing: English with some dashes has 0.005, as Cyrillic 0.004.
    best = min(matches, key=lambda m: (round(m.chaos, 2), -m.coherence, rank(m.encoding)))
    return min(best.could_be_from_charset, key=rank)  # Of several with one text the most common.


@contextmanager
def worded_decoding(
    where: str, path: Path | None, encoding: str, remedy: str = "Set data.encoding"
) -> Iterator[None]:
    """Turn a UnicodeError into a DataError.

    Args:
        path: the file; None for standard input, which cannot be read again to find the place.
    Raises:
        DataError: the bytes are not in the encoding, or it is not a text encoding.
    """
    try:
        "".encode(encoding)  # This refuses codecs that are not text encodings, such as hex.
        codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise DataError(
            f"data.encoding is '{encoding}', which is not a text encoding that Python knows. "
            "Examples: utf-8, latin-1, cp1252, utf-16."
        ) from None
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
    """Yield the text in blocks of whole lines, without a byte order mark.

    A line ends with a line feed, a carriage return, or both. Nothing is read ahead.

    Args:
        read: returns at most so many bytes. For a pipe this is `read1`, which does not wait for
            more bytes than are there.
    Raises:
        DataError: a line has more than LONGEST_RECORD characters.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    pending: list[str] = []
    is_start, num_lines = True, 0
    while chunk := read(block_bytes):
        text = decoder.decode(chunk)
        if is_start and text:
            text, is_start = text.removeprefix("\ufeff"), False
        # A last \r may be the first half of \r\n.
        cut = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
        num_lines += text.count("\n")
        if cut:
            yield "".join([*pending, text[:cut]])
            pending = []
        pending.append(text[cut:])
        if sum(map(len, pending)) > LONGEST_RECORD:
            raise DataError(
                f"{where}:{num_lines + 1}: a record is longer than 32 MiB. Perhaps a quote is left "
                "open, or the lines have no ends."
            )
    if rest := "".join([*pending, decoder.decode(b"", final=True)]):
        yield rest.removeprefix("\ufeff") if is_start else rest
