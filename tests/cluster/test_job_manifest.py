"""The Kubernetes manifest against Kubernetes' own schema, and against what the program does."""

import os
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

from trainer import load_config

MANIFEST = ROOT / "scripts/cluster/job.yaml"


@pytest.fixture
def manifest():
    """{kind: document}."""
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))}


def _validate(path):
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_manifest_is_valid():
    done = _validate(MANIFEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == 2


@pytest.mark.parametrize("key", ["podFailurePolicy", "backoffLimit", "claimName", "terminationGracePeriodSeconds", "mountPath"])
def test_misspelt_key_is_found(key, tmp_path):
    (tmp_path / "job.yaml").write_text(MANIFEST.read_text(encoding="utf-8").replace(f"{key}:", f"{key}s:"), encoding="utf-8")
    done = _validate(tmp_path / "job.yaml")
    assert done.returncode == 1
    assert "did not validate" in done.stdout + done.stderr
    assert key in (done.stdout + done.stderr).partition("did not validate")[2]


def test_wrong_type_is_found(manifest):
    manifest["Job"]["spec"]["backoffLimit"] = "four"
    with pytest.raises(kubernetes_validate.ValidationError, match="'four' is not of type 'integer'"):
        kubernetes_validate.validate(manifest["Job"], kubernetes_validate.latest_version(), strict=True)


def test_pods_that_saved_or_were_evicted_start_again_and_bad_configs_do_not(manifest):
    rules = manifest["Job"]["spec"]["podFailurePolicy"]["rules"]
    container = manifest["Job"]["spec"]["template"]["spec"]["containers"][0]["name"]
    told = {"containerName": container, "operator": "In"}
    assert rules == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Ignore", "onExitCodes": {**told, "values": [os.EX_TEMPFAIL]}},
        {"action": "FailJob", "onExitCodes": {**told, "values": [2]}},
    ]


def test_command_is_one_of_ours_and_writes_to_the_volume(manifest):
    pod = manifest["Job"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert (ROOT / container["command"][1]).is_file()
    options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    overrides = [value for option, value in zip(container["args"][::2], container["args"][1::2], strict=True) if option == "--set"]
    assert options.keys() == {"--config", "--set"}
    config = load_config(str(ROOT / options["--config"]), overrides)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    home = next(variable["value"] for variable in container["env"] if variable["name"] == "HF_HOME")
    assert config.run.output_dir.startswith(mounts["volume"] + "/")
    assert home.startswith(mounts["volume"] + "/")
    claim = next(volume for volume in pod["volumes"] if volume["name"] == "volume")["persistentVolumeClaim"]["claimName"]
    assert claim == manifest["PersistentVolumeClaim"]["metadata"]["name"]
