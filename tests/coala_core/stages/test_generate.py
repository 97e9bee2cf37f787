"""The stage from its configuration to files that the next stage reads: against a real server, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coala_core.config import GenerateConfig, TripletsConfig
from coala_core.stages import generate, triplets
from coala_core.storage import Artifact, Store
from tests.chat_server import Body, ChatServer, Reply, chat_server, completion, fit_reply, fit_text, is_student
from tests.lessons import digests

SECRET = "sk-no-one-may-read-this"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server() as running:
        yield running


def settings(server: ChatServer, **more: Any) -> GenerateConfig:
    return GenerateConfig(
        **{"model": "teacher", "base_url": server.url, "conversations": 6, "concurrency": 3, "max_retries": 0} | more
    )


def rows(artifact: Artifact, name: str = "conversations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifact.path / name).read_text(encoding="utf-8").splitlines()]


def spoil_one(server: ChatServer, topic: str) -> None:
    """Let the tutor refuse whenever the quiz is on a topic."""

    def answer(body: Body) -> Reply:
        refuses = not is_student(body) and f"quiz on {topic}." in body["messages"][0]["content"]
        return Reply(completion("As an AI I cannot say.")) if refuses else fit_reply(body)

    server.answer = answer


def test_the_files_hold_every_conversation_and_the_next_stage_reads_them(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = generate.run(store, settings(server, conversations=1))
    topic = rows(first)[0]["topic"]
    spoil_one(server, topic)
    server.bodies.clear()
    artifact = generate.run(Store(tmp_path / "other"), settings(server, attempts=2))
    good, bad = rows(artifact), rows(artifact, "rejects.jsonl")
    ids = [f"generated-0-{index:05d}" for index in range(6)]
    assert [row["id"] for row in bad] == ids[:1] and [row["id"] for row in good] == ids[1:]
    assert bad[0] == {
        **{"id": ids[0], "topic": topic, "field": rows(first)[0]["field"], "turn": 2, "fault": "refusal"},
        **{"reason": "the turn says 'as an ai'", "excerpt": "As an AI I cannot say."},
    }
    assert {key for row in good for key in row} == {
        *("id", "field", "topic", "mood", "temperature", "seed", "model", "utterances")
    }
    for row in good:
        speakers = [speaker for speaker, _ in row["utterances"]]
        assert speakers == ["agent2", "agent1"] * (len(speakers) // 2) and 4 <= len(speakers) <= 8
        assert (row["seed"], row["model"]) == (0, "teacher")
    built = triplets.run(store, TripletsConfig(conversations=str(artifact.path / "conversations.jsonl")))
    assert built.report["rows_rejected"] == 0
    # r replies give r - 1 pairs.
    assert built.report["triplets"] == sum(len(row["utterances"]) // 2 - 1 for row in good)


def test_the_report_counts_what_the_server_was_asked(server: ChatServer, tmp_path: Path) -> None:
    topic = rows(generate.run(Store(tmp_path), settings(server, conversations=1)))[0]["topic"]
    spoil_one(server, topic)
    server.bodies.clear()
    prices = {"price_per_million_input": 3.0, "price_per_million_output": 9.0}
    artifact = generate.run(Store(tmp_path / "other"), settings(server, attempts=3, **prices))
    good = rows(artifact)
    # Of the two exchanges' turns only the first question came; the reply to it took three attempts of six words.
    asked = sum(len(row["utterances"]) for row in good) + 1 + 3
    words = sum(len(text.split()) for row in good for _, text in row["utterances"])
    first_question = next(b for b in server.bodies if is_student(b) and topic in b["messages"][-1]["content"])
    words += len(fit_text(first_question).split()) + 3 * 6
    assert len(server.bodies) == asked
    report = artifact.report
    assert report == {
        **{"conversations": 6, "finished": 5, "rejected": 1, "unfinished": 0, "stopped_by": None},
        **{"rejected_by_reason": {"refusal": 1}, "retries_by_reason": {"refusal": 2}, "model": "teacher"},
        **{"exchanges_mean": sum(len(row["utterances"]) / 2 for row in good) / 5, "estimated_answers": 0},
        **{"fields": dict(Counter(row["field"] for row in good)), "prompt_tokens": 100 * asked},
        **{"completion_tokens": words, "cost": pytest.approx(100 * asked * 3e-6 + words * 9e-6)},
    }
    took = artifact.timing["performance"]
    assert (took["answers"], took["answers_reused"], took["written_tokens"]) == (asked, 0, words)


def test_the_key_covers_what_changes_a_turn_and_nothing_else(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path)

    def key(**more: Any) -> str:
        return generate.plan(store, settings(server, **more)).key

    means = {"concurrency": 9, "batch_size": 3, "api_key_variable": "MINE", "timeout_seconds": 9.0, "max_retries": 4}
    assert {key(**{name: value}) for name, value in means.items()} == {key()}
    changes = {
        **{"model": "other", "base_url": "http://localhost:1/v1", "conversations": 7, "seed": 1, "attempts": 5},
        **{"min_exchanges": 3, "max_exchanges": 5, "min_temperature": 0.3, "max_temperature": 0.8, "top_p": 0.5},
        **{"student_tokens": 30, "tutor_tokens": 60, "max_tokens_total": 10_000, "repetition_penalty": 1.3},
    }
    copy = tmp_path / "topics.yaml"
    copy.write_text(f"# the same, with a remark\n{(ROOT / 'data' / 'topics.yaml').read_text(encoding='utf-8')}")
    assert key(topics=str(copy)) == key()
    copy.write_text(copy.read_text(encoding="utf-8").replace("rivers", "streams"))
    changed = [key(**{name: value}) for name, value in changes.items()] + [key(topics=str(copy))]
    assert len({key(), *changed}) == len(changes) + 2


def test_the_key_of_the_endpoint_is_nowhere(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    generate.run(Store(tmp_path), settings(server, conversations=2))
    assert set(server.keys) == {f"Bearer {SECRET}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 4 and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_an_endpoint_that_gives_up_half_way_is_asked_for_the_rest_only(server: ChatServer, tmp_path: Path) -> None:
    undisturbed = generate.run(Store(tmp_path / "other"), settings(server))
    total = len(server.bodies)
    server.bodies.clear()
    server.answer = lambda body: fit_reply(body) if len(server.bodies) <= total // 2 else Reply({}, 401)
    with pytest.raises(ValueError, match="got status 401"):
        generate.run(Store(tmp_path), settings(server))
    answered = server.bodies[: total // 2]
    server.bodies.clear()
    server.answer = fit_reply
    artifact = generate.run(Store(tmp_path), settings(server))
    assert len(answered) + len(server.bodies) == total
    assert not [body for body in server.bodies if body in answered]
    assert artifact.sha256 == undisturbed.sha256
    assert artifact.timing["performance"]["answers_reused"] == len(answered)


def test_more_conversations_keep_those_that_there_are(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    few = generate.run(store, settings(server))
    asked = len(server.bodies)
    many = generate.run(store, settings(server, conversations=9))
    assert rows(many)[:6] == rows(few)
    assert len(server.bodies) == sum(len(row["utterances"]) for row in rows(many)) > asked


def test_a_cap_that_is_raised_goes_on_where_it_stopped(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    capped = generate.run(store, settings(server, conversations=8, max_tokens_total=4500))
    report = capped.report
    assert report["stopped_by"] == "max_tokens_total" and report["finished"] + report["unfinished"] == 8
    assert report["prompt_tokens"] + report["completion_tokens"] <= 4500
    asked = len(server.bodies)
    free = generate.run(store, settings(server, conversations=8))
    assert free.report["unfinished"] == 0
    assert len(server.bodies) == sum(len(row["utterances"]) for row in rows(free)) > asked


@pytest.mark.parametrize(
    ("answer", "more", "sentence"),
    [
        (fit_reply, {"max_tokens_total": 50}, "`generate.max_tokens_total` must leave room for one conversation"),
        (
            lambda _b: Reply(completion("I will not.")),
            {"attempts": 2},
            "must write at least one fit conversation of 6, got none, 6 times because the student asks nothing",
        ),
    ],
)
def test_a_set_without_conversations_is_not_stored(
    server: ChatServer, tmp_path: Path, answer: Any, more: dict[str, Any], sentence: str
) -> None:
    server.answer = answer
    with pytest.raises(ValueError, match=sentence):
        generate.run(Store(tmp_path), settings(server, **more))
    assert not [path for path in (tmp_path / "generate").iterdir() if not path.name.endswith(".partial")]


def test_a_model_that_is_not_to_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"`generate.model=.*empty` must hold .safetensors weights"):
        generate.run(Store(tmp_path), GenerateConfig(model=str(tmp_path / "empty")))


def test_a_local_model_that_writes_nonsense_is_told_so(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    config = GenerateConfig(model=str(tiny_models["qwen3"]), conversations=3, attempts=2, student_tokens=8)
    with pytest.raises(ValueError, match="must write at least one fit conversation of 3, got none"):
        generate.run(Store(tmp_path), config)
    (journal,) = (tmp_path / "generate-answers").glob("*.jsonl")
    # Two attempts at three first questions, three answers a line.
    assert [len(json.loads(line)) for line in journal.read_text().splitlines()] == [3, 3]


def start(store: Path, config: GenerateConfig) -> subprocess.Popen[bytes]:
    """Run the stage in a process of its own, with as many threads as here."""
    code = (
        "import sys; from coala_core.config import GenerateConfig; from coala_core.stages import generate; "
        "from coala_core.storage import Store; "
        "generate.run(Store(sys.argv[1]), GenerateConfig.model_validate_json(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, str(store), config.model_dump_json()], env=environment)


def kill_when(process: subprocess.Popen[bytes], journal: Path, lines: int, seconds: float) -> None:
    """Kill a process as soon as its journal has so many lines."""
    deadline = time.monotonic() + seconds
    while sum(path.read_bytes().count(b"\n") for path in journal.glob("*.jsonl")) < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_half_and_run_again_nothing_is_lost_or_doubled(server: ChatServer, tmp_path: Path) -> None:
    config = settings(server, conversations=30, concurrency=4)
    undisturbed = generate.run(Store(tmp_path / "other"), config)
    total = len(server.bodies)
    server.bodies.clear()
    server.answer = lambda body: Reply(completion(fit_text(body)), delay=0.02)
    store = tmp_path / "store"
    kill_when(start(store, config), store / "generate-answers", total // 2, seconds=60)
    before = len(server.bodies)
    assert total // 2 <= before < total
    artifact = generate.run(Store(store), config)
    assert artifact.sha256 == undisturbed.sha256 and digests(artifact.path) == digests(undisturbed.path)
    # The requests that were under way at the kill are asked again, and no other.
    asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert len(asked) == total and len(server.bodies) - total <= 4


@pytest.mark.slow
def test_the_built_in_model_killed_and_run_again_writes_the_same_bytes(tmp_path: Path) -> None:
    config = GenerateConfig(model="built-in", conversations=6, batch_size=4, max_exchanges=2, device="cpu")
    share_model(tmp_path)
    undisturbed = generate.run(Store(tmp_path / "other"), config)
    store = tmp_path / "store"
    kill_when(start(store, config), store / "generate-answers", 3, seconds=300)
    answers = sum(len(json.loads(line)) for line in next((store / "generate-answers").glob("*")).open())
    artifact = generate.run(Store(store), config)
    assert artifact.timing["performance"]["answers_reused"] == answers > 0
    assert digests(artifact.path) == digests(undisturbed.path)
    report = artifact.report
    assert report["finished"] + report["rejected"] == 6 and report["finished"] >= 4
    assert report["model"] == "SmolLM2-135M-Instruct"


def share_model(folder: Path) -> None:
    """Convert the built-in model once for both stores, or take the one of the checkout."""
    from coala_core.config import EmbedConfig
    from coala_core.embed.model_source import locate_model, materialise

    kept = Store(ROOT / "data" / "store")
    models = materialise(locate_model(EmbedConfig(), kept), kept).parent
    for name in ("store", "other"):
        (folder / name).mkdir()
        (folder / name / "models").symlink_to(models)
