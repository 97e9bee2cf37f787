"""The command `coala data convert`: what it prints, and its exit status."""

from __future__ import annotations

import json

import pytest
from cyclopts import App

from flows.convert import convert

PAIR = {"id": "p", "question": "U", "chosen": "good", "rejected": "bad"}


@pytest.fixture
def command():
    app = App(name="coala")
    app.command(convert)
    return lambda *words: app(
        ["convert", *map(str, words)], result_action="return_value", exit_on_error=False, print_error=False
    )


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\nno JSON\n")
    return path


COLUMN = ("--columns", "prompt=question")


def test_rejects_are_told_and_fail(tmp_path, pairs, command, capsys):
    target = tmp_path / "out.csv"
    assert command(pairs, target, "--to", "preference-standard", *COLUMN) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(target)]
    assert printed.err.splitlines() == [
        "2 rows in, 1 used (1 preference, standard explicit), 1 written",
        "1 rejected: not JSON",
        f"1 rejects in {target}.rejects.jsonl",
    ]
    assert target.read_text() == '"prompt","chosen","rejected","id"\n"U","good","bad","p"\n'


def test_rejects_may_be_allowed(tmp_path, pairs, command):
    words = (pairs, tmp_path / "out.jsonl", "--to", "unpaired", *COLUMN, "--force")
    assert command(*words, "--allow-rejects", "1") == 0
    assert command(*words, "--allow-rejects", "0") == 1


def test_packed_fields_are_told(tmp_path, pairs, command, capsys):
    pairs.write_text(json.dumps(PAIR | {"id": 7}))
    assert command(pairs, tmp_path / "out.csv", "--to", "preference-standard", *COLUMN) == 0
    assert "Also in the column coala_fields, as JSON: id" in capsys.readouterr().err


def test_settings_reach_the_pairs(tmp_path, command):
    turns = ["U1", "A1", "U2", "A2", "U3", "A3"]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "c", "history": turns}))
    settings = ("--set", "triplets.pairs=all_later", "--layout", "history")
    target = tmp_path / "out.jsonl"
    assert command(tmp_path / "rows.jsonl", target, "--to", "preference-conversational", *settings) == 0
    assert len(target.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--columns", "prompt"), "`--columns` must be FIELD=NAME, got 'prompt'"),
        (("--allow-rejects", "-1"), "`--allow-rejects` must not be negative, got -1"),
        (("--layout", "chat"), "triplets.layout"),
    ],
)
def test_bad_words_are_refused(tmp_path, pairs, command, words, match):
    with pytest.raises(ValueError, match=match):
        command(pairs, tmp_path / "out.jsonl", "--to", "unpaired", *words)
