"""Stage ``generate``: two agents in, conversations out."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from coala_core.config import EmbedConfig, GenerateConfig
from coala_core.embed.model_settings import choose_device, choose_dtype
from coala_core.embed.model_source import ModelSource, locate_model, materialise
from coala_core.generate import prompts
from coala_core.generate.backends import Backend
from coala_core.generate.journal import Journal, JournalledBackend
from coala_core.generate.topics import load_topics
from coala_core.generate.writer import Written, write_dialogues
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Stopwatch, Store, Workspace, digest

STAGE = "generate"
REVISION = 1
CONVERSATIONS = "conversations.jsonl"
REJECTS = "rejects.jsonl"
ANSWERS = "generate-answers"
"""Folder of the store with every answer of every language model, by model and seed."""

_MEANS = {"api_key_variable", "batch_size", "device", "concurrency", "timeout_seconds", "max_retries"}
"""Settings of this machine; they move a local model's answers by rounding only."""
_ADDRESS = {"model", "revision", "base_url", "topics", "dtype"}
"""Settings that the key covers by what they stand for."""
_SAMPLING = ("top_p", "repetition_penalty", "seed")


def plan(store: Store, config: GenerateConfig) -> Plan:
    """Key of the conversations: model, prompts, topics, and every setting that changes a turn or the number of them.

    A local model is covered by its weights, tokenizer and chat template. Of an endpoint nothing but its host, path
    and model name can be known: what it answers with under that name, today and later, is its own affair, and equal
    settings find the conversations that it gave the first time.
    """
    topics = load_topics(config.topics)
    identity = {
        **config.model_dump(exclude=_MEANS | _ADDRESS),
        "model": _model_identity(store, config),
        "prompts": prompts.REVISION,
        "topics": digest(topics.model_dump()),
    }
    return Plan(STAGE, REVISION, config.model_dump(exclude=_MEANS), {}, identity)


def run(store: Store, config: GenerateConfig, progress: Progress = silent) -> Artifact:
    """Let student and tutor write conversations; write ``conversations.jsonl`` and ``rejects.jsonl``.

    Rows are in EduFeedback's layout and ordered by their index, so that the file is a source of the stage
    ``triplets``. Every answer is on disk as soon as it is there, in the store's folder `ANSWERS`: a killed run goes
    on at the turns that it lacks, and more conversations or higher caps keep the answers that there are. Of a local
    model a run that goes on makes the bytes of one that was not killed; answers kept from a run with another number
    of conversations came from other batches, and differ from new ones by rounding.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : GenerateConfig
        Model or endpoint, topics, lengths, checks' attempts and caps.
    progress : Progress
        Told conversations finished or rejected.

    Raises
    ------
    FileNotFoundError
        If there is no such file of topics.
    ValueError
        If topics, model, key or settings are refused, or no conversation came out.
    ConnectionError
        If the endpoint is away; the same call then continues.
    """
    planned = plan(store, config)

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        watch = Stopwatch()
        journal_key = digest([planned.identity["model"], [getattr(config, name) for name in _SAMPLING]])[:24]
        with store.lock(ANSWERS, journal_key), Journal(store.root / ANSWERS / f"{journal_key}.jsonl") as journal:
            backend = JournalledBackend(_open_backend(store, config), journal)
            try:
                written = write_dialogues(load_topics(config.topics), config, backend, progress)
            finally:
                backend.close()
        _require_some(written, config)
        label = _label(store, config)
        workspace.write_lines(CONVERSATIONS, [dialogue.row(label) for dialogue in written.finished])
        workspace.write_lines(REJECTS, [dialogue.reject() for dialogue in written.rejected])
        workspace.report = {**_report(written, config), "model": label}
        workspace.performance = backend.performance(watch.seconds)

    return produce(store, planned, compute)


def _open_backend(store: Store, config: GenerateConfig) -> Backend:
    if config.base_url is not None:
        from coala_core.generate.endpoint import Endpoint

        return Endpoint(config)
    from coala_core.generate.local_model import load_local_model

    return load_local_model(materialise(_locate(store, config), store), config)


def _locate(store: Store, config: GenerateConfig) -> ModelSource:
    """Find the model as the stage ``embed`` does, and speak of this stage's setting where it is not to be had."""
    try:
        return locate_model(EmbedConfig(model=config.model, revision=config.revision), store)
    except (ValueError, ModuleNotFoundError) as error:
        raise type(error)(str(error).replace("embed.model", "generate.model")) from error


def _model_identity(store: Store, config: GenerateConfig) -> dict[str, str]:
    """Name what the answers depend on: weights and precision, or what is known of an endpoint."""
    if config.base_url is not None:
        address = urlsplit(config.base_url)
        return {"endpoint": f"{address.netloc}{address.path}", "model": config.model}
    dtype = choose_dtype(config.dtype, choose_device(config.device))
    return {"fingerprint": _locate(store, config).fingerprint, "dtype": dtype}


def _label(store: Store, config: GenerateConfig) -> str:
    return config.model if config.base_url is not None else _locate(store, config).label


def _require_some(written: Written, config: GenerateConfig) -> None:
    """Refuse to store a set without conversations."""
    if written.finished:
        return
    if written.budget.reached is not None:
        raise ValueError(
            f"`generate.{written.budget.reached}` must leave room for one conversation, got none finished; raise it"
        )
    reasons = Counter(d.rejection.reason for d in written.rejected if d.rejection is not None)
    reason, times = reasons.most_common(1)[0]
    raise ValueError(
        f"`generate.model={config.model}` must write at least one fit conversation of {config.conversations}, got "
        f"none, {times} times because {reason}; choose a larger model or raise `generate.attempts`"
    )


def _report(written: Written, config: GenerateConfig) -> dict[str, Any]:
    """Count what depends on the answers only."""
    budget = written.budget
    exchanges = [dialogue.scenario.exchanges for dialogue in written.finished]
    rejected = Counter(str(d.rejection.fault) for d in written.rejected if d.rejection is not None)
    report = {
        "conversations": config.conversations,
        "finished": len(written.finished),
        "rejected": len(written.rejected),
        "unfinished": config.conversations - len(written.finished) - len(written.rejected),
        "stopped_by": budget.reached,
        "rejected_by_reason": dict(sorted(rejected.items())),
        "retries_by_reason": dict(sorted(written.retries.items())),
        "exchanges_mean": sum(exchanges) / len(exchanges),
        "fields": dict(sorted(Counter(dialogue.scenario.field for dialogue in written.finished).items())),
        "prompt_tokens": budget.prompt_tokens,
        "completion_tokens": budget.completion_tokens,
        "estimated_answers": budget.estimated,
    }
    return report if budget.cost is None else {**report, "cost": budget.cost}
