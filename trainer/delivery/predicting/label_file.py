"""A file of rows, or standard input, labelled row by row: in constant memory, whatever its size, and again from where a killed start stopped."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm.auto import tqdm

from trainer.config.yaml_source import read_yaml
from trainer.data.cleaning.missing_values import MISSING_TEXTS
from trainer.data.labels.list_parsing import item_text
from trainer.data.reading.formats.compression import COMPRESSED, ending
from trainer.data.reading.formats.readers import ENDINGS
from trainer.data.reading.formats.records import Record, Records
from trainer.data.reading.locate import locate
from trainer.data.reading.source_tables import read_ahead
from trainer.delivery.predicting.partial_file import Columns, PartialFile, StandardOutput, encoder
from trainer.errors import DataError, RunError
from trainer.files.content import file_identity
from trainer.files.locks import only_writer, refuse_while_written
from trainer.run_folder import writer

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection
    from trainer.delivery.predicting.predict import Classifier, Text

STANDARD = "-"
WRITTEN_AS = {
    ".txt": ".csv",
    ".tab": ".tsv",
    ".json": ".jsonl",
    ".arrow": ".parquet",
    ".xlsx": ".csv",
}
"""Ending of the default output of inputs whose own ending is not written."""
LEAST_ROWS, MOST_ROWS, MOST_CHARACTERS = 64, 8_192, 8_000_000
"""Rows of a piece at the beginning and at most, and characters of its texts from which it holds no more."""
LABEL_FORM = ("label_names", "label_separator", "labels_per_row", "label_map")
"""Keys of the data section that say what a cell of labels means."""
PIECE_SECONDS = 1.0
"""Pieces double while they take less: a killed start loses little, and rows are sorted by length within a piece."""


def input_path(location: str) -> Path | None:
    """The file to read; None for standard input.

    Raises:
        DataError: it is no file.
    """
    if location == STANDARD:
        return None
    paths = locate(location, "--input", ENDINGS) or [Path(location)]
    if len(paths) > 1 or not paths[0].is_file():
        raise DataError(
            f"--input: '{location}' is {'several files' if len(paths) > 1 else 'no file'}; needed: one file, or - for standard input."
        )
    return paths[0]


def output_path(
    output: str | None, source: Path | None, *, overwrite: bool, folder: Path | None = None
) -> Path | None:
    """The file to write, left out `<input>.predicted.<ending>` in `folder`, or beside the input; None for standard output.

    Raises:
        DataError: an ending that cannot be written.
        RunError: the file is the input or a folder, is there already, or cannot be written.
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
    """Raises RunError for a file that is there already, unless it may be replaced."""
    if target.exists() and not overwrite:
        raise RunError(
            f"{target}: is there already. Give --overwrite to replace it, or another --output."
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
    """Values of a config that reads `source`: its columns as given, else as the run folder `model` was trained on, whose labels keep
    their names and their form.

    How the run's own files were written (encoding, separator, quotes) says nothing about another file: with latin-1 any file decodes, to
    wrong letters. Those options are given with --set; where they are missing the parser refuses the file and names them.
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
    """The rows of a file, or of standard input, of which the first is read.

    Raises:
        DataError: an ending that is not known, a column that is missing, a first row that cannot be read.
    """
    wanted = [data.text_column] if isinstance(data.text_column, str) else data.text_column
    columns = f"Give --text-column{' and --pair-column' if len(wanted) > 1 else ''}."
    records = Records(path, data, wanted, column_remedy=columns, encoding_remedy="Give --encoding")
    records.first  # noqa: B018
    for remark in records.remarks:
        print(remark, file=sys.stderr)
    return records


@dataclass
class Labeller:
    """Puts what a classifier says into rows.

    Args:
        text_columns: the text, and what makes it a pair: a second column, and others joined to that by line breaks.
        probabilities: whether each label gets a column of its own.
        prefix: stands before the names of the added columns.
    Attributes:
        counts: rows so far (`rows`), those without a text (`empty`), those that the model reads in part (`cut`).
    """

    classifier: "Classifier"
    text_columns: Sequence[str]
    probabilities: bool = False
    prefix: str = "predicted_"
    counts: dict[str, int] = field(default_factory=lambda: {"rows": 0, "empty": 0, "cut": 0})

    @cached_property
    def added(self) -> pa.Schema:
        """The columns that rows are given: `predicted_label` (a list for a model of several labels), its probability
        `predicted_score`, and `predicted_probability_<label>`.
        """
        kind = pa.list_(pa.string()) if self.classifier.is_multi_label else pa.string()
        names = [
            "score",
            *(f"probability_{label}" for label in self.classifier.labels if self.probabilities),
        ]
        return pa.schema(
            [
                (f"{self.prefix}label", kind),
                *((f"{self.prefix}{name}", pa.float64()) for name in names),
            ]
        )

    def refuse_taken_names(self, records: list[Record], places: list[str]) -> None:
        """Raises DataError where a row has a column of a name that is to be added."""
        added = set(self.added.names)
        for record, where in zip(records, places, strict=True):
            if taken := record.keys() & added:
                words = f"has a column '{min(taken)}' already, where the prediction would stand"
                raise DataError(
                    f"{where}: {words}. Give --prefix model_, or another start of the names that are added."
                )

    def label(self, records: list[Record], places: list[str]) -> list[Record]:
        """The rows with their labels; a row without a text is kept and has none.

        Args:
            places: file and line of each row, for messages.
        """
        self.refuse_taken_names(records, places)
        texts = [self._text(record, place) for record, place in zip(records, places, strict=True)]
        chosen = [n for n, text in enumerate(texts) if text is not None]
        judged = self.classifier.judge([text for text in texts if text is not None])
        names, labels = self.added.names, self.classifier.labels
        labelled = [record | dict.fromkeys(names) for record in records]
        for n, p_C, decided in zip(chosen, judged.probabilities_NC, judged.decided, strict=True):
            label_id = int(p_C.argmax()) if self.classifier.is_multi_label else int(decided)
            label = (
                [name for name, has in zip(labels, decided, strict=True) if has]
                if self.classifier.is_multi_label
                else labels[label_id]
            )
            scores = [p_C[label_id], *(p_C if self.probabilities else [])]
            labelled[n].update(
                zip(names, [label, *(float(f"{p:.6g}") for p in scores)], strict=True)
            )
        self.counts["rows"] += len(records)
        self.counts["empty"] += len(records) - len(chosen)
        self.counts["cut"] += int(judged.truncated_N.sum())
        return labelled

    def _text(self, record: Record, where: str) -> "Text | None":
        """The text of a row as it was for training: None where it is empty or a spelt-out missing value."""
        first, *rest = (_as_text(record.get(name), name, where) for name in self.text_columns)
        if not rest:
            return None if first in ("", *MISSING_TEXTS) else first
        return {"text": first, "text_pair": "\n".join(rest)} if first or any(rest) else None


def _as_text(value: Any, name: str, where: str) -> str:
    """A value as readers spell it, without white space at its ends; missing values are empty."""
    if isinstance(value, list | dict | bytes):
        raise DataError(
            f"{where}: column '{name}' holds a {type(value).__name__}; needed: one text or number a row."
        )
    return (item_text(value) or "").strip()


def written_ending(target: Path | None, records: Records) -> str:
    """Return the ending that tells how rows are written: of the file, or of what standard output gets."""
    if target is not None:
        return ending(target)
    return (
        ".jsonl"
        if records.format in (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
        else ".csv"
    )


def refuse_where_no_spreadsheet_reads(target: Path | None, records: Records) -> None:
    """Raises DataError where --spreadsheet-safe has no sense."""
    if (form := written_ending(target, records)) not in (".csv", ".tsv"):
        raise DataError(
            f"--spreadsheet-safe: goes with .csv and .tsv, not with {form}. Leave it out."
        )


def label_file(
    labeller: Labeller, records: Records, target: Path | None, *, spreadsheet_safe: bool = False
) -> None:
    """Label every row into a file, or onto standard output; what a killed start of the same work has done stays.

    Args:
        target: file that appears when it is whole; None for standard output.
        spreadsheet_safe: make cells of CSV and TSV text that a spreadsheet would run as formulas.
    Raises:
        DataError: rows or columns that cannot be read or written.
        RunError: the disk is full, or another process writes the file.
    """
    labeller.refuse_taken_names(
        [records.first] if records.first else [], [records.where] if records.first else []
    )
    names = (
        list(records.first or labeller.text_columns)
        if records.schema is None
        else records.schema.names
    )
    columns = Columns(names, records.schema, labeller.added, spreadsheet_safe)
    with ExitStack() as held:
        sink: PartialFile | StandardOutput
        if target is None:
            sink = StandardOutput(written_ending(target, records))
        else:
            was_there = target.exists()
            held.enter_context(only_writer(target))
            refuse_existing(target, overwrite=was_there)
            sink = PartialFile(target, _identity(labeller, records, spreadsheet_safe))
            held.callback(sink.close)
        if sink.note:
            print(sink.note, file=sys.stderr)
        labeller.counts |= sink.progress
        done = labeller.counts["rows"]
        start = time.perf_counter()
        with tqdm(
            desc="Predicting", unit=" rows", initial=done, disable=None, leave=False, smoothing=0.1
        ) as bar:
            for piece, counts in read_ahead(_labelled(labeller, records, done)):
                sink.append(piece, columns, counts)
                bar.total = records.estimated_rows(counts["rows"])
                bar.update(len(piece))
        if not labeller.counts["rows"]:
            sink.append([], columns, labeller.counts)
        sink.finish()
    seconds = time.perf_counter() - start
    print(
        _summary(labeller, records, target, (labeller.counts["rows"] - done) / max(seconds, 1e-9)),
        file=sys.stdout if target else sys.stderr,
    )


def _labelled(
    labeller: Labeller, records: Records, done: int
) -> Iterator[tuple[list[Record], dict[str, int]]]:
    """Labelled rows behind the first ones, in pieces, each with the counts up to its end."""
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
    """What the rows of the output depend on; of standard input nobody can tell whether it is the same again."""
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
        f"{records.num_bad:,} could not be read and were left out" if records.num_bad else "",
    ]
    told = "; ".join(note for note in notes if note)
    return f"{target or 'standard output'}: {counts['rows']:,} rows{f' ({told})' if told else ''}, {rate:,.0f} rows/s"
