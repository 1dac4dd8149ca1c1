"""Label the rows of a file or of standard input: `equipoise predict`.

Rows are read, labelled and written in pieces, so the memory is constant. If the command is
interrupted, the same command resumes after the last piece that was written.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.yaml_source import read_yaml
from trainer.data.reading.formats.compression import COMPRESSED, ending
from trainer.data.reading.formats.readers import ENDINGS
from trainer.data.reading.formats.records import Record, Records
from trainer.data.reading.locate import locate
from trainer.data.reading.source_tables import read_ahead
from trainer.delivery.predicting.labeller import Labeller
from trainer.delivery.predicting.partial_file import Columns, PartialFile, StandardOutput, encoder
from trainer.errors import DataError, RunError
from trainer.files.content import file_identity
from trainer.files.locks import only_writer, refuse_while_written
from trainer.progress import progress_bar
from trainer.run_folder import writer

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

STANDARD = "-"
WRITTEN_AS = {
    ".txt": ".csv",
    ".tab": ".tsv",
    ".json": ".jsonl",
    ".arrow": ".parquet",
    ".xlsx": ".csv",
}
"""Endings of inputs that cannot be written, and the endings of their default outputs."""
LEAST_ROWS, MOST_ROWS, MOST_CHARACTERS = 64, 8_192, 8_000_000
"""Rows of the first and of the largest piece; a piece also ends after this many characters."""
LABEL_FORM = ("label_names", "label_separator", "labels_per_row", "label_map")
"""Keys of the data section that describe the cells of labels."""
PIECE_SECONDS = 1.0
"""Pieces double while they take less time. Small pieces lose little work after an interruption;
large ones are faster, since rows are sorted by length within a piece."""


def input_path(location: str) -> Path | None:
    """Return the file to read; None for standard input.

    Raises:
        DataError: it is not one file.
    """
    if location == STANDARD:
        return None
    paths = locate(location, "--input", ENDINGS) or [Path(location)]
    if len(paths) > 1 or not paths[0].is_file():
        raise DataError(
            f"--input: '{location}' is {'several files' if len(paths) > 1 else 'not a file'};"
            " needed: one file, or - for standard input."
        )
    return paths[0]


def output_path(
    output: str | None, source: Path | None, *, overwrite: bool, folder: Path | None = None
) -> Path | None:
    """Return the file to write; None for standard output.

    The default is `<input>.predicted.<ending>` in `folder`, or beside the input.

    Raises:
        DataError: an ending that cannot be written.
        RunError: the file is the input or a folder, exists already, or cannot be written.
    """
    if output == STANDARD or (output is None and source is None):
        return None
    if output is None:
        assert source is not None
        whole = Path(source.stem) if source.suffix.lower() in COMPRESSED else source
        stem = whole.stem if whole.suffix.lower() == ending(source) else whole.name
        form = WRITTEN_AS.get(ending(source), ending(source))
        packed = ".gz" if source.suffix.lower() == ".gz" and form != ".parquet" else ""
        target = (folder or source.parent) / f"{stem}.predicted{form}{packed}"
    else:
        target = Path(output).expanduser()
    if target.is_dir():
        raise RunError(f"--output: {target} is a folder. Give the name of a file.")
    encoder(target)
    if source is not None and target.exists() and target.samefile(source):
        raise RunError(f"--output: {target} is the input. Give another file.")
    refuse_existing(target, overwrite=overwrite)
    writer.check_writable(target.parent, remedy="Set --output")
    refuse_while_written(target)
    return target


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise RunError if the file exists and may not be overwritten."""
    if target.exists() and not overwrite:
        raise RunError(
            f"{target}: exists already. Give --overwrite to overwrite it, or another --output."
        )


