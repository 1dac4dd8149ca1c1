"""ONNX models answer as their originals, in our Classifier and in ONNX Runtime, or are refused."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, XLNetConfig

from trainer import Classifier, extras, load_config
from trainer.delivery.export import eight_bits, export_check, export_folder, onnx_writer
from trainer.delivery.predicting import onnx_runtime
from trainer.delivery.serving.serve import serve
from trainer.errors import ConfigError, DataError, ExportError, MissingPackageError, RunError
from trainer.evaluation.decisions.decision import Decision
from trainer.runs import model_export, training_run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _few_rounds():
    """Times are taken, but not to be relied on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_check, "ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, tweets):
    """Run folder of a model whose config carries thresholds."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copy(tweets, folder / "tweets.csv")
    values = {
        "run": {"name": "run", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 48},
        "data": {"source": str(folder / "tweets.csv"), "label_column": "sentiment"},
        "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
        "balance": {"method": "undersample"},
        "decision": {"prior": "natural", "thresholds": "f1"},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-4,
            "bf16": False,
        },
    }
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    return training_run.train(load_config(str(folder / "config.yaml")))


@pytest.fixture(scope="module")
def exported(run, run_cli):
    """(folder, what the command printed)."""
    done = run_cli("export", run)
    assert (done.returncode, done.stderr) == (0, "")
    return run.with_name("run-onnx"), done.stdout


def take_graph(patch, folder):
    """Have exports take the graph of a folder, which saves the seconds of writing it again."""
    patch.setattr(
        onnx_writer,
        "write_graph",
        lambda model, tokenizer, path, **_: shutil.copy(folder / "model.onnx", path),
    )


@pytest.fixture(scope="module")
def quantised(run, exported):
    """Folder of the run's model in 8 bits."""
    with pytest.MonkeyPatch.context() as patch:
        take_graph(patch, exported[0])
        return model_export.export(
            str(run / "model"), int8=True, max_loss=0.2, output=run.with_name("small")
        )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, tiny_model, tactics):
    """Run folder of a model that gives text pairs any number of labels."""
    folder = tmp_path_factory.mktemp("pairs")
    wanted = {"discovery", "execution", "persistence"}
    rows = [
        {"a": one["text"], "b": two["text"], "labels": sorted(wanted & set(one["labels"]))}
        for one, two in zip(tactics[:160], tactics[200:], strict=False)
    ]
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    values = {
        "run": {"name": "pairs", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 48},
        "data": {
            "source": str(folder / "pairs.jsonl"),
            "text_column": ["a", "b"],
            "label_column": "labels",
        },
        "decision": {"thresholds": "f1", "at_least_one": True, "at_most": 2},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "bf16": False,
        },
    }
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    return training_run.train(load_config(str(folder / "config.yaml")))


def findings(folder):
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def validation_texts(run):
    classifier = Classifier.load(run, device="cpu")
    return model_export._validation_rows(run, classifier).texts, classifier


def test_command_writes_a_model_that_agrees_on_all_validation_rows_and_says_so(run, exported):
    folder, printed = exported
    rows = len(json.loads((run / "splits.json").read_text(encoding="utf-8"))["validation"])
    check = findings(folder)["check"]
    assert (check["rows"], check["float32"]["labels_differ"], check["float32"]["differing"]) == (
        rows,
        0,
        [],
    )
    assert check["float32"]["max_probability_difference"] < 1e-4
    assert f"float32: 0 of {rows} labels differ on the validation rows of run" in printed
    assert re.search(r"original .* \(1\.00x\)", printed)
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "export.json",
        "README.md",
    }
    assert [path.name for path in folder.parent.iterdir() if "partial" in path.name] == []


def test_graph_answers_as_torch_for_any_number_of_rows_and_tokens(run, exported):
    graph = onnx_runtime.OnnxModel(exported[0])
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    generator = torch.Generator().manual_seed(1)
    for length in range(1, 49):
        num_rows = 1 + length % 9
        ids = torch.randint(1_000, 8_000, (num_rows, length), generator=generator)
        lengths = torch.randint(1, length + 1, (num_rows, 1), generator=generator)
        mask = (torch.arange(length) < lengths).long()
        batch = {
            "input_ids": ids * mask,
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(ids),
        }
        with torch.no_grad():
            torch.testing.assert_close(
                graph(**batch).logits, model(**batch).logits, atol=1e-4, rtol=0
            )


