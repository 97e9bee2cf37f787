"""`coala data report`: what it prints, how it exits, and what it does with files that cannot be split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from coala_core.storage import open_artifact
from flows import console
from flows.data import data
from tests.lessons import lesson, write_lessons

pytestmark = pytest.mark.slow

Report = Callable[..., tuple[int, str, str]]
# The lessons are made of few phrases, so that many replies are alike.
SETTINGS = ("split.train=0.6", "split.validation=0.2", "quality.max_near_duplicate_share=1")
SHARES = tuple(part for setting in SETTINGS for part in ("--set", setting))


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Report:
    """Run the command with a store below the test's folder; status, output and errors."""
    monkeypatch.setattr(console, "out", Console(width=200, highlight=False, soft_wrap=True, emoji=False))

    def run(path: Path, *arguments: str) -> tuple[int, str, str]:
        given = ["report", str(path), "--store", str(tmp_path / "store"), *arguments]
        status = data(given, result_action="return_value", exit_on_error=False, print_error=False)
        return int(status), *capsys.readouterr()

    return run


def test_a_report_ends_with_its_folder_and_is_reused(report: Report, lessons: Path) -> None:
    status, out, err = report(lessons, *SHARES, "--strict")
    assert (status, err) == (0, "")
    assert "72 pairs, 24 conversations, 24 groups" in out
    assert out.count(" kept ") == 6
    artifact = open_artifact(out.splitlines()[-1], "quality")
    assert (artifact.path / "quality.md").exists()
    assert report(lessons, *SHARES)[:2] == (0, out)
    assert open_artifact(artifact.path).timing == artifact.timing


def test_strict_exits_1_and_names_what_is_exceeded(report: Report, lessons: Path) -> None:
    below = ("--set", "quality.max_leak_share=0", "--set", "quality.max_length_bias=0")
    status, out, err = report(lessons, *SHARES, *below, "--strict")
    assert status == 1
    exceeded = [line.split("│")[1].strip() for line in out.splitlines() if "exceeded" in line]
    assert exceeded and err == f"{len(exceeded)} limits exceeded: {', '.join(exceeded)}\n"
    assert "length bias, distance from one half" in exceeded
    assert report(lessons, *SHARES, *below)[0] == 0


def test_too_few_groups_for_a_split_still_give_a_report(report: Report, tmp_path: Path) -> None:
    status, out, err = report(write_lessons(tmp_path / "one.jsonl", 1))
    assert status == 0
    assert err.startswith("No split, so leaks are not measured: ") and "needs pairs in every split" in err
    assert "test texts seen in training" in out and "not measured" in out
    assert "Not measured: there is no split." in (Path(out.splitlines()[-1]) / "quality.md").read_text()


def test_a_file_of_rejects_is_refused_in_one_sentence(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("not JSON\n{}\n")
    with pytest.raises(ValueError, match=r"needs at least one row that gives a pair, got none of 2"):
        report(path)
    assert not (tmp_path / "store" / "quality").exists()


def test_rows_may_be_grouped_by_a_field(report: Report, tmp_path: Path) -> None:
    status, out, _ = report(write_lessons(tmp_path / "lessons.jsonl", 30), "--group-by", "topic", *SHARES)
    assert status == 0
    content = json.loads((Path(out.splitlines()[-1]) / "quality.json").read_text())
    assert {row["group"] for row in content["groups"]} == {str(lesson(number)["topic"]) for number in range(5)}
