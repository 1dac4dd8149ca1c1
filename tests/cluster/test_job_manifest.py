"""The Kubernetes manifest against Kubernetes' own schema, and against what the program does."""

import os
import subprocess
import sys

import kubernetes_validate
import pytest
import wheel
import yaml
from conftest import ROOT

from trainer import load_config

MANIFEST = ROOT / "scripts/cluster/job.yaml"


@pytest.fixture
def manifest():
    """{kind: document}."""
    return {
        document["kind"]: document
        for document in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    }


def _validate(path):
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_manifest_is_valid():
    done = _validate(MANIFEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == 3


@pytest.mark.parametrize(
    "key",
    ["podFailurePolicy", "backoffLimit", "claimName", "terminationGracePeriodSeconds", "mountPath"],
)
def test_misspelt_key_is_found(key, tmp_path):
    (tmp_path / "job.yaml").write_text(
        MANIFEST.read_text(encoding="utf-8").replace(f"{key}:", f"{key}s:"), encoding="utf-8"
    )
    done = _validate(tmp_path / "job.yaml")
    assert done.returncode == 1
    assert "did not validate" in done.stdout + done.stderr
    assert key in (done.stdout + done.stderr).partition("did not validate")[2]


def test_wrong_type_is_found(manifest):
    manifest["Job"]["spec"]["backoffLimit"] = "four"
    with pytest.raises(
        kubernetes_validate.ValidationError, match="'four' is not of type 'integer'"
    ):
        kubernetes_validate.validate(
            manifest["Job"], kubernetes_validate.latest_version(), strict=True
        )


def test_pods_that_saved_or_were_evicted_start_again_and_bad_configs_do_not(manifest):
    rules = manifest["Job"]["spec"]["podFailurePolicy"]["rules"]
    container = manifest["Job"]["spec"]["template"]["spec"]["containers"][0]["name"]
    told = {"containerName": container, "operator": "In"}
    assert rules == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Ignore", "onExitCodes": {**told, "values": [os.EX_TEMPFAIL]}},
        {"action": "FailJob", "onExitCodes": {**told, "values": [2]}},
    ]


def test_config_lies_in_the_manifest_and_all_is_written_to_the_volume(manifest, tmp_path):
    pod = manifest["Job"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    assert sources["config"]["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]
    claim = sources["volume"]["persistentVolumeClaim"]["claimName"]
    assert claim == manifest["PersistentVolumeClaim"]["metadata"]["name"]
    (name,) = manifest["ConfigMap"]["data"]
    assert container["args"] == ["--config", f"{mounts['config']}/{name}"]
    (tmp_path / name).write_text(manifest["ConfigMap"]["data"][name], encoding="utf-8")
    config = load_config(str(tmp_path / name))
    assert config.run.output_dir.startswith(mounts["volume"] + "/")
    home = next(variable["value"] for variable in container["env"] if variable["name"] == "HF_HOME")
    assert home.startswith(mounts["volume"] + "/")


@pytest.fixture
def image(tmp_path):
    """Folder of the programs of an environment with the locked packages and the wheel."""
    return wheel.install(tmp_path)


@pytest.mark.exhaustive
def test_command_trains_in_an_empty_folder_from_the_wheel(
    manifest, image, tiny_model, tweets, tmp_path
):
    """With another model and other rows: those of the manifest are on the Hub."""
    container = manifest["Job"]["spec"]["template"]["spec"]["containers"][0]
    (content,) = manifest["ConfigMap"]["data"].values()
    values = yaml.safe_load(content)
    values["run"]["output_dir"] = str(tmp_path / "volume/runs")
    values["model"] = {"name": str(tiny_model), "max_length": 32}
    values["data"] = {"source": str(tweets), "text_column": "text", "label_column": "sentiment"}
    values["training"] |= {"num_train_epochs": 1, "max_steps": 2}
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert container["args"][0] == "--config"
    command = [
        image / container["command"][0],
        *container["command"][1:],
        "--config",
        tmp_path / "config.yaml",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PATH": f"{image}:/usr/bin:/bin",
        "HF_HOME": str(tmp_path / "volume/huggingface"),
    }
    folder = tmp_path / "empty"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "volume/runs/sentiment/metrics.json").is_file()
    assert not list(folder.iterdir())