def test_our_classifier_decides_the_same_labels_with_it(run, exported):
    texts, original = validation_texts(run)
    assert (
        original.models[0].padded_because is None
    )  # the original runs packed, which must not get into the graph
    ours, theirs = original.classify(texts), Classifier.load(exported[0]).classify(texts)
    np.testing.assert_allclose(theirs.probabilities_NC, ours.probabilities_NC, atol=1e-5)
    assert (theirs.decided == ours.decided).all()
    assert (ours.decided != ours.probabilities_NC.argmax(axis=1)).any()  # thresholds speak
    recorded = [
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["train_rows"]
        for folder in (run / "model", exported[0])
    ]
    assert recorded[0] == recorded[1]


def by_readme(folder, texts):
    """Labels that the README's lines give for texts, in a process that cannot import torch."""
    code = re.search(
        r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL
    ).group(1)
    given = "*map(list, zip(*texts))" if isinstance(texts[0], dict) else "texts"
    listed = [list(text.values()) if isinstance(text, dict) else text for text in texts]
    code = code.replace('["a text", "and another"]', given)
    script = (
        f"import sys\nsys.modules['torch'] = None\ntexts ="
        f" {listed!r}\n{code}\nprint(json.dumps(labels))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_lines_of_the_readme_give_the_decided_labels_without_torch(run, exported):
    texts, original = validation_texts(run)
    assert by_readme(exported[0], texts[:40]) == [
        prediction.label for prediction in original.predict(texts[:40])
    ]


def test_eight_bits_are_smaller_and_what_they_lose_is_counted(run, quantised):
    texts, original = validation_texts(run)
    found = findings(quantised)
    ours, theirs = original.classify(texts), Classifier.load(quantised).classify(texts)
    assert (
        found["check"]["int8"]["labels_differ"]
        == (ours.decided != theirs.decided).sum()
        == len(found["check"]["int8"]["differing"])
    )
    assert found["check"]["int8"]["max_probability_difference"] == pytest.approx(
        np.abs(ours.probabilities_NC - theirs.probabilities_NC).max()
    )
    assert found["check"]["float32"]["labels_differ"] == 0
    assert found["bytes"]["int8"] < 0.3 * found["bytes"]["float32"]
    assert (quantised / "model.onnx").stat().st_size == found["bytes"]["int8"]
    assert "The weights have 8 bits" in (quantised / "README.md").read_text(encoding="utf-8")


def test_bfloat16_is_refused_for_a_graph(exported):
    with pytest.raises(ConfigError, match="holds a graph for ONNX Runtime, which computes as it"):
        serve(exported[0], port=0, bf16=True)


@pytest.mark.exhaustive
def test_text_pairs_with_any_number_of_labels_agree_too(pairs):
    folder = model_export.export(str(pairs))
    texts, original = validation_texts(pairs)
    assert set(texts[0]) == {"text", "text_pair"}
    check = findings(folder)["check"]
    assert (check["rows"], check["float32"]["labels_differ"]) == (len(texts), 0)
    assert by_readme(folder, texts[:20]) == [
        list(prediction.labels) for prediction in original.predict(texts[:20])
    ]


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"temperature": 2.0, "shift": [0.5, -1.0, 0.2]},
        {"thresholds": {"negative": 0.2, "neutral": 0.5, "positive": 0.3}},
        {"temperature": 0.5, "shift": [0.0, 1.0, 0.0], "costs": [[0, 1, 5], [1, 0, 1], [9, 1, 0]]},
    ],
    ids=lambda decision: " and ".join(decision) or "none",
)
def test_readme_decides_as_the_model_whatever_its_decision(run, tmp_path, decision):
    shutil.copytree(run / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text(encoding="utf-8")) | {
        "decision": decision
    }
    (tmp_path / "model/config.json").write_text(json.dumps(config), encoding="utf-8")
    model = Classifier.load(tmp_path / "model", device="cpu").models[0]
    logits = np.random.default_rng(0).normal(size=(200, 3)) * 2
    names = {"np": np, "config": config, "logits": logits}
    exec(export_folder._decision_lines(model), names)
    expected = Decision.from_config(decision, model.labels)
    assert names["labels"] == [
        model.labels[c] for c in expected.decide(expected.log_probabilities(logits))
    ]


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"thresholds": {"negative": 0.2, "neutral": 0.5, "positive": 0.9}, "at_least_one": True},
        {"temperature": 0.5, "shift": [0.5, 1.0, 0.0], "at_least_one": True, "at_most": 1},
        {"thresholds": {"negative": 0.2, "neutral": 0.1, "positive": 0.3}, "at_most": 2},
    ],
    ids=lambda decision: " and ".join(decision) or "none",
)
def test_readme_gives_the_label_sets_of_a_multi_label_model(run, tmp_path, decision):
    shutil.copytree(run / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text(encoding="utf-8")) | {
        "decision": decision,
        "problem_type": "multi_label_classification",
    }
    (tmp_path / "model/config.json").write_text(json.dumps(config), encoding="utf-8")
    model = Classifier.load(tmp_path / "model", device="cpu").models[0]
    logits = np.random.default_rng(0).normal(size=(200, 3)) * 2
    names = {"np": np, "config": config, "logits": logits}
    exec(export_folder._decision_lines(model), names)
    given_NC = model.decision.apply(logits)[1]
    assert names["labels"] == [[model.labels[c] for c in np.flatnonzero(row)] for row in given_NC]


