"""Pickled weights are refused, or converted by another process that loads only tensors."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from hub_server import HubServer
from model_folders import pickled, random_model
from safetensors.torch import load_file
from transformers import AutoTokenizer, T5Config

from trainer import Classifier, load_config
from trainer.config.sections.model import ModelSection
from trainer.errors import ModelError
from trainer.files.cache import cache_dir, entries
from trainer.runs.training_run import check
from trainer.training.models.converted_weights import write_safetensors
from trainer.training.models.model import load_encoder, load_pretrained_config

pytestmark = pytest.mark.slow


def encoder_of(folder, **options):
    section = ModelSection(name=str(folder), **options)
    return load_encoder(section, load_pretrained_config(section))


def assert_equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def state_of(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


def sharded(model, folder):
    """A copy of a model whose pickled weights lie in two files."""
    pickled(model, folder)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    files = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    places = {name: files[number % 2] for number, name in enumerate(tensors)}
    for file in files:
        torch.save(
            {name: tensor for name, tensor in tensors.items() if places[name] == file},
            folder / file,
        )
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize("make", [pickled, sharded])
def test_converted_weights_are_the_same_made_once_and_the_folder_is_not_changed(
    make, tiny_model, config_file, tmp_path, capsys, monkeypatch
):
    folder = make(tiny_model, tmp_path / "old")
    before = state_of(folder)
    check(load_config(config_file(model={"name": str(folder), "convert_weights": True})))
    told = capsys.readouterr().out.strip()
    assert told.startswith(
        f"model.convert_weights: the pickled weights of '{folder}' are read from a copy "
        f"in safetensors, {cache_dir()}/weights-"
    )
    copy = cache_dir() / told.rpartition("/")[2]
    assert not copy.exists()  # a check writes nothing
    assert_equal(encoder_of(folder, convert_weights=True), encoder_of(tiny_model))
    assert state_of(folder) == before
    assert {"config.json", "tokenizer.json", "about.txt"} <= {path.name for path in copy.iterdir()}
    assert not [path for path in copy.iterdir() if path.suffix == ".bin"]
    entry = next(entry for entry in entries(cache_dir()) if entry.name == copy.name)
    assert (entry.kind, entry.made_from, entry.state) == (
        "weights",
        f"{folder}, pickled weights as safetensors",
        "whole",
    )
    monkeypatch.setattr("subprocess.run", None)  # another conversion would fail
    assert_equal(encoder_of(folder, convert_weights=True), encoder_of(tiny_model))


def test_weights_that_share_memory_are_converted(tmp_path):
    config = T5Config(vocab_size=50, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    model = random_model(config, tmp_path / "t5")
    folder = tmp_path / "old"
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(
        tensors
        | {
            "encoder.embed_tokens.weight": tensors["shared.weight"],
            "decoder.embed_tokens.weight": tensors["shared.weight"],
        },
        folder / "pytorch_model.bin",
    )
    write_safetensors(folder, folder)
    assert_equal(encoder_of(folder), encoder_of(model))


def test_code_in_a_pickle_is_never_run(tiny_model, tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    folder = pickled(tiny_model, tmp_path / "old")
    words = r"pytorch_model.bin holds more than tensors, which could run code, or is damaged"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"b": Evil()}))
    with pytest.raises(ValueError, match=words):
        write_safetensors(folder, tmp_path)
    torch.save({"a": torch.zeros(2), "b": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=words):
        encoder_of(folder, convert_weights=True)
    assert not (tmp_path / "ran").exists()
    assert not [entry for entry in entries(cache_dir()) if entry.state == "unfinished"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "pytorch_model.bin is damaged or holds no weights of torch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pytorch_model.bin is a Git LFS pointer"),
    ],
    ids=["empty", "pointer"],
)
def test_damaged_pickles_are_found_by_the_check(content, words, tiny_model, config_file, tmp_path):
    folder = pickled(tiny_model, tmp_path / "old")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        check(load_config(config_file(model={"name": str(folder), "convert_weights": True})))


def test_a_lost_shard_is_found_by_the_check(tiny_model, config_file, tmp_path):
    folder = sharded(tiny_model, tmp_path / "old")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"its weights lack pytorch_model-00002-of-00002\.bin"):
        check(load_config(config_file(model={"name": str(folder), "convert_weights": True})))


def test_the_command_that_the_message_gives_converts(tiny_model, config_file, tmp_path, run_cli):
    folder, target = pickled(tiny_model, tmp_path / "old"), tmp_path / "new"
    with pytest.raises(
        ModelError,
        match=rf"Convert it once: equipoise convert {folder} Or set model.convert_weights: true\.",
    ):
        check(load_config(config_file(model={"name": str(folder)})))
    done = run_cli("convert", folder, "--output", target)
    assert (done.returncode, done.stdout) == (
        0,
        f"Converted: {target}. Give this folder as model.name.\n",
    ), done.stderr
    assert_equal(encoder_of(target), encoder_of(tiny_model))
    assert (
        AutoTokenizer.from_pretrained(target)("a text")["input_ids"]
        == AutoTokenizer.from_pretrained(tiny_model)("a text")["input_ids"]
    )
    again = run_cli("convert", folder, "--output", target)
    assert (again.returncode, again.stderr) == (
        2,
        f"--output: {target} exists. Give another folder, or remove it.\n",
    )
    nothing = run_cli("convert", target, "--output", tmp_path / "newer")
    assert (
        nothing.returncode,
        "There is nothing to convert." in nothing.stderr,
        (tmp_path / "newer").exists(),
    ) == (2, True, False)


def test_predicting_gives_the_same_command(tiny_model, tmp_path):
    folder = pickled(tiny_model, tmp_path / "old")
    with pytest.raises(
        ModelError,
        match=rf"has only pickled weights .*Convert it once: equipoise convert {folder}$",
    ):
        Classifier.load(folder)


LOAD = """
import sys
from trainer.config.sections.model import ModelSection
from trainer.training.models.converted_weights import write_safetensors
from trainer.training.models.model import load_encoder, load_pretrained_config
section = ModelSection(name="user/old", convert_weights=True)
load_encoder(section, load_pretrained_config(section)).save_pretrained(sys.argv[1])
"""


def test_a_hub_model_is_converted_in_the_cache(tiny_model, config_file, tmp_path, run_cli):
    folder = pickled(tiny_model, tmp_path / "old")
    with HubServer({}) as hub:
        hub.add("model", "user/old", {path.name: path.read_bytes() for path in folder.iterdir()})
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
        }
        command = [sys.executable, "-c", LOAD, str(tmp_path / "loaded")]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert_equal(encoder_of(tmp_path / "loaded"), encoder_of(tiny_model))
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    refused = run_cli(
        "train", "--config", config_file(model={"name": "user/old"}), "--check", **offline
    )
    assert (
        "Convert it once: equipoise convert user/old Or set model.convert_weights: true."
        in refused.stderr
    )
    again = run_cli(
        "train",
        "--config",
        config_file(model={"name": "user/old", "convert_weights": True}),
        "--check",
        **offline,
    )
    assert (again.returncode, "are read from a copy in safetensors" in again.stdout) == (0, True), (
        again.stderr
    )
