"""Conversations by two agents as a Prefect flow, with their triplets and a report on them."""

from __future__ import annotations

from pathlib import PurePath

from prefect import flow

from coala_core.config import BUILTIN_MODEL, GenerationConfig, TripletsConfig
from coala_core.stages.generate import CONVERSATIONS
from coala_core.storage import Artifact
from flows.context import parameter, prefect_tags
from tasks.generation import generate_task
from tasks.records import recorded_run
from tasks.report import publish
from tasks.stages import quality_task, triplets_task
from tasks.summary import RunSummary


def _generation_name() -> str:
    return generation_name(parameter(GenerationConfig))


@flow(name="coala-generate", flow_run_name=_generation_name)
def coala_generate(config: GenerationConfig = GenerationConfig()) -> RunSummary:  # noqa: B008  frozen, hence shareable
    """Two agents in, conversations out, with their triplets and a report on them."""
    with recorded_run(config, generation_name(config), prefect_tags()) as run:
        generated = run.add(generate_task(config.store, config.generate))
        triplets = run.add(triplets_task(config.store, read_from(generated, config.triplets)))
        run.add(quality_task(config.store, config.quality, triplets))
    summary = run.summary()
    publish(summary)
    return summary


def read_from(generated: Artifact, config: TripletsConfig) -> TripletsConfig:
    """Point the triplets at the generated file."""
    return config.model_copy(update={"conversations": str(generated.path / CONVERSATIONS)})


def generation_name(config: GenerationConfig) -> str:
    """Name number, model and seed, such as "32 conversations by the built-in model, seed 0"."""
    wish = config.generate
    model = "the built-in model" if wish.model == BUILTIN_MODEL else PurePath(wish.model).name
    return f"{wish.conversations} conversations by {model}, seed {wish.seed}"
