"""`coala generate`: conversations about one's own topics from one's own language model."""

from __future__ import annotations

import os

from coala_core.config import GenerationConfig
from flows.settings import ConfigFile, Settings, StoreFolder, configure_as
from flows.temporary_server import end_with_this_process


def generate(
    *,
    model: str | None = None,
    base_url: str | None = None,
    conversations: int | None = None,
    topics: str | None = None,
    seed: int | None = None,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Let two agents write conversations, and report on the pairs that they give, as a Prefect flow.

    Parameters
    ----------
    model
        Folder or hub name of a chat model, "builtin", or the name that the endpoint knows.
    base_url
        OpenAI-compatible endpoint; its key is read from the environment variable OPENAI_API_KEY, or the one that
        generate.api_key_variable names.
    conversations
        Conversations to write.
    topics
        YAML file of topics, moods and phrases, or "builtin".
    seed
        Seed of topics, moods, temperatures, lengths and sampling.
    """
    checked = configure_as(
        GenerationConfig,
        config,
        settings,
        generate__model=model,
        generate__base_url=base_url,
        generate__conversations=conversations,
        generate__topics=topics,
        generate__seed=seed,
        store=store,
    )
    # Read when torch is loaded: threads that wait by spinning take turns on a machine that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    end_with_this_process()
    from flows.console import out, show_summary
    from flows.generate import coala_generate

    summary = coala_generate(checked)
    show_summary(summary)
    generated = summary.stages["generate"]
    report = generated.report
    out.print(_outcome(report), markup=False)
    out.print(f"  coala run --conversations {generated.path}/conversations.jsonl", markup=False)


def _outcome(report: dict[str, object]) -> str:
    """Say how many conversations there are, and why there are not more."""
    text = f"{report['finished']} conversations finished, {report['rejected']} rejected"
    if report["unfinished"]:
        text += f", {report['unfinished']} unfinished as `generate.{report['stopped_by']}` was reached"
    return f"{text}. Train on them:"
