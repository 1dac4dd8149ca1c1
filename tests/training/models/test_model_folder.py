"""What is given as a model and is none: `--check` says what it is and what to give instead."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hub_server import HubServer

from trainer import Classifier, load_config
from trainer.errors import ModelError
from trainer.runs.training_run import check


def write(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def copy(model, folder, *, without=(), **config):
    """A copy of a model folder without some files; None takes a key out of its config."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(*without))
    if config:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8")) | config
        write(
            folder / "config.json",
            json.dumps({key: value for key, value in values.items() if value is not None}),
        )
    return folder


def adapter(model, folder):
    write(
        folder / "adapter_config.json",
        '{"base_model_name_or_path": "org/base", "peft_type": "LORA"}',
    )
    return folder


def whole_model_with_adapter(model, folder):
    return adapter(model, copy(model, folder))


def merged_adapter(model, folder):
    copy(model, folder / "model")
    return adapter(model, folder / "adapter")


def checkpoints(model, folder):
    for number in (500, 1000):
        copy(model, folder / f"checkpoint-{number}")
    write(folder / "runs/events")
    return folder


def adapter_checkpoints(model, folder):
    adapter(model, folder / "checkpoint-500")
    return folder


def run(model, folder):
    copy(model, folder / "model")
    write(folder / "config.yaml")
    return folder


def unfinished_run(model, folder):
    write(folder / "config.yaml")
    return folder


def gguf_file(model, folder):
    write(folder / "model.Q4.gguf", "GGUF")
    return folder / "model.Q4.gguf"


def gguf_folder(model, folder):
    return gguf_file(model, folder).parent


def tokenizer_alone(model, folder):
    return copy(model, folder, without=["config.json", "*.safetensors"])


def sentence_transformers(model, folder):
    copy(model, folder / "0_Transformer")
    write(folder / "modules.json", "[]")
    return folder


def static_embeddings(model, folder):
    write(folder / "modules.json", "[]")
    write(folder / "0_StaticEmbedding/model.safetensors")
    return folder


def hub_cache(model, folder):
    cached = folder / "models--org--base"
    copy(model, cached / "snapshots/0123")
    (cached / "refs").mkdir()
    return cached


def weights_file(model, folder):
    return copy(model, folder) / "model.safetensors"


def one_below(model, folder):
    return copy(model, folder / "bert").parent


def vision_encoder(model, folder):
    from transformers import ViTConfig

    ViTConfig().save_pretrained(folder)
    return folder


def audio_encoder(model, folder):
    from transformers import Wav2Vec2Config

    Wav2Vec2Config().save_pretrained(folder)
    return folder


def damaged_config(model, folder):
    write(copy(model, folder) / "config.json", '{"model_type": "bert", ')
    return folder


BASE = "Give its base model, org/base, or merge the adapter into its model first"
CASES = {
    "adapter": (
        adapter,
        (
            f"'FOLDER' holds an adapter (LoRA or the like, adapter_config.json), not a whole "
            f"model. {BASE}"
        ),
    ),
    "adapter in a model folder": (
        whole_model_with_adapter,
        "If the weights beside it are those of a whole model, remove adapter_config.json.",
    ),
    "adapter of a run": (merged_adapter, "Give FOLDER/model, into which it is merged."),
    "checkpoints": (
        checkpoints,
        (
            "holds checkpoints of a training (checkpoint-1000, checkpoint-500) and no "
            "config.json of its own. Give one of them, such as FOLDER/checkpoint-1000"
        ),
    ),
    "checkpoints of an adapter": (
        adapter_checkpoints,
        "(checkpoint-500) and no config.json of its own. None of them holds a config.json",
    ),
    "run": (run, "'FOLDER' is the folder of a run. Give the model in it: FOLDER/model"),
    "unfinished run": (
        unfinished_run,
        "is the folder of a run that has no model. Start its training again",
    ),
    "GGUF file": (
        gguf_file,
        "'FOLDER/model.Q4.gguf' is a GGUF file, whose weights are quantised for generating text.",
    ),
    "GGUF folder": (gguf_folder, "'FOLDER' holds GGUF, whose weights are quantised"),
    "tokenizer": (tokenizer_alone, "holds only a tokenizer: no config.json, no weights."),
    "weights without config": (
        lambda m, f: copy(m, f, without=["config.json"]),
        "holds weights (model.safetensors) and no config.json.",
    ),
    "sentence-transformers": (
        sentence_transformers,
        "whose encoder lies in a folder of its own. Give FOLDER/0_Transformer",
    ),
    "static embeddings": (
        static_embeddings,
        "holds a sentence-transformers model without a Transformers encoder",
    ),
    "cache of the Hub": (
        hub_cache,
        (
            "is a folder of the Hub's cache. Give the id, org/base, or one of the folders in "
            "snapshots/."
        ),
    ),
    "file of weights": (
        weights_file,
        "'FOLDER/model.safetensors' is a file. Give its folder: FOLDER",
    ),
    "model one folder below": (one_below, "holds no config.json itself. Give FOLDER/bert"),
    "damaged config": (
        damaged_config,
        "cannot be loaded: its config.json is damaged: Expecting property name",
    ),
    "list as config": (
        lambda m, f: write(copy(m, f) / "config.json", "[]") or f,
        "its config.json is no JSON object",
    ),
    "no model_type": (
        lambda m, f: copy(m, f, model_type=None),
        (
            "has a config.json without model_type, of architecture BertModel, so its kind is "
            "not known."
        ),
    ),
    "image encoder": (
        vision_encoder,
        (
            "is of type vit, which Transformers cannot use for text classification: it reads "
            "images. Give an encoder"
        ),
    ),
    "audio encoder": (
        audio_encoder,
        (
            "is of type wav2vec2, which Transformers cannot use for text classification: it "
            "reads audio."
        ),
    ),
    "no weights": (
        lambda m, f: copy(m, f, without=["*.safetensors"]),
        "holds no weights. Copy model.safetensors beside its config.json, or choose another model.",
    ),
    "weights of TensorFlow": (
        lambda m, f: write(copy(m, f, without=["*.safetensors"]) / "tf_model.h5") or f,
        "(tf_model.h5), which Transformers no longer reads.",
    ),
    "GGUF with config": (
        lambda m, f: write(copy(m, f, without=["*.safetensors"]) / "model.gguf") or f,
        "holds GGUF, whose weights are quantised",
    ),
    "ONNX": (
        lambda m, f: write(copy(m, f, without=["*.safetensors"]) / "model.onnx") or f,
        "holds an exported graph and no weights that can be trained.",
    ),
    "lost shard": (
        lambda m, f: (
            write(
                copy(m, f, without=["*.safetensors"]) / "model.safetensors.index.json",
                '{"weight_map": {"a": "model-1.safetensors"}}',
            )
            or f
        ),
        "its weights lack model-1.safetensors. Copy the missing file",
    ),
    "Git LFS pointer": (
        lambda m, f: (
            write(
                copy(m, f) / "model.safetensors",
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            )
            or f
        ),
        "its model.safetensors is a Git LFS pointer, not the file. Run git lfs pull",
    ),
}


