"""Models and rows from a Hub and the push to it, with the real client and a server on loopback."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Fault, HubServer
from huggingface_hub import ModelCard

from trainer.delivery.card.card_tables import as_text
from trainer.delivery.hub.repository_files import SHARED

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "hf_OnlyForTheServerOfTheseTests"
PUSH = {"push": True, "repo_id": "user/sentiment"}
TEXTS = ["what a lovely morning", "worst service ever", "the train leaves at nine"]
CONFIGURATIONS = b"""---
configs:
- config_name: short
  data_files:
  - {split: train, path: data/short/train.parquet}
  - {split: validation, path: data/short/validation.parquet}
  - {split: held_out, path: data/short/held_out.parquet}
- config_name: empty
  data_files: data/other/*.parquet
---
"""
LOAD = """
import json, sys
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer
import torch
from trainer import Classifier
where, texts = json.loads(sys.argv[1])
def logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(texts, return_tensors="pt", padding=True)).logits.tolist()
info, card = HfApi().model_info(where["repo"]), ModelCard.load(where["repo"])
print(json.dumps({
    "here": logits(where["folder"]), "there": logits(where["repo"]),
    "decided": [
        Classifier.load(place).probabilities(texts).tolist()
        for place in (where["folder"], where["repo"])
    ],
    "files": [s.rfilename for s in info.siblings], "private": info.private,
    "metadata": card.data.to_dict(),
    "text": card.text,
    "results": [[r.metric_name, r.dataset_split, r.metric_value] for r in card.data.eval_results],
}))
"""


@pytest.fixture(scope="module")
def hub(tiny_model, tweets):
    """The server with user/tiny, user/tweets (one CSV) and user/parts.

    user/parts has three splits of the configuration `short`; only on v1 their labels are right.
    """
    with HubServer({TOKEN: "user", "hf_reads": "reader"}) as server:
        server.add(
            "model",
            "user/tiny",
            {"config.json": b'{"model_type": "bert", "hidden_size": 7}'},
            branch="main",
        )
        server.add(
            "model",
            "user/tiny",
            {p.name: p.read_bytes() for p in tiny_model.iterdir() if p.is_file()},
            branch="v1",
        )
        server.add("dataset", "user/tweets", {"tweets.csv": tweets.read_bytes()})
        rows = list(csv.DictReader(tweets.open(encoding="utf-8")))
        parts = {"train": rows[0::2], "validation": rows[1::4], "test": rows[3::4]}
        server.add(
            "dataset",
            "user/parts",
            {
                f"data/{name}.parquet": parquet([{**r, "sentiment": "all the same"} for r in part])
                for name, part in parts.items()
            },
        )
        named = {
            "train": parts["train"],
            "validation": parts["validation"],
            "held_out": parts["test"],
        }
        files = {f"data/short/{name}.parquet": parquet(part) for name, part in named.items()}
        server.add("dataset", "user/parts", {**files, "README.md": CONFIGURATIONS}, branch="v1")
        yield server


def parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


@pytest.fixture(scope="module")
def online(hub, tmp_path_factory):
    """Environment of a user of the server, with a cache of its own."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path_factory.mktemp("hub_home")),
    }


@pytest.fixture(scope="module")
def write(tmp_path_factory, tiny_model, tweets):
    """Function (**sections) -> YAML file for one epoch of the tiny model, and its run folder."""

    def config(adapted=False, **sections):
        folder = tmp_path_factory.mktemp("hub_run")
        values = {
            "run": {"name": "run", "output_dir": str(folder / "runs")},
            "model": {"name": str(tiny_model), "max_length": 64}
            | ({"mode": "lora"} if adapted else {}),
            "data": {"source": str(tweets), "text_column": "text", "label_column": "sentiment"},
            "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "bf16": False},
            **sections,
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(values), encoding="utf-8")
        return path, folder / "runs" / "run"

    return config


@pytest.fixture(scope="module")
def pushed(run_cli, write, hub, online):
    """A run of local rows and adapters on a local model, with a decision, pushed."""
    path, folder = write(
        adapted=True,
        split={"train": 0.7, "validation": 0.15, "test": 0.15},
        decision={"temperature": True},
        hub={**PUSH, "language": ["en"], "license": "mit"},
    )
    done = run_cli("train", "--config", path, **online)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, output=done.stdout + done.stderr)


@pytest.fixture(scope="module")
def loaded(pushed, online):
    """What a client finds on the server after the push."""
    request = json.dumps([{"repo": PUSH["repo_id"], "folder": str(pushed.folder / "model")}, TEXTS])
    done = subprocess.run(
        [sys.executable, "-c", LOAD, request],
        capture_output=True,
        text=True,
        env={**os.environ, **online},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(**json.loads(done.stdout), folder=pushed.folder)


@pytest.fixture(scope="module")
def refused(run_cli, write, hub, online):
    """A run of a model and rows from the server, whose push to a branch failed."""
    path, folder = write(
        model={"name": "user/tiny", "revision": "v1", "max_length": 64},
        data={"source": "user/tweets", "label_column": "sentiment"},
        decision={"temperature": True},
        hub={
            "push": True,
            "repo_id": "user/refused",
            "revision": "trial",
            "commit_message": "It's the first",
        },
    )
    hub.faults = [
        Fault("POST /api/models/user/refused/commit", 413, reason="Too large for {token}")
    ]
    done = run_cli("train", "--config", path, **online)
    return SimpleNamespace(folder=folder, done=done)


def test_push_holds_model_card_and_pictures_in_a_private_repository(loaded):
    pictures = {
        "class_distribution.png",
        "learning_curves.png",
        "confusion_matrix.png",
        "reliability.png",
    }
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "metrics.json",
        *pictures,
    } <= set(loaded.files)
    assert loaded.private


def test_every_picture_that_the_card_shows_is_pushed(loaded):
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", loaded.text)
    assert len(shown) == 4
    assert set(shown) <= set(loaded.files)


def test_pictures_of_every_kind_of_card_are_shared():
    template = (ROOT / "trainer/delivery/card/card_template.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.png)\)", template)) <= set(SHARED)


def test_merged_model_is_pushed_without_its_adapter(loaded):
    assert (loaded.folder / "adapter" / "adapter_config.json").is_file()
    assert not [name for name in loaded.files if "adapter" in name]


def test_push_holds_no_pickled_file_and_no_training_row(loaded):
    assert not [
        name
        for name in loaded.files
        if name.endswith((".bin", ".pt", ".jsonl", ".parquet", ".csv")) and name != "epochs.csv"
    ]


def test_pushed_model_gives_the_logits_of_the_local_one(loaded):
    assert len(loaded.here) == len(TEXTS)
    assert loaded.there == loaded.here
    assert loaded.decided[0] == loaded.decided[1]


def test_pushed_card_names_library_task_and_metrics(loaded):
    assert loaded.metadata["library_name"] == "transformers"
    assert loaded.metadata["pipeline_tag"] == "text-classification"
    assert {"f1", "accuracy"} <= set(loaded.metadata["metrics"])
    assert (loaded.metadata["language"], loaded.metadata["license"]) == (["en"], "mit")
    assert f'pipeline("text-classification", "{PUSH["repo_id"]}")' in loaded.text
    assert f'Classifier.load("{PUSH["repo_id"]}")' in loaded.text


def test_pushed_card_tells_its_use_and_limits_and_no_path_of_this_machine(loaded, tiny_model):
    sections = re.findall(r"^## (.+)$", loaded.text, re.MULTILINE)
    assert sections == ["Intended use", "Data", "Balancing", "Training", "Results", "Limits"]
    assert "(language: en)" in loaded.text
    assert f"fine-tuned from `{tiny_model.name}`" in loaded.text
    assert str(tiny_model.parent) not in loaded.text


def test_tables_of_the_pushed_card_are_tables_in_markdown(loaded):
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(loaded.text)
    assert [t.type for t in tokens].count(
        "table_open"
    ) == 6  # rows of the classes, epochs, and two for each of validation and test
    assert [t.type for t in tokens].count("fence") == 2


def test_pushed_card_tells_the_macro_f1_of_metrics_json(loaded):
    metrics = json.loads((loaded.folder / "metrics.json").read_text(encoding="utf-8"))
    assert [
        "Macro F1",
        "test",
        pytest.approx(metrics["decision"]["test"]["macro_f1"], abs=1e-6),
    ] in loaded.results


def test_output_ends_with_the_address_of_the_commit(pushed, hub):
    assert (
        f"Pushed to {hub.url}/{PUSH['repo_id']}/commit/"
        f"{hub.repos['model', PUSH['repo_id']].branches['main']}" in pushed.output
    )


def test_token_stands_in_no_file_and_no_output(pushed, refused):
    files = [
        p for folder in (pushed.folder, refused.folder) for p in folder.rglob("*") if p.is_file()
    ]
    assert len(files) > 20
    assert not [p for p in files if TOKEN.encode() in p.read_bytes()]
    assert TOKEN not in pushed.output + refused.done.stdout + refused.done.stderr


def test_failed_push_leaves_a_finished_run_and_says_how_to_repeat_it(refused):
    assert refused.done.returncode == 0, refused.done.stderr
    assert (refused.folder / "metrics.json").is_file()
    assert "The push to user/refused failed: " in refused.done.stderr
    assert "Too large for ***." in refused.done.stderr
    assert f"All files are kept in {refused.folder}; repeat with:" in refused.done.stderr
    assert "Traceback" not in refused.done.stderr


def test_command_of_the_warning_repeats_the_push(refused, pushed, hub, online):
    command = next(
        line for line in refused.done.stderr.splitlines() if line.startswith("equipoise push ")
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, **online, "PATH": path},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    repeated, first = hub.repos["model", "user/refused"], hub.repos["model", PUSH["repo_id"]]
    files = repeated.commits[repeated.branches["trial"]]
    assert set(files) == set(first.commits[first.branches["main"]])
    assert (
        files["model.safetensors"] == (refused.folder / "model" / "model.safetensors").read_bytes()
    )
    assert set(repeated.commits[repeated.branches["main"]]) == {".gitattributes"}
    assert repeated.private


def test_model_and_rows_of_the_hub_train(refused):
    metrics = json.loads((refused.folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["validation"]["per_class"]) == {"negative", "neutral", "positive"}
    card = (refused.folder / "README.md").read_text(encoding="utf-8")
    assert "base_model: user/tiny\n" in card
    assert "datasets:\n- user/tweets\n" in card


def test_commits_of_model_and_rows_are_recorded(refused, hub):
    model, rows = (
        hub.repos["model", "user/tiny"].branches["v1"],
        hub.repos["dataset", "user/tweets"].branches["main"],
    )
    commits = json.loads((refused.folder / "environment.json").read_text(encoding="utf-8"))["hub"]
    assert commits == {"model": {"user/tiny": model}, "data": {"user/tweets": rows}}
    card = (refused.folder / "README.md").read_text(encoding="utf-8")
    assert f"fine-tuned from `user/tiny` (commit `{model[:12]}`)" in card
    assert f"Rows of `user/tweets` (commit `{rows[:12]}`) on the Hugging Face Hub." in card


def test_card_of_a_split_of_our_own_claims_no_result_on_the_hub_data_set(refused):
    results = ModelCard.load(refused.folder / "README.md").data.eval_results
    assert {(r.dataset_type, r.dataset_name, r.dataset_split) for r in results} == {
        ("custom", "own split of user/tweets", "validation")
    }
    assert {r.dataset_revision for r in results} == {None}


def test_splits_of_a_hub_data_set_are_used_as_given_at_their_revision_and_named_in_the_card(
    run_cli, write, hub, online
):
    path, folder = write(
        model={"name": "user/tiny", "revision": "v1", "max_length": 64},
        data={
            **dict.fromkeys(("train", "validation", "test"), "user/parts"),
            **{
                "subset": "short",
                "revision": "v1",
                "split_names": {"test": "held_out"},
                "label_column": "sentiment",
            },
        },
    )
    done = run_cli("train", "--config", path, **online)
    assert done.returncode == 0, done.stderr
    sizes = {
        name: len(ids)
        for name, ids in json.loads((folder / "splits.json").read_text(encoding="utf-8")).items()
    }
    assert sizes == {"train": 120, "validation": 60, "test": 60}
    commit, card = (
        hub.repos["dataset", "user/parts"].branches["v1"],
        ModelCard.load(folder / "README.md"),
    )
    named = {
        (r.dataset_type, r.dataset_name, r.dataset_config, r.dataset_split, r.dataset_revision)
        for r in card.data.eval_results
    }
    assert named == {("user/parts", "user/parts", "short", "held_out", commit)}
    assert (
        f"Rows of `user/parts` (configuration `short`, commit `{commit[:12]}`) on the"
        f" Hugging Face Hub."
    ) in card.text
    offline = run_cli(
        "train",
        "--config",
        path,
        "--check",
        "--set",
        "run.name=again",
        **{**online, "HF_HUB_OFFLINE": "1"},
    )
    assert offline.returncode == 0, offline.stderr


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrong", "Invalid user token"), ("", "there is no token"), ("hf_reads", "may only read")],
)
def test_token_that_cannot_push_is_told_before_training(
    token, words, run_cli, write, hub, online, tmp_path
):
    path, folder = write(hub={"push": True, "repo_id": "user/never"})
    done = run_cli(
        "train", "--config", path, **{**online, "HF_TOKEN": token, "HF_HOME": str(tmp_path)}
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert (
        "Set HF_TOKEN or run hf auth login, or set hub.push: false and push the"
        " finished run with equipoise push."
    ) in done.stderr
    assert not folder.parent.exists()
    assert ("model", "user/never") not in hub.repos


QUICK = (("model", "1"), ("rows", "0"))
MISSING = {
    "model": ({"model": {"name": "user/absent"}}, "model.name: 'user/absent'"),
    "rows": (
        {"data": {"source": "user/absent", "label_column": "sentiment"}},
        "data.source: 'user/absent'",
    ),
    "revision of the model": (
        {"model": {"name": "user/tiny", "revision": "v9"}},
        "model.name: 'user/tiny'",
    ),
    "revision of the rows": (
        {"data": {"source": "user/tweets", "revision": "v9", "label_column": "sentiment"}},
        "data.source: 'user/tweets'",
    ),
}


@pytest.mark.parametrize(
    ("what", "offline"),
    [
        pytest.param(
            what, offline, marks=() if (what, offline) in QUICK else pytest.mark.exhaustive
        )
        for what in MISSING
        for offline in ("0", "1")
    ],
)
def test_absent_hub_id_is_told_in_one_message(what, offline, run_cli, write, online, tmp_path):
    sections, words = MISSING[what]
    path, folder = write(**sections)
    for check in ([], ["--check"]):
        done = run_cli(
            "train",
            "--config",
            path,
            *check,
            **{**online, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path)},
        )
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3
        assert (
            "HF_HUB_OFFLINE is set and the cache lacks it: run once without"
            if offline == "1"
            else "set HF_TOKEN"
        ) in done.stderr
        assert not folder.exists()


def test_hub_that_cannot_be_reached_is_told_before_training(run_cli, write, online):
    path, folder = write(hub=PUSH)
    done = run_cli("train", "--config", path, **{**online, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 2
    assert "the login to the Hub failed" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    "label",
    [
        "__init__",
        "a|b",
        "![x](http://x/x.png)",
        "<script>1</script>",
        "line\n# Heading",
        "[link](http://x)",
        "a_b *c* `d` ~~e~~",
        "\\",
    ],
)
def test_label_of_any_kind_is_shown_as_it_is_in_the_card(label):
    from markdown_it import MarkdownIt

    (inline,) = [
        token
        for token in MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(f"the label {as_text(label)}.")
        if token.children
    ]
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert (
        "".join(child.content for child in inline.children)
        == f"the label {' '.join(label.split())}."
    )
