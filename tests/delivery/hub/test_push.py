"""Uploads to a Hub on loopback with the unmodified client: files, refusals, retries, waits."""

import json
import os
import re
import sys
import threading
import time
from concurrent.futures import wait
from contextlib import suppress

import pytest
from hub_server import Fault, HubServer
from ranks import ranks

from trainer import Classifier, load_config
from trainer.config.sections.hub import HubSection
from trainer.delivery.hub import client, uploads
from trainer.delivery.hub.client import check_login
from trainer.delivery.hub.push import is_pushed, push, settings
from trainer.delivery.hub.repository_files import model_files
from trainer.errors import ConfigError, RunError
from trainer.launch import stopping
from trainer.run_folder.writer import STAGED, RunFolder, is_finished
from trainer.runs import run_result

pytestmark = pytest.mark.slow

TOKEN = "hf_OnlyForTheServerOfTheseTests"
TOKENS = {
    TOKEN: "user",
    "hf_reads": "reader",
    "hf_member": "member",
    "hf_fine": "fine",
    "hf_narrow": "narrow",
}
ORGS = {"member": {"team": "write", "audience": "read"}}
SCOPES = {
    "fine": [
        ("user", "fine", ["repo.content.read", "repo.write"]),
        ("org", "team", ["repo.content.read"]),
    ],
    "narrow": [("model", "user/open", ["repo.content.read", "repo.write"])],
}
MODEL_FILES = {"config.json", "tokenizer.json", "vocab.txt", "model.safetensors"}
CARD = """---
license: mit
---
classify = pipeline("text-classification", "model")
classifier = Classifier.load("model")
The labels are "model" and "rest".
"""


