"""Runs with synthetic rows: config errors, the run folder, and servers that fail."""

import json

import pyarrow.parquet as pq
import pytest
from chat_server import chat_server

from trainer import load_config
from trainer.cli.training import split_command, train_command
from trainer.errors import ConfigError, TrainerError
from trainer.runs import training_run
from trainer.runs.ensemble import train_ensemble
from trainer.runs.preparation import prepare

pytestmark = pytest.mark.slow

ENDPOINT = {
    "generator": "endpoint",
    "model": "m",
    "target_rows": 5,
    "base_url": "http://127.0.0.1:9/v1",
}


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (
            {"generator": "locl"},
            "augment.generator is 'locl'; known: endpoint, local, none. Did you mean 'local'?",
        ),
        ({"generator": "local"}, "augment: generator local needs model, target_rows."),
        (
            {"generator": "endpoint", "target_rows": 5},
            "augment: generator endpoint needs model, base_url.",
        ),
        (
            {"generator": "local", "model": "m", "target_rows": 5, "api_key_env": "K"},
            "generator local has no base_url and no api_key_env",
        ),
        (
            {"prompt": "{labl} x"},
            "augment.prompt: holds {labl}; known: {label}, {examples}. Write {{ and }} for braces",
        ),
        ({"prompt": "{label.upper}"}, "augment.prompt: holds {label.upper}; known:"),
        ({"prompt": "{}"}, "augment.prompt: holds {}; known:"),
        (
            {"prompt": "{label:d}"},
            (
                "augment.prompt: formats a placeholder with : or !; write {label} and"
                " {examples} as they are"
            ),
        ),
        ({"prompt": "{label:{more}}"}, "augment.prompt: formats a placeholder with : or !"),
        (
            {"prompt": "{label"},
            "augment.prompt: is no template (expected '}' before end of string)",
        ),
        (
            {"base_url": "localhost:8000"},
            "augment.base_url: is 'localhost:8000'; needed: an http or https address such as",
        ),
        (
            {"base_url": "http://user:pass@host/v1"},
            "augment.base_url: holds a user or password, which the run folder would keep",
        ),
        ({"similarity": 1.5}, "augment.similarity is 1.5; needed: less than or equal to 1"),
        ({"temperature": 0}, "augment.temperature is 0; needed: greater than 0"),
        ({"max_attempts": 0}, "augment.max_attempts is 0; needed: greater than or equal to 1"),
        (
            {**ENDPOINT, "min_characters": 9, "max_characters": 3},
            "augment: min_characters 9 is more than max_characters 3",
        ),
    ],
)
def test_fault_of_augment_is_worded(config_file, augment, words):
    with pytest.raises(ConfigError) as error:
        load_config(config_file(augment=augment))
    assert words in str(error.value)


def test_key_in_place_of_its_variable_is_refused_without_repeating_it(config_file):
    with pytest.raises(
        ConfigError, match=r"augment\.api_key_env: is no name of an environment variable"
    ) as error:
        load_config(config_file(augment={**ENDPOINT, "api_key_env": "sk-secret-123"}))
    assert "sk-secret" not in str(error.value)


def test_pairs_domains_and_balanced_pools_are_refused(config_file):
    with pytest.raises(
        ConfigError,
        match=(
            r"augment\.generator is set with balance\.scope: all; synthetic rows join the"
            r" training rows alone"
        ),
    ):
        load_config(config_file(augment=ENDPOINT, balance={"scope": "all"}))
    with pytest.raises(
        ConfigError,
        match=r"augment\.generator is set with balance\.by; synthetic rows have no domain",
    ):
        load_config(
            config_file(
                augment=ENDPOINT, balance={"method": "floor", "min_share": 0.1, "by": "site"}
            )
        )
    with pytest.raises(
        ConfigError,
        match=(
            r"augment\.generator is set with a text pair in data\.text_column; only single"
            r" texts can be written"
        ),
    ):
        load_config(config_file(augment=ENDPOINT, data={"text_column": ["prompt", "answer"]}))


