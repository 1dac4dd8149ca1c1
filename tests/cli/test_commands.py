"""The command line: configs and rows as arguments, help, versions, completion, typing mistakes."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from trainer import __version__
from trainer.cli import run_config, training
from trainer.cli.typer_app import COMMANDS, app
from trainer.config.config import load_config
from trainer.data.reading.formats.compression import COMPRESSED
from trainer.data.reading.formats.readers import READERS
from trainer.errors import DataError

GROUP = get_command(app)
NAMES = [
    command.__name__.removesuffix("_command") for group in COMMANDS.values() for command in group
]


def invoke(*arguments):
    """(exit code, standard output, standard error), in lines as wide as a wide terminal."""
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("source", ["rows.csv", "ro*.csv"])
@pytest.mark.parametrize("command", ["train", "audit"])
def test_missing_file_that_lies_beside_the_yaml_is_named(command, source, tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,x\n", encoding="utf-8")
    path = tmp_path / "tweets.yaml"
    path.write_text(json.dumps({"model": {"name": "m"}, "data": {"source": source}}))
    code, _, error = invoke(command, path)
    assert code == 2
    assert f"It is beside {path}: write {tmp_path / source}, or run in {tmp_path}." in error


@pytest.fixture
def config(tmp_path):
    """A YAML whose run folder is known; nothing in it exists."""
    path = tmp_path / "tweets.yaml"
    values = {"run": {"name": "one"}, "model": {"name": "./m"}, "data": {"source": "no.csv"}}
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def trained(monkeypatch):
    """Function (*arguments) -> the config that `train` would use."""
    from trainer.runs import run_result

    found = []
    monkeypatch.setattr(run_result, "train", lambda config, resume: found.append(config))

    def train(*arguments):
        code, _, err = invoke("train", *arguments)
        assert code == 0, err
        return found[-1]

    return train


@pytest.mark.parametrize("name", NAMES)
def test_help_has_a_purpose_of_one_sentence_and_an_example_that_parses(name):
    command = GROUP.commands[name]
    purpose = command.help.split("\n\n")[0]
    assert re.fullmatch(r"[A-Z][^\n.]{9,69}\.", purpose)
    assert command.epilog.startswith(f"Example: {'ls ' if name == 'folder' else ''}")
    words = shlex.split(command.epilog.removeprefix("Example: ").split(" > ")[0])
    if name == "folder":  # within $(...)
        words = shlex.split(words[1].strip("$()"))
    assert words[:2] == ["equipoise", name]
    command.make_context(name, words[2:])
    code, out, _ = invoke(name, "--help")
    assert (code, purpose in out) == (0, True)
    assert re.sub(r"\s+", " ", out).strip().endswith(command.epilog)


def test_help_names_the_groups_in_their_order():
    _, out, _ = invoke("--help")
    places = [out.index(f"─ {group} ─") for group in COMMANDS]
    assert places == sorted(places)
    assert "python -m trainer" not in out


@pytest.mark.parametrize("given", [["FILE"], ["--config", "FILE"], ["--config=FILE"]])
def test_config_is_an_argument_or_an_option(config, given):
    arguments = [each.replace("FILE", str(config)) for each in given]
    assert invoke("folder", *arguments) == (0, "runs/one\n", "")


@pytest.mark.parametrize("command", ["train", "compare", "tune", "split", "audit", "folder"])
def test_two_configs_and_none_are_refused_in_words(config, command):
    more = ["--output", "o"] if command == "split" else []
    code, _, err = invoke(command, config, "--config", "b.yaml", *more)
    assert (code, err) == (
        2,
        f"{command}: found two configs, {config} and --config b.yaml. Give one of them.\n",
    )
    code, _, err = invoke(command, *more)
    assert code == 2
    assert err.startswith(f"{command}: n")
    assert f"equipoise {command} tweets.yaml" in err
    assert ("--data" in err) == (command in ("train", "audit"))


@pytest.mark.parametrize("name", ["tweets.csv", "a/b.jsonl.gz", "TWEETS.XLSX"])
def test_rows_in_place_of_a_config_are_named(name):
    code, _, err = invoke("train", name)
    assert (code, f"{name}: is a file of rows" in err, f"--data {name}." in err) == (2, True, True)


def test_endings_of_rows_are_those_that_are_read():
    known = {f"a{ending}{packed}" for ending in READERS for packed in ("", *COMPRESSED)}
    unclear = {
        name for name in known if (".json" in name and "jsonl" not in name) or ".txt" in name
    }
    assert all(run_config.ROWS.search(name) for name in known - unclear)
    assert run_config.path_of("train", "tweets.csv.yaml", None) == "tweets.csv.yaml"


def test_train_takes_rows_without_a_yaml(trained):
    values = trained(
        *("--data", "in/my tweets.csv", "--text-column", "body", "--label-column", "mood"),
        *("--set", "training.num_train_epochs=1", "--set", "balance.method=undersample"),
    ).to_dict()
    assert values["data"]["source"] == "in/my tweets.csv"
    assert (values["data"]["text_column"], values["data"]["label_column"]) == ("body", "mood")
    assert values["model"]["name"] == training.DEFAULT_MODEL
    assert (values["run"]["output_dir"], values["run"]["name"]) == ("runs", "my-tweets")
    assert values["training"]["num_train_epochs"] == 1
    assert values["balance"]["method"] == "undersample"


@pytest.mark.parametrize("rows", [["--data", "t.csv"], ["FILE"]])
def test_model_and_output_replace_those_of_rows_and_of_a_config(trained, config, rows):
    rows = [each.replace("FILE", str(config)) for each in rows]
    found = trained(*rows, "--model", "./mine", "--output", "out/first")
    assert (found.model.name, str(found.run_path)) == ("./mine", "out/first")


@pytest.mark.parametrize(
    ("data", "name"),
    [("user/emotion", "emotion"), ("rows/*.csv", "run"), ("données.v2.csv.gz", "donn-es.v2")],
)
def test_run_is_named_like_its_rows(data, name):
    assert run_config.run_keys(None, data) == {"run.name": name}


def test_faults_of_options_name_the_options(tmp_path):
    import torch  # noqa: F401  # else --check makes this process work without it

    rows = tmp_path / "t.csv"
    rows.write_text("body,label\na,b\nc,d\n")
    code, _, err = invoke("train", "--data", rows, "--output", tmp_path / "a b")
    assert (code, err.split(":")[0]) == (2, "--output")
    code, _, err = invoke("train", "--data", rows, "--check", "--output", tmp_path / "out")
    assert (code, "no column 'text'; found: body, label." in err) == (2, True)
    assert "Set --text-column and --label-column." in err
    code, _, err = invoke("train", "--text-column", "body")
    assert (code, "neither a config nor rows are given, only --text-column." in err) == (2, True)


def test_used_config_of_rows_without_a_yaml_repeats_the_run(tmp_path, tweets, narrow_model):
    output = tmp_path / "first"
    options = ["--data", tweets, "--label-column", "sentiment", "--model", narrow_model]
    code, _, err = invoke("train", *options, "--output", output, "--set", "training.max_steps=1")
    assert code == 0, err
    saved = load_config(str(output / "config.yaml"))
    assert (saved.run_path, saved.data.source) == (output, str(tweets))
    code, out, _ = invoke("train", output / "config.yaml")
    assert (code, "nothing to do" in out) == (0, True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("t.csv", "Set --text-column, data.label_columns or --label-column, not data_encoding."),
        (None, "Set data.text_column, data.label_columns or data.label_column, not data_encoding."),
    ],
)
def test_only_whole_keys_are_named_as_options(data, words):
    told = "Set data.text_column, data.label_columns or data.label_column, not data_encoding."
    with pytest.raises(DataError, match=re.escape(words)), run_config.naming_options(data):
        raise DataError(told)


def fresh(*arguments, **environment):
    """Finished process of the command, which says at its end whether torch was imported."""
    code = (
        "import atexit, sys\nfrom trainer.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_names_libraries_without_importing_them():
    done = fresh("--version")
    assert (done.returncode, done.stderr) == (0, "False\n")
    first, python, libraries = done.stdout.splitlines()
    assert first == f"equipoise {__version__}"
    assert python.startswith("Python 3.")
    assert re.search(r"torch \d+\.\d+.*, transformers \d+\.\d+", libraries)


def completions(words):
    """What bash offers for the last word of a command line."""
    done = fresh(
        _EQUIPOISE_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert done.stderr == "False\n"
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_keys():
    assert completions("equipoise s") == ["split", "serve", "schema"]
    assert completions("equipoise train --res") == ["--resume"]
    assert completions("equipoise train --resume ") == ["auto", "never"]
    assert completions("equipoise train --set model.ma") == ["model.max_length"]


def test_script_of_the_completion_is_that_of_the_command():
    done = fresh("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_EQUIPOISE_COMPLETE=complete_bash" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "--confg", "a.yaml"], "No such option: --confg"),
        (["train", "--confg", "a.yaml"], "--config"),
        (["predict", "m", "--imput", "a.csv"], "--input"),
    ],
)
def test_nearest_name_is_offered_for_a_wrong_one(arguments, words):
    code, _, err = invoke(*arguments)
    assert (code, words in err) == (2, True)