def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_left(run, quantised, monkeypatch):
    take_graph(monkeypatch, quantised)
    before = {path.name for path in run.parent.iterdir()}
    words = (
        r"probabilities differ by up to 0\.\d+ on the validation rows of run; allowed:"
        r" 0\.0001\. Nothing was written"
    )
    with pytest.raises(ExportError, match=words):
        model_export.export(str(run), output=run.with_name("other"))
    assert {path.name for path in run.parent.iterdir()} == before
    with pytest.raises(ExportError, match="by up to nan on random tokens"):
        onnx_writer.refuse_difference(float("nan"), "on random tokens")
    onnx_writer.refuse_difference(3e-4, "on rows", rounding=1e-4)
    with pytest.raises(ExportError, match=r"by up to 0\.0005 on rows; allowed: 0\.0004\."):
        onnx_writer.refuse_difference(5e-4, "on rows", rounding=1e-4)


def test_a_model_that_torch_cannot_write_is_refused_with_the_reason(tiny_model, tmp_path):
    config = XLNetConfig(
        vocab_size=30522, d_model=16, n_layer=1, n_head=2, d_inner=16, num_labels=2
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "xlnet")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "xlnet")
    with pytest.raises(
        ExportError,
        match=(
            r"^XLNetForSequenceClassification cannot be written as an ONNX graph: \w+:"
            r" .+\. Use the model folder itself\.$"
        ),
    ):
        model_export.export(str(tmp_path / "xlnet"))
    assert [path.name for path in tmp_path.iterdir()] == ["xlnet"]


def test_rows_that_cannot_be_read_again_leave_the_export_unchecked(
    run, exported, monkeypatch, tmp_path, capsys
):
    config = (run / "config.yaml").read_text(encoding="utf-8")
    classifier = Classifier.load(run, device="cpu")
    shutil.copytree(run, tmp_path / "run")
    data = tmp_path / "tweets.csv"
    (tmp_path / "run/config.yaml").write_text(
        config.replace(str(run.parent / "tweets.csv"), str(data)), encoding="utf-8"
    )
    assert re.match(
        r"the rows of the run cannot be read again: .*tweets\.csv.* Give --data\.",
        model_export._validation_rows(tmp_path / "run", classifier),
    )
    text = (run.parent / "tweets.csv").read_text(encoding="utf-8")
    data.write_text(text.replace("the", "teh", 1), encoding="utf-8")
    assert (
        model_export._validation_rows(tmp_path / "run", classifier)
        == "the run's data has changed since the training. Give --data."
    )
    shutil.copytree(run / "model", tmp_path / "alone")
    take_graph(monkeypatch, exported[0])
    folder = model_export.export(str(tmp_path / "alone"))
    assert findings(folder)["check"] == {
        "not_checked": f"{tmp_path / 'alone'} is no run folder, so it has no validation"
        " rows. Give --data."
    }
    assert "Not compared with the original: " in capsys.readouterr().out
    assert "Not compared with the original: " in (folder / "README.md").read_text(encoding="utf-8")


