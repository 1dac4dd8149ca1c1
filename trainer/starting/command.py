"""The command `init`: from a file of rows to a commented YAML and the next commands."""

import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.prompt import Confirm, Prompt

from trainer.config.config import check_config
from trainer.config.sections.data import DataSection
from trainer.config.yaml_source import YamlSource, read_values
from trainer.data.labels.label_mapping import proposed_map
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.formats.readers import ENDINGS, run_name
from trainer.data.reading.locate import locate
from trainer.data.reading.row_places import PLACE
from trainer.data.reading.source_tables import source_tables
from trainer.display.terminal import console
from trainer.errors import DataError, RunError, counted, listing
from trainer.files.durable import aside
from trainer.starting import shown
from trainer.starting.proposal import Understood, counts_sentence, sections, understand
from trainer.starting.recognition.columns import Columns, choose_columns
from trainer.starting.recognition.file_form import MOST_BAD, find_form
from trainer.starting.recognition.places import sources_of
from trainer.starting.recognition.profiles import Profile, profiles
from trainer.starting.settings import Reasoned
from trainer.starting.yaml_text import commented_yaml

MOST_ROWS = 200_000
"""Rows from which the columns are chosen; classes are counted over all rows."""


@dataclass(frozen=True)
class Asking:
    """The columns that the user named, and whether questions may be asked."""

    text: Sequence[str] = ()
    label: Sequence[str] = ()
    may_ask: bool = False


def may_ask(*, yes: bool) -> bool:
    """Return whether a terminal is there, and the user did not forbid questions."""
    return not yes and sys.stdin.isatty() and sys.stdout.isatty()


@dataclass(frozen=True)
class Look:
    """What was understood of a file or folder.

    Attributes:
        location: the file or folder.
        data: the keys of the section `data`, with reasons.
    """

    location: str
    columns: Columns
    understood: Understood
    data: Reasoned


def look(location: str, asking: Asking) -> Look:
    """Return what the rows of a file or folder are.

    Args:
        location: file, glob, package path, or folder with a file for each split.

    Raises:
        DataError: they cannot be understood.
    """
    sources = sources_of(location)
    first = (locate(next(iter(sources.values())), "init", ENDINGS) or [])[0]
    form = find_form(first)
    sample = _sample({**sources, **form.options})
    found = profiles(sample)
    try:
        columns = choose_columns(found, str(first), text=asking.text, label=asking.label)
    except DataError as error:
        if repeated := {*sample.column_names} - {profile.name for profile in found}:
            raise DataError(
                f"{first}: several columns are called {listing(repeated)}, so they are left out,"
                " and no text or no label is left. Rename all but one of each."
            ) from error
        raise
    columns = _asked(columns, found, str(first), asking)
    options = {**sources, **form.options, **columns.options, "on_bad_rows": "skip"}
    understood = _understood(options)
    data = _data_section(options, form.reasons | columns.reasons, understood, found)
    return Look(location, columns, understood, data)


