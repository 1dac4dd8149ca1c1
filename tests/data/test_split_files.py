import json

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

FEW = (
    "warning: balance: method undersample keeps only 12 of 18 training rows an epoch, since 'y' "
    "has 6 rows. Set balance.target_ratio above 1, balance.method: oversample, or method: none "
    "with loss.class_weights: balanced, or list 'y' in data.drop_labels.\n"
)


def rows_in(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        options = pacsv.ParseOptions(newlines_in_values=True)
        return pacsv.read_csv(path, parse_options=options).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def config(tmp_path):
    """YAML for 20 rows of x and 10 of y, whose texts hold `,`, `"`, a line break and an umlaut."""
    source = tmp_path / "rows.jsonl"
    records = [{"text": f'{i}, "ä"\nb', "label": "xxy"[i % 3], "author": i} for i in range(30)]
    source.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    path = tmp_path / "c.yaml"
    content = {
        "model": {"name": "m"},
        "data": {"source": str(source), "group_column": "author"},
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "balance": {"method": "undersample"},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "file_format",
    ["jsonl", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("parquet", "csv"))],
)
def test_split_writes_partitions_and_the_balanced_rows(run_cli, config, tmp_path, file_format):
    out = tmp_path / "out"
    done = run_cli("split", "--config", config, "--output", out, "--format", file_format)
    assert (done.returncode, done.stderr) == (0, FEW)
    names = ["train", "validation", "test", "train_balanced"]
    sizes = [18, 6, 6, 12]
    assert "Rows by class: imbalance ratio 2 (mild)" in done.stdout
    assert done.stdout.splitlines()[-4:] == [
        f"{out}/{name}.{file_format}: {size} rows" for name, size in zip(names, sizes, strict=True)
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}.{file_format}" for name in names
    )
    sides = {name: rows_in(out / f"{name}.{file_format}") for name in names}
    assert [len(rows) for rows in sides.values()] == sizes
    for row in (row for rows in sides.values() for row in rows):
        i = row["row"]
        assert row["text"] == f'{i}, "ä"\nb'
        assert row["label"] == "xxy"[i % 3]
        assert row["author"] == i
        assert list(row) == ["row", "text", "label", "author"]
    split = [row["row"] for name in names[:3] for row in sides[name]]
    assert sorted(split) == list(range(30))
    balanced = [row["row"] for row in sides["train_balanced"]]
    assert set(balanced) <= {row["row"] for row in sides["train"]}
    assert [row["label"] for row in sides["train_balanced"]].count("y") == 6


def test_split_refuses_to_overwrite_and_writes_nothing(run_cli, config, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "test.jsonl").write_text("mine", encoding="utf-8")
    done = run_cli("split", "--config", config, "--output", out)
    assert (done.returncode, done.stderr) == (
        2,
        f"{out}/test.jsonl: exists already. Remove it, or give another --output.\n",
    )
    assert [path.name for path in out.iterdir()] == ["test.jsonl"]
    assert (out / "test.jsonl").read_text(encoding="utf-8") == "mine"


def test_split_refuses_an_unknown_format_before_it_reads_rows(run_cli, config, tmp_path):
    (tmp_path / "rows.jsonl").unlink()
    done = run_cli("split", "--config", config, "--output", tmp_path / "out", "--format", "xlsx")
    assert (done.returncode, done.stderr) == (
        2,
        "--format is 'xlsx'; known: csv, jsonl, parquet.\n",
    )
