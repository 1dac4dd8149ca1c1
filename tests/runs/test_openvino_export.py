"""OpenVINO models answer as their originals; what 8 bits lose is counted, and bounded."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ROOT

from trainer import Classifier, load_config
from trainer.delivery.export import eight_bits, export_check, onnx_writer
from trainer.errors import ExportError, ModelError
from trainer.extras import EXTRAS, is_installed
from trainer.runs import model_export, training_run

needs_openvino = pytest.mark.skipif(
    not all(map(is_installed, EXTRAS["openvino"])), reason="the extra openvino is not installed"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, tweets):
    """Run folder of a head that was fitted on a frozen encoder, with thresholds."""
    folder = tmp_path_factory.mktemp("openvino")
    shutil.copy(tweets, folder / "tweets.csv")
    values = {
        "run": {"name": "run", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 48, "mode": "head"},
        "data": {"source": str(folder / "tweets.csv"), "label_column": "sentiment"},
        "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
        "decision": {"thresholds": "f1"},
        "training": {"bf16": False},
    }
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    return training_run.train(load_config(str(folder / "config.yaml")))


@pytest.fixture(scope="module")
def graph(run, tmp_path_factory):
    """ONNX graph of the run; writing it takes most of the time of an export."""
    folder = tmp_path_factory.mktemp("graph")
    model = Classifier.load(run, device="cpu").models[0]
    plain = onnx_writer.plain_copy(model.model)
    onnx_writer.write_graph(plain, model.tokenizer, folder / "model.onnx", max_length=48)
    return folder / "model.onnx"


@pytest.fixture(autouse=True, scope="module")
def _known_graph(graph):
    """Exports take that graph, and measure few times, which are not to be relied on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnx_writer,
            "write_graph",
            lambda model, tokenizer, path, **_: shutil.copy(graph, path),
        )
        patch.setattr(export_check, "ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def exported(run):
    return model_export.export(str(run), file_format="openvino")


@pytest.fixture(scope="module")
def quantised(run):
    return model_export.export(str(run), file_format="openvino", int8=True, max_loss=1)


def findings(folder):
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def validation_texts(run):
    classifier = Classifier.load(run, device="cpu")
    return model_export._validation_rows(run, classifier).texts, classifier


@needs_openvino
def test_the_folder_agrees_with_the_original_on_all_validation_rows(run, exported):
    texts, original = validation_texts(run)
    check = findings(exported)["check"]
    assert (exported.name, check["rows"]) == ("run-openvino", len(texts))
    assert check["float32"]["labels_differ"] == 0
    ours, theirs = original.classify(texts), Classifier.load(exported).classify(texts)
    np.testing.assert_allclose(theirs.probabilities_NC, ours.probabilities_NC, atol=1e-3)
    assert (theirs.decided == ours.decided).all()
    assert (ours.decided != ours.probabilities_NC.argmax(axis=1)).any()  # thresholds speak
    assert {path.name for path in exported.iterdir()} == {
        "openvino_model.xml",
        "openvino_model.bin",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "export.json",
        "README.md",
    }


@pytest.mark.exhaustive
@needs_openvino
def test_the_lines_of_its_readme_give_the_decided_labels_without_torch(run, exported):
    texts, original = validation_texts(run)
    readme = (exported / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    code = code.replace('["a text", "and another"]', "texts")
    script = f"import sys\nsys.modules['torch'] = None\ntexts = {list(texts[:20])!r}\n{code}"
    script += "\nprint(json.dumps(labels))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [prediction.label for prediction in original.predict(texts[:20])]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@needs_openvino
def test_static_8_bits_are_smaller_and_do_not_depend_on_the_other_texts(run, exported, quantised):
    texts, original = validation_texts(run)
    model, found = Classifier.load(quantised), findings(quantised)
    theirs = model.classify(texts)
    differ = (original.classify(texts).decided != theirs.decided).sum()
    assert found["check"]["int8"]["labels_differ"] == differ
    assert found["bytes"]["int8"] < 0.4 * found["bytes"]["float32"]
    assert len(found["layers_in_float32"]) == 1
    alone = np.concatenate([model.probabilities([text]) for text in texts[:8]])
    np.testing.assert_allclose(alone, theirs.probabilities_NC[:8], atol=1e-5)
    assert "nncf" in (quantised / "README.md").read_text(encoding="utf-8")


@needs_openvino
def test_a_loaded_model_sends_no_usage_statistics(exported, tmp_path):
    code = (
        "import sys\nfrom trainer import Classifier\n"
        f"print(Classifier.load({str(exported)!r}).predict('a text').label)\n"
        "assert sys.modules['openvino_telemetry'] is None\nassert 'openvino' in sys.modules"
    )
    home = os.environ | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=home)
    assert not (tmp_path / "intel").exists(), "where openvino keeps its id of a user"


@needs_openvino
def test_a_signal_is_handled_after_models_were_freed(quantised):
    code = (
        "import gc, signal\nfrom trainer import Classifier\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        f"models = [Classifier.load({str(quantised)!r}) for _ in range(2)]\n"
        "while models:\n    del models[0]\n    gc.collect()\n"
        "signal.raise_signal(signal.SIGUSR1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@needs_openvino
def test_a_broken_graph_and_a_training_from_the_folder_are_told(exported, tmp_path, run):
    shutil.copytree(exported, tmp_path / "cut")
    (tmp_path / "cut/openvino_model.xml").write_text("<net", encoding="utf-8")
    with pytest.raises(ExportError, match=r"openvino_model\.xml: cannot be loaded: .+ Export it"):
        Classifier.load(tmp_path / "cut")
    with pytest.raises(ExportError, match="is a model for OpenVINO already"):
        model_export.export(str(exported))
    values = {"model": {"name": str(exported)}, "data": {"source": str(run.parent / "tweets.csv")}}
    values |= {"run": {"name": "again", "output_dir": str(tmp_path)}}
    values["data"]["label_column"] = "sentiment"
    with pytest.raises(ModelError, match="holds an exported graph and no weights"):
        training_run.train(load_config(values))


def test_8_bits_beyond_the_allowed_loss_are_refused_and_nothing_is_left(run, monkeypatch):
    """The layers are made so coarse that no layer in 8 bits keeps the answers."""
    quantise = eight_bits.quantise_onnx

    def coarse(source, folder, kept, feeds):
        quantise(source, folder, kept, feeds)
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(folder / "model.onnx")
        for each in graph.graph.initializer:
            if each.name.endswith("_quantized"):
                values = numpy_helper.to_array(each)
                each.CopyFrom(numpy_helper.from_array(np.zeros_like(values), each.name))
        onnx.save(graph, folder / "model.onnx")

    monkeypatch.setitem(eight_bits.QUANTISERS, "onnx", coarse)
    before = {path.name for path in run.parent.iterdir()}
    words = (
        r"--int8 loses more than --max-loss 0\.01, also with \d+ layers in float32: \d+ of \d+"
        r" labels differ .+ macro F1 0\.\d+, original 0\.\d+\. Nothing was written\."
    )
    with pytest.raises(ExportError, match=words):
        model_export.export(str(run), int8=True, output=run.with_name("refused"))
    assert {path.name for path in run.parent.iterdir()} == before


def test_options_that_do_not_fit_are_refused(run, tmp_path):
    with pytest.raises(ExportError, match="--max-loss is the loss of --int8"):
        model_export.export(str(run), max_loss=0.1)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ExportError, match=r"--max-loss is .+; needed: macro F1 from 0 to 1"):
            model_export.export(str(run), int8=True, max_loss=wrong)
    shutil.copytree(run / "model", tmp_path / "alone")
    with pytest.raises(ExportError, match=r"--int8 needs labelled rows, .+ Give --data\."):
        model_export.export(str(tmp_path / "alone"), int8=True)


@pytest.mark.exhaustive
def test_the_head_stays_in_float32_and_then_the_layers_that_lose_most(run, graph, tmp_path):
    texts, original = validation_texts(run)
    feeds = eight_bits.calibration_feeds(original.models[0], texts, graph)
    layers = eight_bits._weights(graph)
    choices = list(eight_bits.kept_layers(graph, feeds))
    assert choices[0] == [list(layers)[-1]]
    assert all(set(fewer) <= set(more) for fewer, more in pairwise(choices))
    assert len(choices[-1]) >= len(layers) // 2
    eight_bits.quantise_onnx(graph, tmp_path, choices[-1], feeds)
    import onnx

    nodes = {node.name: node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    for name in choices[-1]:
        assert nodes.get(name, nodes.get(f"{name}_MatMul")) in ("MatMul", "Gemm")
    assert sum(kind == "MatMulInteger" for kind in nodes.values()) == len(layers) - len(choices[-1])


def test_a_layer_with_outliers_is_ranked_first(tmp_path):
    """One input of the second layer is 1,000 times as large as the others, which 8 bits lose."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    with torch.no_grad():
        layers[0].weight[0] *= 1_000
        layers[1].weight[:, 0] = 0
    model = torch.nn.Sequential(torch.nn.Tanh(), *layers).eval()
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model, (torch.zeros(1, 8),), path, input_names=["x"], dynamo=True, verbose=False
    )
    feeds = [{"x": torch.randn(1, 8).numpy()} for _ in range(8)]
    names = list(eight_bits._weights(path))
    assert len(names) == 3
    assert eight_bits._ranked(path, feeds)[0] == names[1]
