"""Runs with `data.streaming`: config errors in the first second, correct counts in the folder."""

import csv
import json
from pathlib import Path

import pytest

from trainer import load_config
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"data": {"limit": 10}},
            (
                "limit is set with streaming: true; needed: streaming_rows and"
                " streaming_evaluation_rows instead"
            ),
        ),
        (
            {"data": {"group_column": "author"}},
            "group_column is set with streaming: true, which splits by text alone",
        ),
        (
            {"data": {"label_columns": ["a", "b"], "label_column": ...}},
            "label_columns is set with streaming: true, which needs one label a row",
        ),
        (
            {"balance": {"scope": "all"}},
            (
                "balance.scope is 'all' with data.streaming; rows are chosen after the"
                " split. Set balance.scope: train"
            ),
        ),
        (
            {
                "augment": {
                    "generator": "endpoint",
                    "model": "m",
                    "base_url": "http://localhost:1",
                    "target_rows": 50,
                }
            },
            "augment.generator is set with data.streaming",
        ),
        (
            {"ensemble": {"size": 3, "kind": "folds"}},
            "ensemble.kind: folds with data.streaming, which splits rows once",
        ),
        ({"split": {"primary_label": True}}, "split.primary_label is set with data.streaming"),
        (
            {"ensemble": {"size": 3}, "model": {"mode": "head"}},
            "members that see the same rows are equal",
        ),
    ],
)
def test_what_streaming_cannot_do_is_refused_before_any_row_is_read(config_file, sections, message):
    path = config_file(**{**sections, "data": {"streaming": True, **sections.get("data", {})}})
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert message in str(raised.value)


@pytest.fixture(scope="module")
def shards(tmp_path_factory, tweets):
    """Glob of three JSONL shards of the 240 tweets, one row empty and one there twice."""
    folder = tmp_path_factory.mktemp("shards")
    rows = list(csv.DictReader(tweets.open(encoding="utf-8", newline="")))
    rows += [rows[0], {"text": "", "sentiment": "neutral"}]
    for place in range(3):
        (folder / f"{place}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows[place::3]), encoding="utf-8"
        )
    return str(folder / "*.jsonl")


@pytest.mark.exhaustive
def test_streamed_run_trains_checks_and_tells_what_was_read_and_chosen(
    config_file, run_cli, shards, tmp_path
):
    path = config_file(data={"source": shards, "streaming": True})
    assert run_cli("train", "--config", path, "--check").returncode == 0
    done = run_cli("train", "--config", path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/run"
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["data"]
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    read = environment["read_by_class"]
    assert {
        name: sum(counts[label] for counts in read.values())
        for name, label in (("negative",) * 2, ("neutral",) * 2, ("positive",) * 2)
    } == {
        "negative": 120,
        "neutral": 80,
        "positive": 40,
    }
    assert len(splits["train"]) == 3 * min(read["train"].values())
    assert (
        environment["rows"]["kept"],
        environment["rows"]["empty text"],
        environment["rows"]["duplicate text"],
    ) == (240, 1, 1)
    sentence = (
        f"Streamed: 242 rows read, 240 left by cleaning; chosen: {len(splits['train'])} of"
        f" {sum(read['train'].values())} of train;"
    )
    assert sentence in done.stdout
    assert sentence in (folder / "README.md").read_text(encoding="utf-8")
    assert len((folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    exported = run_cli("split", "--config", path, "--output", tmp_path / "files")
    assert f"train.jsonl: {len(splits['train'])} rows" in exported.stdout
    audit = run_cli("audit", "--config", path)
    assert audit.returncode == 2
    assert audit.stderr.startswith(
        "the audit keeps all rows in memory, which data.streaming avoids. Audit one of the"
    )


@pytest.mark.exhaustive
def test_finished_run_is_known_again_when_its_shards_come_in_another_order(
    config_file, run_cli, shards, tmp_path
):
    copies = tmp_path / "copies"
    copies.mkdir()
    for place, shard in enumerate(sorted(Path(shards).parent.iterdir())):
        (copies / f"{place}.jsonl").write_bytes(shard.read_bytes())
    path = config_file(data={"source": f"{copies}/*.jsonl", "streaming": True})
    assert run_cli("train", "--config", path).returncode == 0
    for name in ("0", "1"):
        (copies / f"{name}.jsonl").rename(copies / f"{9 - int(name)}.jsonl")
    again = run_cli("train", "--config", path)
    assert "holds the finished run of this config and data: nothing to do" in again.stdout