def write(found: Look, target: Path, model: str | None) -> None:
    """Show the rows, write the YAML for them, and print the next commands.

    Args:
        model: the pretrained model that the user gave.

    Raises:
        ModelError: the folder or package that the user gave holds no text model.
    """
    understood, name = found.understood, run_name(target.stem)
    _print(understood, found.columns)
    with console.status("Measuring the texts in tokens"):
        written, notes = sections(understood, found.data, found.columns.time, model, name)
    for note in notes:
        console.print(note)
    text = commented_yaml(_head(found.location, target), written)
    check_config(YamlSource(str(target), read_values(text)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with aside(target) as partial:
        partial.write_text(text, encoding="utf-8")
    console.print(f"Written: {target}. Its comments give the reasons. Next:")
    for command in next_commands(target, name):
        console.print(f"  {command}")


def refuse_existing(target: Path, asking: Asking, *, overwrite: bool) -> None:
    """Raise RunError if the YAML exists, unless the user agrees to overwrite it.

    A file of another kind, such as the rows themselves, is never overwritten.
    """
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise RunError(f"--output {target}: needed: the name of a YAML file, such as tweets.yaml.")
    if not target.exists() or (overwrite and target.is_file()):
        return
    if target.is_file() and asking.may_ask and Confirm.ask(f"Overwrite {target}?", default=False):
        return
    raise RunError(f"{target}: exists. Give another --output, or --overwrite.")


def next_commands(target: Path, name: str) -> list[str]:
    """Return the commands that look at the data, train and serve."""
    path = shlex.quote(str(target))
    return [
        f"equipoise audit {path}",
        f"equipoise train {path}",
        f"equipoise serve runs/{name}",
    ]


def _head(location: str, target: Path) -> list[str]:
    return [
        f"How {location} is read, and what is trained on it; written by equipoise init.",
        f"  equipoise train {shlex.quote(str(target))}",
    ]


def _understood(options: dict[str, Any]) -> Understood:
    """Return the rows, with labels merged that only differ in capitals or spaces."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        understood = understand(options)
    if label_map := proposed_map(understood.rows_of):
        return understand(options | {"label_map": label_map})  # which warns of what is left
    for warning in told:
        warnings.warn(warning.message, stacklevel=2)
    return understood


def _sample(options: dict[str, Any]) -> pa.Table:
    """Return the first rows with all columns of the file or files, without their places."""
    data, bad = DataSection(**options, on_bad_rows="skip"), BadRows(most=1)
    slot = "source" if data.source else "train"
    tables, num_rows = list[pa.Table](), 0
    for table in chain.from_iterable(source_tables(slot, data, [], bad)):
        tables.append(table.drop_columns([PLACE.name]))
        num_rows += table.num_rows
        if num_rows >= MOST_ROWS:
            break
    _refuse_mostly_bad(bad, num_rows)
    if not num_rows:
        raise DataError(f"{getattr(data, slot)}: holds no rows. Give a file with rows.")
    alike = [table for table in tables if table.column_names == tables[0].column_names]
    try:
        return pa.concat_tables(alike, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a later table has another type in a column
        return alike[0]


def _refuse_mostly_bad(bad_rows: BadRows, num_rows: int) -> None:
    """Raise DataError if a larger share than MOST_BAD cannot be read, beside `num_rows` others."""
    num_read = num_rows + bad_rows.total
    if bad_rows.total > MOST_BAD * num_read:
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}: {bad_rows.total:,} of the first {num_read:,} rows cannot be read."
            f" The first: line {first.get('line', first.get('record'))}: {first['reason']}."
            " Fix the file."
        )


def _asked(columns: Columns, found: list[Profile], where: str, asking: Asking) -> Columns:
    """Return the columns, with the label that the user chooses if several may be it."""
    if not columns.rivals or not asking.may_ask:
        return columns
    choices = [*columns.labels, *columns.rivals]
    label = Prompt.ask("Which column is the label?", choices=choices, default=choices[0])
    return replace(choose_columns(found, where, text=asking.text, label=[label]), rivals=[])


def _data_section(
    options: dict[str, Any],
    reasons: dict[str, str],
    understood: Understood,
    found: list[Profile],
) -> Reasoned:
    """Return the section `data`, with a reason for each key that was found."""
    data, rows = understood.data, understood.clean.rows
    by_name = {profile.name: profile for profile in found}
    values = {key: value for key, value in options.items() if getattr(data, key) == value}
    num_bad, num_rows = rows.bad_rows.total, rows.table.num_rows
    _refuse_mostly_bad(rows.bad_rows, num_rows)
    if not num_bad:
        del values["on_bad_rows"]
    if rows.label_order and rows.label_order[0] == "label_0" and "label_columns" not in values:
        values["label_names"] = rows.label_order
    if data.label_map:
        values["label_map"] = data.label_map
    words = {
        "label_map": "merges names that differ only in capitals or spaces; null drops its rows",
        "label_columns": "one column a label, with 0 and 1",
        "label_names": "the vectors have no names: write the names of the labels here, in order",
        "split_column": "says which split a row belongs to",
        "weight_column": "decides between equal texts with different labels",
        "on_bad_rows": f"{counted(num_bad, 'row')} of {num_rows + num_bad:,} cannot be read",
    }
    if isinstance(data.text_column, str):
        mean_words = by_name[data.text_column].mean_words
        words["text_column"] = f"{mean_words:.0f} words on average"
    else:
        words["text_column"] = "a pair: the model reads both"
    if data.group_column:
        num_groups = len(by_name[data.group_column].counts)
        words["group_column"] = f"{num_groups:,} different; rows of one stay in one split"
    if understood.is_multi_label:
        words["label_column"] = "a row may have several labels"
    else:
        words["label_column"] = f"{len(understood.clean.labels):,} classes"
    return Reasoned(values, words | reasons)


def _print(understood: Understood, columns: Columns) -> None:
    shown.print_rows(understood)
    shown.print_classes(understood)
    rivals = " or ".join(f"--label {shlex.quote(name)}" for name in columns.rivals[:3])
    others = f"The label is '{columns.labels[0]}'. It could also be: {rivals}." if rivals else ""
    cleaned = f"Cleaning: {counts_sentence(understood)}"
    for sentence in (others, *understood.clean.sentences, cleaned, *understood.notes):
        if sentence:
            console.print(sentence)
