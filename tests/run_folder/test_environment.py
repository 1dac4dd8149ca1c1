"""The commit in environment.json is one of this project, or none."""

import json
import subprocess

import pytest

from trainer.run_folder.environment import code_commit

OURS, THEIRS = '[project]\nname = "equipoise"\n', '[project]\nname = "my-own-project"\n'


def git(folder, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *options, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def repository(folder, pyproject, package="trainer", *, tracked=True):
    """(package folder, commit) of a git repository with one commit that contains a package."""
    code = folder / package
    code.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    (code / "__init__.py").write_text("", encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", *(["."] if tracked else ["pyproject.toml"]))
    git(folder, "commit", "--quiet", "-m", "first")
    return code, git(folder, "rev-parse", "HEAD")


def test_commit_of_a_checkout_of_this_project_is_told_with_changes(tmp_path):
    code, commit = repository(tmp_path, OURS)
    assert code_commit(code) == commit
    (code / "__init__.py").write_text("changed = True\n", encoding="utf-8")
    assert code_commit(code) == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("pyproject", "package", "tracked"),
    [
        (THEIRS, ".venv/lib/python3.11/site-packages/trainer", False),
        (THEIRS, "trainer", True),  # a package of theirs that has our name
        (OURS, "trainer", False),
        (OURS, ".venv/lib/python3.11/site-packages/trainer", True),
        ("no TOML [", "trainer", True),
    ],
    ids=[
        "installed in their repository",
        "their own package",
        "not tracked",
        "installed in our checkout",
        "broken file",
    ],
)
def test_commit_of_the_users_repository_is_not_ours(tmp_path, pyproject, package, tracked):
    code, _ = repository(tmp_path, pyproject, package, tracked=tracked)
    assert code_commit(code) is None


def test_repository_that_the_environment_names_is_not_asked(tmp_path, monkeypatch):
    code, commit = repository(tmp_path / "ours", OURS)
    repository(tmp_path / "theirs", THEIRS)
    monkeypatch.setenv(
        "GIT_DIR", str(tmp_path / "theirs/.git")
    )  # as git sets it while it runs a hook
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "theirs"))
    assert code_commit(code) == commit


@pytest.mark.parametrize(
    ("noted", "told"),
    [
        ({"vcs_info": {"vcs": "git", "commit_id": "ab" * 20}}, "ab" * 20),
        ({"dir_info": {}}, None),
        (None, None),
    ],
)
def test_commit_that_pip_noted_is_told(tmp_path, monkeypatch, noted, told):
    code, facts = tmp_path / "trainer", tmp_path / "equipoise-9.9.dist-info"
    for folder in (code, facts):
        folder.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: equipoise\nVersion: 9.9\n", encoding="utf-8"
    )
    if noted is not None:
        (facts / "direct_url.json").write_text(json.dumps(noted), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_commit(code) == told
    assert code_commit(tmp_path / "elsewhere") is None
