"""Commands load no library before they need it; no timings here, see scripts/bench/startup.py."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from trainer import load_config
from trainer.errors import TrainerError
from trainer.runs import training_run

pytestmark = pytest.mark.slow

LOADED = (
    "\nimport sys\n"
    "print('loaded:', *sorted({name.partition('.')[0] for name, module in"
    " list(sys.modules.items()) if module}))"
)
RUN = "from trainer.cli import app\napp(sys.argv[1:], standalone_mode=False)"
TO_FIRST_STEP = """
import gc, os
from trainer.runs import training_run
prepare = training_run.prepare
def stop(*_):
    print("collects:", gc.isenabled(), gc.get_freeze_count() > 100_000)
    exec(LOADED)
    sys.stdout.flush()
    os._exit(0)
def prepare_then_stop(*arguments):
    from transformers.trainer_callback import CallbackHandler
    CallbackHandler.on_step_begin = stop
    return prepare(*arguments)
training_run.prepare = prepare_then_stop
"""


def python(code, *arguments):
    """Output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(output):
    return set(output.split("loaded: ")[1].split())


def test_check_loads_no_torch_and_nothing_that_needs_it(config_file):
    output = python(RUN + LOADED, "train", "--config", config_file(), "--check")
    assert "config, all 240 rows and model are in order." in output
    heavy = {
        "torch",
        "peft",
        "accelerate",
        "datasets",
        "sklearn",
        "scipy",
        "matplotlib",
        "evaluate",
        "openai",
    }
    assert loaded(output) & heavy == set()
    assert "transformers" in loaded(output)


def test_first_step_waits_for_no_pictures_and_no_garbage(config_file):
    output = python(
        f"LOADED = {LOADED!r}" + TO_FIRST_STEP + RUN, "train", "--config", config_file()
    )
    assert {"torch", "transformers"} <= loaded(output)
    assert loaded(output) & {"matplotlib", "openai", "imblearn", "cleanlab", "gguf"} == set()
    assert "collects: True True" in output, (
        "the garbage collector is on again, and passes over what libraries made"
    )


@pytest.fixture
def faulty(config_file, tmp_path, tiny_model):
    """{fault: config file}, each with one fault that only transformers knows."""
    models = {}
    for name, config in {
        "vision": {"model_type": "vit"},
        "unknown": {"model_type": "no_such_type"},
        "no_words": None,
    }.items():
        models[name] = tmp_path / name
        shutil.copytree(tiny_model, models[name])
        if config is None:
            for file in models[name].glob("*token*"):
                file.unlink()
        else:
            (models[name] / "config.json").write_text(json.dumps(config), encoding="utf-8")
    cut = tmp_path / "cut"
    shutil.copytree(tiny_model, cut)
    (cut / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes()[:1000])
    faults = {
        f"model {name}": {"model": {"name": str(path)}}
        for name, path in {**models, "cut": cut}.items()
    }
    faults |= {
        "too long": {"model": {"max_length": 10_000}},
        "strategies": {"training": {"eval_strategy": "no", "load_best_model_at_end": True}},
        "precision": {"training": {"bf16": True, "fp16": True}},
        "warm-up": {"training": {"warmup_steps": -1.0}},
        "prefetch": {"training": {"dataloader_prefetch_factor": 2}},
        "generator": {"augment": {"generator": "local", "model": str(tiny_model)}},
    }
    return {fault: config_file(f"{fault}.yaml", **sections) for fault, sections in faults.items()}


def test_check_without_torch_finds_what_it_finds_with_torch(faulty):
    def told(path):
        with pytest.raises(TrainerError) as error:
            training_run.check(load_config(path))
        return str(error.value)

    code = """
import json
from trainer import load_config
from trainer.cli.checking import leave_out_torch
from trainer.errors import TrainerError
from trainer.runs import training_run
leave_out_torch()
told = {}
for fault, path in json.loads(sys.argv[1]).items():
    try:
        training_run.check(load_config(path))
    except TrainerError as error:
        told[fault] = str(error)
assert "torch" not in {name for name, module in sys.modules.items() if module}
print(json.dumps(told))
"""
    without_torch = json.loads(python(code, json.dumps(faulty)))
    assert without_torch == {fault: told(path) for fault, path in faulty.items()}


def test_check_leaves_torch_to_sharded_training(config_file, run_cli):
    done = run_cli("train", "--config", config_file(training={"fsdp": "full_shard"}), "--check")
    assert (done.returncode, done.stdout.strip().endswith("are in order.")) == (0, True), (
        done.stderr
    )


def test_check_leaves_torch_to_a_models_own_code(config_file, tmp_path, tiny_model, run_cli):
    folder = tmp_path / "own_code"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForSequenceClassification": "modeling_own.OwnModel",
    }
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "own", "auto_map": own}), encoding="utf-8"
    )
    code = (
        "import torch\nfrom transformers import BertConfig\n\n\nclass OwnConfig(BertConfig):\n"
        "    smallest = torch.finfo(torch.float32).min\n"
    )
    (folder / "configuration_own.py").write_text(code, encoding="utf-8")
    done = run_cli(
        "train",
        "--config",
        config_file(model={"name": str(folder), "trust_remote_code": True}),
        "--check",
        HF_MODULES_CACHE=str(tmp_path / "modules"),
    )
    assert (done.returncode, done.stdout.strip().endswith("are in order.")) == (0, True), (
        done.stderr
    )
    assert os.path.isdir(tmp_path / "modules")
