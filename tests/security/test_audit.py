"""The audit of the lock and of tracked files: what it finds, and when it admits that nobody was asked."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    loader = SourceFileLoader("audit", str(ROOT / ".ci" / "audit"))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_lock_pins_everything_exactly_and_has_nothing_known_to_be_bad(audit: ModuleType) -> None:
    versions, wrong = audit.pins((ROOT / "constraints.txt").read_text())
    assert wrong == []
    assert len(versions) > 150
    assert list(audit.known_faults(versions)) == []
    assert len(set(audit.FLOORS) & set(versions)) > 15  # the floors are about packages that are used


@pytest.mark.parametrize("line", ["torch", "torch>=2.6", "torch==2.*", "-e .", "git+https://host/x", "torch===2.6"])
def test_a_line_that_pins_nothing_is_named(audit: ModuleType, line: str) -> None:
    versions, wrong = audit.pins(f"# comment\n\n{line}\n")
    assert versions == {}
    assert wrong == [f"constraints.txt:3 must pin one version exactly, got {line!r}"]


@pytest.mark.parametrize(
    ("name", "version", "bad"),
    [
        ("litellm", "1.82.7", True),
        ("litellm", "1.82.9", False),
        ("torchtriton", "3.0", True),
        ("torch", "2.5.1", True),
        ("torch", "2.6.0", False),
        ("torch", "2.10.0", False),  # compared as versions, not as text
    ],
)
def test_refused_and_old_releases(audit: ModuleType, name: str, version: str, bad: bool) -> None:
    assert bool(list(audit.known_faults({name: version}))) is bad


def test_packages_that_a_service_did_not_know_count_as_not_asked(audit: ModuleType) -> None:
    unknown = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)"}
    sound: dict[str, Any] = {"name": "b", "version": "1", "vulns": []}
    fault = {"id": "CVE-1", "fix_versions": ["2"]}
    vulnerable = {"name": "c", "version": "1", "vulns": [fault, fault | {"fix_versions": []}]}
    assert audit.judged({"dependencies": [unknown, unknown]}) == (0, [])
    asked, faults = audit.judged({"dependencies": [unknown, sound, vulnerable]})
    assert (asked, faults) == (2, ["c 1: CVE-1, fixed in 2", "c 1: CVE-1, fixed in no version"])


def test_a_secret_may_move_within_its_file_and_no_further(audit: ModuleType) -> None:
    def found(name: str, line: int, digest: str) -> dict[str, Any]:
        return {"results": {name: [{"hashed_secret": digest, "line_number": line, "type": "Secret Keyword"}]}}

    baseline = found("a.py", 3, "d1")
    assert audit.new_secrets(found("a.py", 9, "d1"), baseline) == []
    assert audit.new_secrets(found("b.py", 3, "d1"), baseline) == ["b.py:3 may hold a secret (Secret Keyword)"]
    assert audit.new_secrets(found("a.py", 3, "d2"), baseline) == ["a.py:3 may hold a secret (Secret Keyword)"]