@pytest.mark.parametrize(("make", "words"), CASES.values(), ids=CASES)
def test_what_is_no_pretrained_text_model_is_told_what_it_is_and_what_to_give(
    make, words, tiny_model, config_file, tmp_path
):
    folder = tmp_path / "given"
    path = make(tiny_model, folder)
    with pytest.raises(ModelError) as raised:
        check(load_config(config_file(model={"name": str(path)})))
    assert words.replace("FOLDER", str(folder)) in str(raised.value)
    assert str(raised.value).startswith("model.name: ")


@pytest.mark.parametrize(
    "name",
    [
        "adapter",
        "checkpoints",
        "GGUF file",
        "tokenizer",
        "sentence-transformers",
        "image encoder",
        "no model_type",
    ],
)
def test_predicting_tells_the_same(name, tiny_model, tmp_path):
    make, words = CASES[name]
    path = make(tiny_model, tmp_path / "given")
    with pytest.raises(ModelError) as raised:
        Classifier.load(path)
    assert words.replace("FOLDER", str(tmp_path / "given")).removeprefix(f"'{path}' ") in str(
        raised.value
    )


def test_a_checkpoint_and_a_sentence_transformers_folder_with_config_are_models(
    tiny_model, config_file, tmp_path
):
    folder = checkpoints(tiny_model, tmp_path / "given")
    write(folder / "checkpoint-500/trainer_state.json")
    write(folder / "checkpoint-1000/modules.json", "[]")
    for number in (500, 1000):
        check(load_config(config_file(model={"name": str(Path(folder, f"checkpoint-{number}"))})))


TOLD = """
import json, sys
from trainer import load_config
from trainer.cli.checking import leave_out_torch
from trainer.errors import ModelError
from trainer.runs import training_run
leave_out_torch()
for path in sys.argv[1:]:
    try:
        training_run.check(load_config(path))
    except ModelError as error:
        print(json.dumps(str(error)))
"""


def test_repositories_of_the_hub_without_a_model_are_told_what_they_hold(
    tiny_model, config_file, tmp_path
):
    whole = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    repositories = {
        "user/lora": (
            {"adapter_config.json": b"{}", "adapter_model.safetensors": b""},
            "holds an adapter (LoRA or the like, adapter_config.json)",
        ),
        "user/gguf": ({"model-Q4.gguf": b""}, "holds GGUF, whose weights are quantised"),
        "user/both": (
            whole | {"adapter_config.json": b"{}"},
            "holds an adapter (LoRA or the like, adapter_config.json)",
        ),
    }
    with HubServer({}) as hub:
        for name, (files, _) in repositories.items():
            hub.add("model", name, files)
        paths = [
            config_file(f"{number}.yaml", model={"name": name})
            for number, name in enumerate(repositories)
        ]
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", TOLD, *paths],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            check=False,
        )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(repositories), done.stderr
    for message, (name, (_, words)) in zip(told, repositories.items(), strict=True):
        assert message.startswith(f"model.name: '{name}' {words}")