def test_a_given_file_is_read_as_the_run_reads_its_own(run, pairs, tmp_path):
    classifier, several = Classifier.load(run, device="cpu"), Classifier.load(pairs, device="cpu")
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,sentiment\nfine day,positive\nbad day,negative\nfine night,positive\n",
        encoding="utf-8",
    )
    rows = model_export._rows_of(str(path), run, classifier)
    assert (rows.texts, rows.row_ids_N.tolist(), [classifier.labels[c] for c in rows.targets]) == (
        ["fine day", "bad day", "fine night"],
        [0, 1, 2],
        ["positive", "negative", "positive"],
    )
    lists = tmp_path / "rows.jsonl"
    lists.write_text(
        (
            '{"a": "x", "b": "y", "labels": ["execution"]}\n{"a": "z", "b": "y",'
            ' "labels": ["discovery"]}\n'
        ),
        encoding="utf-8",
    )
    expected = [
        [label == wanted for label in several.labels] for wanted in ("execution", "discovery")
    ]
    assert model_export._rows_of(str(lists), pairs, several).targets.tolist() == expected
    path.write_text("text,sentiment\nfine day,joyful\nbad day,negative\n", encoding="utf-8")
    with pytest.raises(
        DataError,
        match=(
            r"does not know: joyful \(1 row\); known: negative, neutral, positive\."
            r" Correct these labels, or remove"
        ),
    ):
        model_export._rows_of(str(path), run, classifier)
    path.write_text("a,b,labels\nx,y,execution\nz,y,discovery\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"holds one label a row, but .* gives any number of labels\."
    ):
        model_export._rows_of(str(path), pairs, several)


def test_a_given_file_is_named_by_the_map_of_the_run_and_compared_by_key(run, tmp_path):
    classifier = Classifier.load(run, device="cpu")
    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["data"] |= {
        "label_map": {"joyful": "positive", "sad": "negative", "?": None},
        "drop_labels": ["spam", "ham"],
    }
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (tmp_path / "rows.csv").write_text(
        "text,sentiment\nfine day,joyful\nbad day,negative\u200b\nx,?\ny,spam\n", encoding="utf-8"
    )
    rows = model_export._rows_of(str(tmp_path / "rows.csv"), tmp_path / "run", classifier)
    assert (rows.row_ids_N.tolist(), [classifier.labels[c] for c in rows.targets]) == (
        [0, 1],
        ["positive", "negative"],
    )


def test_wrong_orders_are_refused_before_torch_is_loaded(run, exported, tmp_path, monkeypatch):
    code = (
        "import sys\nfrom trainer import cli\ntry:\n    cli.app(sys.argv[1:])\nexcept"
        " SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )

    def refused(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", code, "export", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "2 False\n"
        return done.stderr

    assert refused(run, "--format", "tflite") == "--format is 'tflite'; known: onnx, openvino.\n"
    (tmp_path / "mine.txt").touch()
    assert (
        refused(run, "--output", tmp_path)
        == f"{tmp_path}: holds files that are not an export. Give another --output.\n"
    )
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError,
        match=(
            r"^equipoise export --format onnx needs packages that are not installed: onnx,"
            r" onnxruntime, onnxscript\. Run: pip install 'equipoise\[onnx\]'$"
        ),
    ):
        model_export.export(str(run))
    with pytest.raises(MissingPackageError, match=r"model.onnx needs .* installed: onnxruntime\."):
        Classifier.load(exported[0])


def test_ensembles_and_exports_are_no_models_to_export(run, exported, tmp_path):
    with pytest.raises(
        ExportError, match=r"is a model for ONNX Runtime already\. Give the run or the model folder"
    ):
        model_export.export(str(exported[0]))
    for member in ("member-1", "member-2"):
        shutil.copytree(run / "model", tmp_path / member / "model")
    (tmp_path / "config.yaml").touch()
    (tmp_path / "metrics.json").write_text(
        json.dumps({"ensemble": {"size": 2, "combine": "mean"}}), encoding="utf-8"
    )
    with pytest.raises(
        ExportError,
        match=r"holds an ensemble of 2 models\. Export its members one by one: .*member-1 and so",
    ):
        model_export.export(str(tmp_path))
    with pytest.raises(RunError, match="holds files that are not an export"):
        model_export.export(str(run), output=run / "model")


def test_an_older_export_is_replaced_and_a_broken_graph_is_told(exported, quantised, tmp_path):
    shutil.copytree(exported[0], tmp_path / "old")
    with export_folder.aside(tmp_path / "old") as work:
        (work / "new").mkdir()
        (work / "new/export.json").write_text("{}", encoding="utf-8")
        export_folder.publish(work / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "export.json"]
    shutil.copytree(exported[0], tmp_path / "cut")
    (tmp_path / "cut/model.onnx").write_bytes(b"\x08\x0a" + bytes(100))
    with pytest.raises(
        ExportError, match=r"cut/model\.onnx: cannot be loaded: .+ Export it again\."
    ):
        Classifier.load(tmp_path / "cut")
    with pytest.raises(ExportError, match=r"the graph cannot be quantised: .+ Leave out --int8\."):
        eight_bits.quantise_onnx(tmp_path / "cut/model.onnx", tmp_path / "cut", [], [])