@pytest.fixture
def server(monkeypatch):
    """The Hub that this process and those it starts talk to, as user."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with HubServer(TOKENS, ORGS, SCOPES) as server:
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_DISABLE_XET")  # what a push sets by itself
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        monkeypatch.setattr(client, "WAITS_SECONDS", (0.01, 0.02))
        yield server
        close_session()


@pytest.fixture
def run(tmp_path):
    """A run folder with the files that a push reads; its weights are a real safetensors file."""
    return make_run(tmp_path / "run")


def make_run(folder):
    model = folder / "model"
    model.mkdir(parents=True)
    make_model(model, 0)
    for name in (
        "config.yaml",
        "metrics.json",
        "predictions.parquet",
        "synthetic.jsonl",
        "dropped.jsonl",
        "confusion_matrix.png",
    ):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def make_model(folder, value):
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    save_file({"weight": np.full((300, 300), value, np.float32)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def make_checkpoint(folder, step):
    folder.mkdir(parents=True)
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "progress.json",
        "whole.json",
        "training_args.bin",
    ):
        (folder / name).write_text("secret", encoding="utf-8")
    return make_model(folder, step)


def section(repo_id="user/name", **values):
    return HubSection(push=True, repo_id=repo_id, **values)


def test_push_holds_the_model_the_card_and_its_pictures_and_no_row(server, run):
    address = push(run, section())
    files = server.branch("user/name")
    assert set(files) - {".gitattributes"} == {
        "config.json",
        "tokenizer.json",
        "vocab.txt",
        "model.safetensors",
        "README.md",
        "metrics.json",
        "confusion_matrix.png",
    }
    assert files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert (
        address
        == f"{server.url}/user/name/commit/{server.repos['model', 'user/name'].branches['main']}"
    )
    assert server.repos["model", "user/name"].private


def test_rows_and_scripts_that_lie_in_a_model_folder_stay_here(server, tmp_path, capsys):
    folder = make_model(tmp_path / "model", 0)
    for name in ("train.json", "train.txt", "prepare.py"):
        (folder / name).write_text("a row", encoding="utf-8")
    push(folder, section())
    assert set(server.branch("user/name")) - {".gitattributes"} == {
        "config.json",
        "tokenizer.json",
        "vocab.txt",
        "model.safetensors",
    }
    assert (
        "Not pushed, as no part of a model: prepare.py, train.json, train.txt.\n"
        in capsys.readouterr().err
    )
    (folder / "config.json").write_text('{"auto_map": {}}', encoding="utf-8")
    assert "prepare.py" in {path.name for path in model_files(folder)}


@pytest.mark.parametrize("name", ["model/vocab.txt", "confusion_matrix.png", "README.md", "model"])
def test_a_link_out_of_the_folder_refuses_the_push_before_anything_is_sent(
    server, run, tmp_path, name
):
    outside = tmp_path / "private"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    target = outside / "config.json" if name == "model" else outside
    words = (
        f"{run / name}: is a link to {target}, outside {run}, so nothing is pushed. Remove"
        f" the link, or put a copy of the file there."
    )
    for call in (
        lambda: push(run, section()),
        lambda: settings(run, repo_id="user/name"),
    ):
        with pytest.raises(RunError, match=re.escape(words)):
            call()
    assert not server.repos


def test_a_link_to_nothing_refuses_the_push_in_place_of_a_model_with_a_part_missing(server, run):
    (run / "model/model-00002-of-00002.safetensors").symlink_to("../gone")
    with pytest.raises(
        RunError,
        match=(
            r"model-00002-of-00002\.safetensors: is a link to \.\./gone, which does not"
            r" exist\. Remove the link"
        ),
    ):
        push(run, section())
    assert not server.repos


def test_links_within_the_folder_and_of_a_snapshot_in_the_cache_of_the_hub_are_pushed(
    server, run, tmp_path
):
    (run / "vocab.txt").write_text("shared", encoding="utf-8")
    (run / "model/vocab.txt").unlink()
    (run / "model/vocab.txt").symlink_to("../vocab.txt")
    push(run, section())
    assert server.branch("user/name")["vocab.txt"] == b"shared"
    repository = tmp_path / "models--user--other"
    snapshot = repository / "snapshots/0123"
    snapshot.mkdir(parents=True)
    make_model(repository / "blobs", 1)
    for path in (repository / "blobs").iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    push(snapshot, section("user/other"))
    assert set(server.branch("user/other")) - {".gitattributes"} == MODEL_FILES
    (snapshot / "merges.txt").symlink_to(run / "vocab.txt")
    with pytest.raises(RunError, match=r"merges\.txt: is a link to"):
        push(snapshot, section("user/other"))


def test_card_on_the_hub_loads_from_its_repository_and_revision(server, run):
    push(run, section(revision="trial"))
    lines = server.branch("user/name", "trial")["README.md"].decode().splitlines()
    assert lines[3:] == [
        'classify = pipeline("text-classification", "user/name", revision="trial")',
        'classifier = Classifier.load("user/name", revision="trial")',
        'The labels are "model" and "rest".',
    ]
    assert (run / "README.md").read_text(encoding="utf-8") == CARD


def test_second_push_of_the_same_run_makes_no_commit(server, run):
    first = push(run, section())
    assert push(run, section()) == first
    assert len(server.repos["model", "user/name"].messages) == 1


def test_weights_that_a_new_model_lacks_are_removed_and_other_files_kept(server, run):
    server.add(
        "model",
        "user/name",
        {
            "model-00001-of-00002.safetensors": b"old",
            "model.safetensors.index.json": b"{}",
            "notes.md": b"kept",
        },
    )
    push(run, section(private=False))
    files = server.branch("user/name")
    assert "model.safetensors" in files
    assert {name for name in files if "index" in name or "00001" in name} == set()
    assert files["notes.md"] == b"kept"


@pytest.mark.parametrize("status", [409, 412, 429, 500, 503, 0])
def test_faults_that_pass_are_tried_again(status, server, run, capsys):
    server.faults = [
        Fault("POST /api/models/user/name/commit", status, headers={"Retry-After": "0"})
    ]
    push(run, section())
    assert len(server.repos["model", "user/name"].messages) == 1
    assert "The push failed: " in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403, 413])
def test_refusals_are_not_tried_again_and_tell_the_command(status, server, run):
    server.faults = [
        Fault(
            "POST /api/models/user/name/commit", status, times=9, reason="no room for {token} here"
        )
    ]
    with pytest.raises(RunError) as raised:
        push(run, section(revision="a", commit_message="It's new"))
    words = str(raised.value)
    assert words.startswith("The push to user/name failed: ")
    assert "no room for *** here" in words
    assert (
        f"All files are kept in {run}; repeat with:\nequipoise push {run} --repo-id"
        f" user/name --private --commit-message "
    ) in words
    assert server.faults[0].times == 8


def test_faults_that_stay_end_the_push_after_the_last_attempt(server, run):
    server.faults = [Fault("POST /api/models/user/name/commit", 500, times=9, reason="down")]
    with pytest.raises(RunError, match=r"500 .*down"):
        push(run, section())
    assert server.faults[0].times == 6


def test_server_that_asks_to_wait_for_long_is_not_waited_for(server, run):
    server.faults = [
        Fault("POST /api/models/user/name/commit", 429, headers={"Retry-After": "3600"})
    ]
    with pytest.raises(RunError, match="429 Too Many Requests"):
        push(run, section())


def test_upload_of_weights_is_repeated_after_a_broken_connection(server, run):
    server.faults = [Fault("PUT /lfs/", 0)]
    push(run, section())
    assert (
        server.branch("user/name")["model.safetensors"]
        == (run / "model" / "model.safetensors").read_bytes()
    )
    assert len([r for r in server.requests if r.startswith("PUT /lfs/")]) == 2


def test_commit_whose_answer_was_lost_is_not_made_twice(server, run):
    server.faults = [Fault("POST /api/models/user/name/commit", then_cut=True)]
    push(run, section())
    assert len(server.repos["model", "user/name"].messages) == 1


def test_repository_that_is_public_is_not_pushed_to_unless_asked(server, run):
    server.add("model", "user/open", {"notes.md": b""})
    with pytest.raises(
        RunError,
        match=(
            r"user/open is public on the Hub, and hub.private is true. Set hub.private:"
            r" false \(--public\), or another repo_id."
        ),
    ):
        push(run, section("user/open"))
    assert "model.safetensors" not in server.branch("user/open")
    push(run, section("user/open", private=False))
    assert "model.safetensors" in server.branch("user/open")


REFUSED = {
    "absent": (lambda p: p, "is not a folder. Give the folder of a finished run."),
    "unfinished": (
        lambda p: (make_run(p) / "metrics.json").unlink(),
        "holds a run that is not finished. Run its train command again",
    ),
    "ensemble": (
        lambda p: make_run(make_run(p) / "member-1"),
        "holds an ensemble, and a repository holds one model. Push a member, such as ",
    ),
    "no model": (
        lambda p: p.mkdir(),
        "holds no finished run and no model (config.json and safetensors weights).",
    ),
    "no name": (make_run, "its config names no hub.repo_id. Give --repo-id user/name."),
}


@pytest.mark.parametrize("what", REFUSED)
def test_folders_that_cannot_be_pushed_are_told(what, tmp_path):
    make, words = REFUSED[what]
    make(tmp_path / "run")
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'run'}: {words}")):
        settings(tmp_path / "run")


def test_push_takes_what_is_not_given_from_the_config_of_the_run(run):
    (run / "config.yaml").write_text(
        "hub: {repo_id: user/first, private: false, every: save, push: true, revision: trial}",
        encoding="utf-8",
    )
    found = settings(run, revision="main")
    assert (found.repo_id, found.private, found.revision, found.every) == (
        "user/first",
        False,
        "main",
        "end",
    )
    other = settings(run, repo_id="user/second")
    assert (other.repo_id, other.private, other.revision) == ("user/second", True, None)
    with pytest.raises(ConfigError, match=r"hub.repo_id: 'second' is not a repository name"):
        settings(run, repo_id="second")


LOGINS = {
    "own": ("hf_member", "member/new", None),
    "organization": ("hf_member", "team/new", None),
    "organization to read": (
        "hf_member",
        "audience/new",
        (
            "member may only read in the organization 'audience'. Set hub.repo_id to a"
            " repository of member"
        ),
    ),
    "stranger": (
        "hf_member",
        "user/new",
        "member belongs to no organization 'user' (but to: audience, team).",
    ),
    "stranger's repository": ("hf_member", "user/open", "the token may not write to user/open."),
    "reader": ("hf_reads", "reader/new", "the token of reader may only read."),
    "fine-grained": ("hf_fine", "fine/new", None),
    "fine-grained elsewhere": (
        "hf_fine",
        "fines/new",
        "fine belongs to no organization 'fines' (but to: none).",
    ),
    "fine-grained for one repository": ("hf_narrow", "user/open", None),
    "fine-grained for another repository": (
        "hf_narrow",
        "narrow/new",
        "the fine-grained token of narrow may not write repositories of 'narrow'.",
    ),
}


@pytest.mark.parametrize("who", LOGINS)
def test_token_must_be_allowed_to_write_to_this_very_place(who, server, monkeypatch):
    token, repo_id, words = LOGINS[who]
    server.add("model", "user/open", {})
    monkeypatch.setenv("HF_TOKEN", token)
    if words is None:
        check_login(section(repo_id, private=False))
        return
    with pytest.raises(RunError, match=re.escape(f"hub.push is true, but {words}")):
        check_login(section(repo_id, private=False))


def test_login_tells_of_a_public_repository_and_of_metadata_that_the_hub_refuses(server):
    server.add("model", "user/open", {})
    with pytest.raises(RunError, match="user/open is public on the Hub"):
        check_login(section("user/open"))
    with pytest.raises(
        RunError,
        match=(
            r'hub.language or hub.license: the Hub does not accept them: .*\\?"license\\?"'
            r" must be one of"
        ),
    ):
        check_login(section(license="mine"))
    check_login(section(license="mit", language=["en", "de"]))


def test_login_at_a_server_with_a_fault_is_told_without_the_token(server):
    server.faults = [Fault("GET /api/whoami-v2", 500, reason="cannot look up {token}")]
    with pytest.raises(
        RunError, match=r"the login to the Hub failed: .*500.*cannot look up \*\*\*"
    ):
        check_login(section())


def test_slow_server_ends_the_command_at_its_time_limit(server, run, run_cli):
    server.faults = [Fault("POST /api/models/user/name/commit", seconds=200)]
    began = time.monotonic()
    done = run_cli("push", run, "--repo-id", "user/name", "--timeout-minutes", "0.1")
    assert time.monotonic() - began < 60
    assert done.returncode == 2
    assert (
        f"The push to user/name failed: it took longer than 0.1 minutes. All files are"
        f" kept in {run}; repeat with:\nequipoise push"
    ) in done.stderr


def test_command_pushes_and_prints_the_address(server, run, run_cli):
    done = run_cli(
        "push",
        run,
        "--repo-id",
        "user/name",
        "--public",
        "--revision",
        "trial",
        "--commit-message",
        "First",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Pushed to {server.url}/user/name/commit/")
    assert server.repos["model", "user/name"].messages == ["First"]
    assert not server.repos["model", "user/name"].private


def test_of_saves_the_newest_is_next_and_one_is_under_way(server, tmp_path):
    server.faults = [Fault("POST /api/models/user/name/preupload", seconds=4)]
    saves = uploads.SavedModels(section(commit_message="m"), RunFolder(tmp_path))
    saves.offer(make_checkpoint(tmp_path / "checkpoint-1", 1), 1)
    while "POST /api/models/user/name/preupload/main" not in server.requests:
        time.sleep(0.05)
    for step in (2, 3):
        began = time.monotonic()
        checkpoint = make_checkpoint(tmp_path / f"checkpoint-{step}", step)
        saves.offer(checkpoint, step)
        assert time.monotonic() - began < 1
    (checkpoint / "model.safetensors").unlink()  # as when the oldest checkpoint is dropped
    while len(server.repos["model", "user/name"].messages) < 2:
        time.sleep(0.05)
    saves.close(30)
    repo = server.repos["model", "user/name"]
    assert repo.messages == ["Step 1: m", "Step 3: m"]
    files = server.branch("user/name")
    assert set(files) - {".gitattributes"} == MODEL_FILES
    assert (
        files["model.safetensors"]
        == make_model(tmp_path / "third", 3).joinpath("model.safetensors").read_bytes()
    )
    assert not (tmp_path / STAGED).exists()


def test_error_in_training_ends_its_upload_at_once(server, tmp_path):
    server.faults = [Fault("POST /api/models/user/name/preupload", seconds=200, times=9)]
    with suppress(ZeroDivisionError), uploads.uploading(section(every="save"), tmp_path) as offer:
        offer(make_checkpoint(tmp_path / "checkpoint-1", 1), 1)
        while "POST /api/models/user/name/preupload/main" not in server.requests:
            time.sleep(0.05)
        began = time.monotonic()
        raise ZeroDivisionError
    assert time.monotonic() - began < 5
    assert not (tmp_path / STAGED).exists()


def test_save_that_cannot_be_pushed_is_told_and_fails_nothing(server, tmp_path, capsys):
    server.faults = [Fault("POST /api/models/user/name/commit", 413, reason="too large")]
    saves = uploads.SavedModels(section(), RunFolder(tmp_path))
    saves.offer(make_checkpoint(tmp_path / "checkpoint-1", 1), 1)
    wait(saves.uploads)
    saves.close(0)
    told = capsys.readouterr().err
    assert "The model of step 1 was not pushed: " in told
    assert "too large" in told
    assert "repeat with" not in told


def test_stop_signal_ends_the_last_push_and_not_the_finished_run(server, run, capsys):
    server.faults = [Fault("POST /api/models/user/name/preupload", seconds=200, times=9)]

    def stop():
        while "POST /api/models/user/name/preupload/main" not in server.requests:
            time.sleep(0.05)
        os.kill(os.getpid(), 15)

    threading.Thread(target=stop, daemon=True).start()
    with stopping.listening():
        with uploads.uploading(section(), run) as offer:
            assert offer is None
        began = time.monotonic()
    assert time.monotonic() - began < 5
    told = capsys.readouterr().err
    assert told.startswith(
        "The push to user/name failed: stopped by SIGTERM. All files are kept in "
    )
    assert "equipoise push" in told


def test_signal_of_the_last_moment_lets_the_run_finish_and_leaves_the_push_out(server, run, capsys):
    with stopping.listening(), uploads.uploading(section(), run), stopping.at_agreed_steps():
        os.kill(os.getpid(), 15)
    assert server.requests == []
    assert capsys.readouterr().err.startswith(
        "The push to user/name failed: stopped by SIGTERM. All files are kept in "
    )


def test_process_that_cannot_be_started_is_told_and_fails_nothing(
    server, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    told = ""
    with uploads.uploading(section(every="save"), run) as offer:
        offer(make_checkpoint(tmp_path / "checkpoint-1", 1), 1)
        while "The model of step 1 was not pushed: [Errno 2] No such file or directory" not in told:
            time.sleep(0.01)
            told += capsys.readouterr().err
    told = capsys.readouterr().err
    assert "The push to user/name failed: [Errno 2] No such file or directory" in told


@pytest.mark.parametrize("name", ["trainer.py", "trainer/__main__.py"])
def test_module_of_the_user_that_is_called_trainer_does_not_push_in_our_place(
    name, server, run, tmp_path, monkeypatch, capfd
):
    path = tmp_path / "work" / name
    path.parent.mkdir(parents=True)
    path.write_text("print('mine')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "work")
    with uploads.uploading(section(), run):
        pass
    out, err = capfd.readouterr()
    assert (f"Pushed to {server.url}/user/name/commit/" in out, "mine" in out, err) == (
        True,
        False,
        "",
    )
    assert "model.safetensors" in server.branch("user/name")


def test_same_command_pushes_what_failed_or_came_later_and_nothing_twice(server, run, capfd):
    server.faults = [Fault("POST /api/models/user/name/commit", 413, reason="too large")]
    (run / "README.md").rename(run / "card")
    for _ in range(3):
        with uploads.uploading(section(), run):
            pass
    assert "The push to user/name failed: " in capfd.readouterr().err
    assert len(server.repos["model", "user/name"].messages) == 1
    assert json.loads((run / "pushed.json").read_text(encoding="utf-8"))["repo_id"] == "user/name"
    assert TOKEN not in (run / "pushed.json").read_text(encoding="utf-8")
    (run / "card").rename(run / "README.md")
    for _ in range(2):
        with uploads.uploading(section(), run):
            pass
    assert len(server.repos["model", "user/name"].messages) == 2
    assert {"README.md", "model.safetensors"} <= set(server.branch("user/name"))
    assert "pushed.json" not in server.branch("user/name")
    assert not is_pushed(run, section("user/other"))
    assert not is_pushed(run, section(revision="trial"))


def test_push_that_cannot_be_recorded_is_done_all_the_same(server, run, capsys):
    (run / "pushed.json").mkdir()
    assert push(run, section()).startswith(server.url)
    assert f"{run / 'pushed.json'}: cannot be written (" in capsys.readouterr().err


def test_other_processes_neither_push_nor_wait(server, run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with uploads.uploading(section(every="save"), run) as offer:
        assert offer is None
    assert server.requests == []


def test_settings_of_the_hub_make_no_other_run(tmp_path):
    (tmp_path / "config.yaml").write_text("run: {name: r}\nhub: {push: false}", encoding="utf-8")
    (tmp_path / "metrics.json").write_text("{}", encoding="utf-8")
    assert is_finished(
        tmp_path,
        {"run": {"name": "r"}, "hub": {"push": True, "repo_id": "user/name"}},
        "fingerprint",
    )
    assert not is_finished(tmp_path, {"run": {"name": "s"}, "hub": {"push": False}}, "fingerprint")


def test_no_message_of_ours_shows_a_token():
    from trainer.errors import first_line

    assert first_line(ValueError(f"the token {TOKEN} is wrong")) == "the token *** is wrong."


def test_training_pushes_its_saves_and_then_the_run_for_which_no_other_process_waits(
    server, config_file, tmp_path
):
    answered = threading.Event()
    server.faults = [
        Fault("POST /api/validate-yaml", seconds=50, until=answered)
    ]  # asked of a card, so at the last push
    training = {
        "num_train_epochs": 3,
        "max_steps": 12,
        "save_steps": 4,
        "save_strategy": "steps",
        "per_device_train_batch_size": 8,
    }
    path = config_file(
        hub={"push": True, "repo_id": "user/saved", "every": "save", "commit_message": "m"},
        training=training,
    )
    command = ["-m", "trainer", "train", "--config", path]
    with ranks(command, command) as (main, other):
        words = other.communicate(timeout=120)
        assert other.returncode == 0, words
        assert main.poll() is None
        answered.set()
        told = "".join(main.communicate(timeout=120))
        assert main.returncode == 0, told
    repo = server.repos["model", "user/saved"]
    *saves, last = repo.messages
    assert last == "m"
    assert saves
    assert all(re.fullmatch(r"Step \d+: m", message) for message in saves)
    first = repo.commits[list(repo.commits)[1]]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(first)
    assert not [name for name in first if name.endswith((".pt", ".pth", ".bin")) or "state" in name]
    assert "README.md" not in first
    assert {"README.md", "confusion_matrix.png"} <= set(server.branch("user/saved"))
    assert f"Pushed to {server.url}/user/saved/commit/" in told
    assert not (tmp_path / "runs" / "run" / STAGED).exists()
    everything = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(everything) > 10
    assert not [p for p in everything if TOKEN.encode() in p.read_bytes()]
    assert TOKEN not in told


def test_model_of_several_labels_gives_the_same_label_sets_and_groups_from_the_hub(
    server, tactics, tiny_model, tmp_path, monkeypatch
):
    from huggingface_hub import ModelCard, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, tactics[::80][:200])), encoding="utf-8")
    values = {
        "run": {"name": "run", "output_dir": str(tmp_path / "runs")},
        "model": {
            "name": str(tiny_model),
            "max_length": 32,
            "mode": "head",
            "head": {"l2": 1e-3},
        },
        "data": {"source": str(rows), "label_column": "labels"},
        "decision": {"thresholds": "common", "at_least_one": True},
    }
    folder = run_result.train(load_config(values)).folder
    push(folder, section("user/tactics"))
    texts = [row["text"] for row in tactics[40:90]]
    here, there = (Classifier.load(source) for source in (folder, "user/tactics"))
    assert [of.labels for of in there.predict(texts)] == [of.labels for of in here.predict(texts)]
    assert there.models[0].groups.keys() == here.models[0].groups.keys()
    assert all(of.labels for of in there.predict(texts))
    config = json.loads(server.branch("user/tactics")["config.json"])
    facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert list(config["train_rows"]["by_label"].values()) == facts["audit"]["natural_C"]
    card = ModelCard(server.branch("user/tactics")["README.md"].decode())
    assert "multi-label-classification" in card.data.tags
    for words in (
        f"{len(there.labels)} labels (",
        'pipeline("text-classification", "user/tactics")',
        "top_k=None",
        'Classifier.load("user/tactics")',
        " for every label).",
        "labels by training rows",
    ):
        assert words in card.text, words
    micro = [of for of in card.data.eval_results if of.metric_name.startswith("Micro F1")]
    assert {str(of.metric_args) for of in micro} == {"{'average': 'micro'}"}
