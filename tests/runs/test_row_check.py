"""What `train --check` and the start of `train` find in the rows, before torch is loaded."""

import pytest

from trainer import load_config
from trainer.errors import DataError
from trainer.runs import row_check, training_run


@pytest.fixture
def config(tiny_model, tmp_path):
    """Function (rows, overrides) -> config of a file with these (text, label)."""

    def make(rows, *overrides):
        path = tmp_path / "rows.csv"
        path.write_text("\n".join(["text,label", *map(",".join, rows)]), encoding="utf-8")
        values = {
            "run": {"output_dir": str(tmp_path / "runs")},
            "model": {"name": str(tiny_model)},
            "data": {"source": str(path)},
        }
        return load_config(values, overrides)

    return make


def rows(number, labels=("a", "b")):
    return [(f"text {n}", labels[n % len(labels)]) for n in range(number)]


@pytest.mark.parametrize("find", [row_check.check_with_rows, training_run.train])
def test_one_class_is_refused_before_torch_is_needed(find, config, monkeypatch):
    monkeypatch.setattr(training_run, "start", None)  # which loads torch
    with pytest.raises(DataError, match="one class only, 'a'; a classifier needs two"):
        find(config(rows(40, ["a"])))


@pytest.mark.parametrize("find", [row_check.check_with_rows, training_run.train])
def test_file_without_rows_is_refused_before_torch_is_needed(find, config, monkeypatch):
    monkeypatch.setattr(training_run, "start", None)
    with pytest.raises(DataError, match=r"rows.csv.* holds no rows"):
        find(config([]))


def test_check_foresees_too_few_steps(config, capsys):
    assert row_check.check_with_rows(config(rows(400))) == "all 400 rows"
    said = (
        "Training has 30 optimizer steps, probably too few for 2 classes: a new head needs about"
        " 500. Set `training.num_train_epochs: 20`."
    )
    assert said in capsys.readouterr().out
    row_check.check_with_rows(config(rows(400), "training.max_steps=500"))
    row_check.check_with_rows(config(rows(400), "model.mode=head"))
    assert "probably too few" not in capsys.readouterr().out


def test_check_reads_only_the_first_rows_of_large_files(config, monkeypatch):
    monkeypatch.setattr(row_check, "MOST_BYTES", 100)
    assert row_check.check_with_rows(config(rows(400))) == "the first rows of the data"
