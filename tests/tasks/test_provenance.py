import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tasks.provenance import _git_tags, environment_tags


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_are_those_of_this_environment_and_nothing_leaks(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open-sesame")
    tags = environment_tags()
    assert tags["version.python"] == ".".join(map(str, sys.version_info[:3]))
    assert tags["version.numpy"] == metadata.version("numpy")
    assert "open-sesame" not in str(tags)
    assert all(isinstance(value, str) and len(value) <= 8000 for value in tags.values())


def test_the_machine_is_named():
    tags = environment_tags()
    assert tags["backend"] in ("numpy", "cupy") and tags["device"]


def test_revision_of_a_checkout_is_its_commit_and_says_when_files_differ(tmp_path):
    file = tmp_path / "code.py"
    file.write_text("one")
    assert _git_tags(file) == {}  # no checkout
    git(tmp_path, "init")
    assert _git_tags(file) == {}  # a checkout that does not track the file
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    expected = {"git.revision": commit, "git.dirty": "false", "mlflow.source.git.commit": commit}
    assert _git_tags(file) == expected
    file.write_text("two")
    assert _git_tags(file) == expected | {"git.dirty": "true"}