def test_check_looks_at_the_model_without_writing_anything(
    config_file, server, tmp_path, tiny_model
):
    train_command(
        config=config_file(augment={**ENDPOINT, "base_url": server.base_url}),
        set_=[],
        resume="auto",
        check=True,
    )
    assert server.bodies == []
    for augment, words in (
        ({**ENDPOINT, "api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        (
            {"generator": "local", "model": str(tmp_path / "none"), "target_rows": 5},
            "does not exist",
        ),
    ):
        with pytest.raises(TrainerError, match=words):
            training_run.check(load_config(config_file(augment=augment)))


def test_server_that_is_down_ends_the_command_with_code_2_and_no_run_folder(
    config_file, server, capsys, tmp_path
):
    server.always = "500"
    with pytest.raises(SystemExit) as stopped:
        train_command(
            config=config_file(
                augment={**ENDPOINT, "base_url": server.base_url, "target_rows": 30, "retries": 1}
            ),
            set_=[],
            resume="auto",
        )
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "gave no usable answer" in message
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def augmented(config_file, server, monkeypatch):
    """YAML of a run that fills positive up from 28 to 36 training rows."""
    monkeypatch.setenv("MY_KEY", "sk-secret")
    augment = {
        **ENDPOINT,
        "base_url": server.base_url,
        "target_rows": 36,
        "labels": ["positive"],
        "api_key_env": "MY_KEY",
    }
    return config_file(
        augment=augment,
        training={"max_steps": 2},
        decision={"prior": "natural"},
        run={"seed": 7, "overwrite": True},
    )


def test_run_folder_lists_counts_and_marks_every_synthetic_row(augmented, server, capsys):
    folder = training_run.train(load_config(augmented))
    lines = [
        json.loads(line)
        for line in (folder / "synthetic.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    splits = json.loads((folder / "splits.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [line["row"] for line in lines] == splits["synthetic"] == list(range(240, 248))
    assert {line["label"] for line in lines} == {"positive"}
    assert all(set(line["source_rows"]) <= set(splits["train"]) for line in lines)
    assert (len(splits["train"]), len(splits["validation"]), len(splits["test"])) == (168, 36, 36)
    assert metrics["augment"]["positive"]["accepted"] == 8
    assert metrics["minority_label"] == "positive"
    assert set(pq.read_table(folder / "predictions.parquet")["row"].to_pylist()) == {
        *splits["validation"],
        *splits["test"],
    }
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "8 training rows are synthetic. `m` wrote them through an OpenAI-compatible server" in card
    )
    assert "| label | train | synthetic | seen per epoch | validation | test |" in card
    assert "| positive | 28 | 8 | 36 | 6 | 6 |" in card
    assert "this is approximate, since balancing or synthetic rows" in card
    assert not [line["text"] for line in lines if line["text"] in card]
    assert "synthetic" in capsys.readouterr().out
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"sk-secret" not in everything


def test_second_run_asks_nothing_and_has_the_same_rows(augmented, server):
    first = prepare(load_config(augmented)).clean
    asked = len(server.bodies)
    assert prepare(load_config(augmented)).clean.fingerprint == first.fingerprint
    assert len(server.bodies) == asked
    assert first.counts["kept"] == 240
    assert (
        prepare(load_config(augmented, ["augment.generator=none"])).clean.fingerprint
        != first.fingerprint
    )


def test_exported_rows_are_marked(augmented, server, tmp_path):
    split_command(config=augmented, output=tmp_path / "splits", set_=[], file_format="jsonl")
    marks = {
        name: [
            json.loads(line)["synthetic"]
            for line in (tmp_path / f"splits/{name}.jsonl").read_text().splitlines()
        ]
        for name in ("train", "test")
    }
    assert sum(marks["train"]) == 8
    assert marks["train"][-8:] == [True] * 8
    assert not any(marks["test"])


@pytest.mark.exhaustive
def test_ensemble_of_folds_that_have_synthetic_rows_of_their_own_goes_on(augmented, capsys):
    overrides = [
        "ensemble.size=2",
        "ensemble.kind=folds",
        "augment.target_rows=20",
        "run.overwrite=false",
    ]
    folder = train_ensemble(load_config(augmented, overrides))
    prompts = [
        (folder / f"member-{number}/synthetic.jsonl").read_text(encoding="utf-8")
        for number in (1, 2)
    ]
    assert prompts[0] != prompts[1]
    (folder / "metrics.json").unlink()
    capsys.readouterr()
    assert train_ensemble(load_config(augmented, overrides)) == folder
    assert "Member 1 of 2" not in capsys.readouterr().out
    assert (folder / "metrics.json").is_file()
