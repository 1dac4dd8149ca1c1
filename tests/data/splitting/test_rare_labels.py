"""Labels of several a row with fewer rows than splits: trained, named and counted."""

import json
import warnings

import pytest

from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.data.prepare import balance_splits, read_splits
from trainer.errors import DataError

PLENTY = [["a"], ["b"], ["a", "b"], []] * 25
RARE = [["once"], ["single", "a"], ["twice"], ["twice", "b"]]
MEASURED = [["a"], ["b"], ["a", "b"]] * 5
THIRDS = {"train": 0.6, "validation": 0.2, "test": 0.2}
EVALUATED = "split: no row of 'once' (1 row in all), 'single' (1 row in all)"


@pytest.fixture
def summary_of(tmp_path):
    """Function (files, split) -> {heading: {label: rows}} of the table of a run, and warnings."""

    def summary(files, split):
        data = {}
        for key, sets in files.items():
            path = tmp_path / f"{key}.jsonl"
            rows = [{"text": f"{key} {n} of {n * n}", "label": own} for n, own in enumerate(sets)]
            path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            data[key] = str(path)
        values = {"model": {"name": "none"}, "data": data} | ({"split": split} if split else {})
        config = check_config(YamlSource("test", values))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            clean, splits = read_splits(
                config.data, config.split, config.balance, seed=42, cache_dir=tmp_path / "cache"
            )
            found = balance_splits(clean, splits, config.balance, config.loss, seed=42).summary
        columns = {
            heading: dict(zip(found.labels, counts_C.tolist(), strict=True))
            for heading, counts_C in found.columns.items()
        }
        return columns, [str(warning.message) for warning in told]

    return summary


@pytest.mark.parametrize(
    ("split", "where"),
    [
        (None, "in validation"),
        (THIRDS, "'twice' (2 rows in all) in validation and test"),
        (THIRDS | {"rare_classes": "keep"}, "'twice' (2 rows in all) in validation and test"),
        (THIRDS | {"primary_label": True}, "'twice' (2 rows in all) in validation and test"),
    ],
    ids=["default", "split", "keep", "primary"],
)
def test_rare_labels_train_and_a_warning_counts_and_names_them(summary_of, split, where):
    columns, told = summary_of({"source": PLENTY + RARE}, split)
    names = ("once", "single", "twice")
    assert [columns["train"][name] for name in names] == [1, 1, 2 if split else 1]
    for heading in columns:
        assert set(columns[heading]) == {"a", "b", *names}
    assert any(words.startswith(EVALUATED) and where in words for words in told)


@pytest.mark.parametrize("given", ["test", "validation and test"])
def test_rare_labels_of_given_files_train_too(summary_of, given):
    files = {"train": PLENTY + RARE[:2], "test": MEASURED}
    files |= {"validation": MEASURED} if given != "test" else {}
    columns, told = summary_of(files, None)
    assert (columns["train"]["once"], columns["train"]["single"]) == (1, 1)
    assert columns["test"]["once"] == 0
    assert any(words.startswith(f"{EVALUATED} in validation and test") for words in told)


def test_dropped_labels_are_named_with_their_rows(summary_of):
    columns, told = summary_of({"source": PLENTY + RARE}, THIRDS | {"rare_classes": "drop"})
    assert set(columns["train"]) == {"a", "b"}
    assert (
        "split.rare_classes: drop leaves out 'once' (1 row), 'single' (1 row), 'twice' (2 rows),"
        " which have too few rows for every split: 4 rows. To train on them, set"
        " split.rare_classes: keep."
    ) in told


def test_rare_labels_stop_the_run_if_asked(summary_of):
    with pytest.raises(DataError, match="label 'once' has 1 row, 'single' has 1 row, 'twice'"):
        summary_of({"source": PLENTY + RARE}, THIRDS | {"rare_classes": "error"})