def reading(
    model: str,
    source: str,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Return the values of a config that reads `source` for a model.

    Columns and the form of labels that are not given are those of the run folder `model`. The
    encoding, separator and quotes of the run's files are not used: with latin-1 any file decodes,
    often to wrong letters. Set them with --set; if they are needed, the parser names them.
    """
    path = Path(model).expanduser() / "config.yaml"
    trained_on = read_yaml(str(path)).values.get("data", {}) if path.is_file() else {}
    columns = {
        name: trained_on[name]
        for name in ("text_column", "label_column", "label_columns", *LABEL_FORM)
        if trained_on.get(name)
    }
    if label_column:
        columns = {name: value for name, value in columns.items() if name != "label_columns"} | {
            "label_column": label_column
        }
    if text_column:
        columns["text_column"] = text_column
    if pair_column:
        texts = columns.get("text_column", "text")
        columns["text_column"] = [texts if isinstance(texts, str) else texts[0], pair_column]
    return {
        "model": {"name": model},
        "data": {"source": source, **columns, **({"encoding": encoding} if encoding else {})},
    }


def open_records(path: Path | None, data: "DataSection") -> Records:
    """Open the rows of a file or of standard input, and read the first one.

    Raises:
        DataError: an unknown ending, a missing column, or a first row that cannot be read.
    """
    wanted = [data.text_column] if isinstance(data.text_column, str) else data.text_column
    columns = f"Give --text-column{' and --pair-column' if len(wanted) > 1 else ''}."
    records = Records(path, data, wanted, column_remedy=columns, encoding_remedy="Give --encoding")
    records.first  # noqa: B018
    for remark in records.remarks:
        print(remark, file=sys.stderr)
    return records


def written_ending(target: Path | None, records: Records) -> str:
    """Return the ending that decides the format of the output."""
    if target is not None:
        return ending(target)
    structured = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
    return ".jsonl" if records.format in structured else ".csv"


def refuse_spreadsheet_safe(target: Path | None, records: Records) -> None:
    """Raise DataError if --spreadsheet-safe has no meaning for the format of the output."""
    if (form := written_ending(target, records)) not in (".csv", ".tsv"):
        raise DataError(
            f"--spreadsheet-safe: can be used with .csv and .tsv, not with {form}. Leave it out."
        )


def label_file(
    labeller: Labeller, records: Records, target: Path | None, *, spreadsheet_safe: bool = False
) -> None:
    """Label every row and write it; resume an interrupted file of the same work.

    Args:
        target: the file, which appears when it is complete; None for standard output.
        spreadsheet_safe: quote cells of CSV and TSV that a spreadsheet would run as formulas.
    Raises:
        DataError: rows or columns that cannot be read or written.
        RunError: the disk is full, or another process writes the file.
    """
    if records.first:
        labeller.refuse_taken_names([records.first], [records.where])
    schema = records.schema
    names = list(records.first or labeller.text_columns) if schema is None else schema.names
    columns = Columns(names, schema, labeller.added, spreadsheet_safe)
    with ExitStack() as resources:
        sink: PartialFile | StandardOutput
        if target is None:
            sink = StandardOutput(written_ending(target, records))
        else:
            existed = target.exists()
            resources.enter_context(only_writer(target))
            refuse_existing(target, overwrite=existed)
            sink = PartialFile(target, _identity(labeller, records, spreadsheet_safe))
            resources.callback(sink.close)
        if sink.note:
            print(sink.note, file=sys.stderr)
        labeller.counts |= sink.progress
        done = labeller.counts["rows"]
        start = time.perf_counter()
        with (
            read_ahead(_labelled(labeller, records, done)) as pieces,
            progress_bar(desc="Predicting", unit=" rows", initial=done, smoothing=0.1) as bar,
        ):
            for piece, counts in pieces:
                sink.append(piece, columns, counts)
                bar.total = records.estimated_rows(counts["rows"])
                bar.update(len(piece))
        if not labeller.counts["rows"]:
            sink.append([], columns, labeller.counts)
        sink.finish()
    seconds = max(time.perf_counter() - start, 1e-9)
    print(
        _summary(labeller, records, target, (labeller.counts["rows"] - done) / seconds),
        file=sys.stdout if target else sys.stderr,
    )


def _labelled(
    labeller: Labeller, records: Records, done: int
) -> Iterator[tuple[list[Record], dict[str, int]]]:
    """Yield the labelled rows after the first `done`, in pieces, with the counts so far."""
    rows = iter(records)
    for _ in islice(rows, done):
        pass
    size, characters = LEAST_ROWS, 0
    piece: list[Record] = []
    places: list[str] = []
    for record in rows:
        piece.append(record)
        places.append(records.place)
        characters += sum(len(str(record.get(name))) for name in labeller.text_columns)
        if len(piece) < size and characters < MOST_CHARACTERS:
            continue
        start = time.perf_counter()
        labelled = labeller.label(piece, places)
        if time.perf_counter() - start < PIECE_SECONDS:
            size = min(MOST_ROWS, 2 * size)
        yield labelled, dict(labeller.counts)
        piece, places, characters = [], [], 0
    if piece:
        yield labeller.label(piece, places), dict(labeller.counts)


def _identity(labeller: Labeller, records: Records, spreadsheet_safe: bool) -> dict[str, Any]:
    """Return all that the output depends on; standard input is never the same again."""
    classifier = labeller.classifier
    how_read = records.options.model_dump(exclude={"source", "on_bad_rows"})
    return {
        "input": file_identity(records.path) if records.path else time.time_ns(),
        "models": [model.identity for model in classifier.models],
        "options": [
            classifier.vote,
            *labeller.text_columns,
            labeller.probabilities,
            labeller.prefix,
            spreadsheet_safe,
            how_read,
        ],
    }


def _summary(labeller: Labeller, records: Records, target: Path | None, rate: float) -> str:
    counts = labeller.counts
    notes = [
        f"{counts['empty']:,} without a text, so without a label" if counts["empty"] else "",
        f"{counts['cut']:,} longer than the model reads, cut" if counts["cut"] else "",
        f"{records.num_bad:,} unreadable rows skipped" if records.num_bad else "",
    ]
    details = "; ".join(note for note in notes if note)
    return (
        f"{target or 'standard output'}: {counts['rows']:,} rows"
        f"{f' ({details})' if details else ''}, {rate:,.0f} rows/s"
    )
