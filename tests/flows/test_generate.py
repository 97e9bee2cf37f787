"""Conversations as a flow on a real Prefect server, and `coala generate`, against a real chat server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from coala_core.config import GenerationConfig, parse_config
from tests.chat_server import ChatServer, chat_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server() as running:
        yield running


def name_of(**generate: object) -> str:
    from flows.generate import generation_name

    return generation_name(parse_config({"generate": generate}, GenerationConfig, source="test"))


def test_a_run_is_named_by_number_model_and_seed() -> None:
    assert name_of() == "32 conversations by the built-in model, seed 0"
    assert name_of(model="built-in", conversations=2, seed=4) == "2 conversations by the built-in model, seed 4"
    assert name_of(model="/a/folder/mine") == "32 conversations by mine, seed 0"


def command(*arguments: object) -> None:
    from flows.generate_command import generate

    app = App(result_action="return_value")
    app.default(generate)
    app([*map(str, arguments)], exit_on_error=False, print_error=False)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_command_writes_conversations_and_what_comes_of_them(
    server: ChatServer, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = tmp_path / "mine.yaml"
    topics.write_text("fields: {cooking: [bread, soup]}\nmoods: [hungry]\n")
    given = ["--model", "teacher", "--base-url", server.url, "--conversations", 12, "--topics", topics, "--seed", 3]
    sets = ["--set", "generate.max_exchanges=2"]
    command(*given, "--store", store, *sets)
    out = capsys.readouterr().out
    assert "12 conversations by teacher, seed 3" in out
    assert "12 conversations finished, 0 rejected. Train on them:" in out
    (folder,) = (store / "generate").iterdir()
    assert f"coala run --conversations {folder}/conversations.jsonl" in out
    found = [json.loads(line) for line in (folder / "conversations.jsonl").read_text().splitlines()]
    assert {(row["field"], row["mood"], row["seed"]) for row in found} == {("cooking", "hungry", 3)}
    (triplets,) = (store / "triplets").iterdir()
    # Two exchanges give one pair.
    assert json.loads((triplets / "manifest.json").read_text())["report"]["triplets"] == 12
    assert len(list((store / "quality").glob("*/quality.md"))) == 1
    asked = len(server.bodies)
    command(*given, "--store", store, *sets)
    assert len(server.bodies) == asked, "the same command reuses what there is"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_flow_is_recorded_stage_by_stage(server: ChatServer, store: Path) -> None:
    from flows.generate import coala_generate

    content = {
        "store": str(store),
        "generate": {"model": "teacher", "base_url": server.url, "conversations": 8},
        "triplets": {"conversations": "somewhere/else.jsonl", "history": "turn"},
    }
    summary = coala_generate(parse_config(content, GenerationConfig, source="test"))
    assert list(summary.stages) == ["generate", "triplets", "quality"]
    report = summary.stages["generate"].report
    pairs = round((report["exchanges_mean"] - 1) * report["finished"])
    assert report["finished"] == 8 and summary.stages["triplets"].report["triplets"] == pairs
    settings = json.loads((summary.stages["triplets"].path / "manifest.json").read_text())["config"]
    assert settings["history"] == "turn" and settings["conversations"].endswith("conversations.jsonl")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--base-url", "http://host/v1"], "`generate.base_url` needs `generate.model`, the name that the endpoint"),
        (["--base-url", "host/v1", "--model", "m"], "must begin with http:// or https:// and a host"),
        (["--base-url", "http://me:pw@host/v1", "--model", "m"], "must hold no credentials, query or fragment"),
        (["--base-url", "http://host/v1?key=1", "--model", "m"], "must hold no credentials, query or fragment"),
        (["--set", "generate.max_cost=1"], "`generate.max_cost` needs prices to count by, got 1.0 and none"),
        (["--set", "generate.min_exchanges=5"], "`generate.min_exchanges` must not exceed"),
        (["--set", "generate.max_exchanges=1"], "max_exchanges: Input should be greater than or equal to 2"),
        (["--set", "generate.api_key_variable=sk-1"], "api_key_variable: String should match pattern"),
        (["--conversations", "0"], "conversations: Input should be greater than or equal to 1"),
    ],
)
def test_a_refusal_says_what_to_do(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        command(*arguments)
    assert sentence in str(caught.value) and ":pw" not in str(caught.value)
