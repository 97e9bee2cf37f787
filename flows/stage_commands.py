"""A command for each stage, which prints the folder that the next one takes."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Annotated

from cyclopts import Parameter

from coala_core.config import PipelineConfig
from coala_core.storage import Artifact, Store, open_artifact
from flows.settings import ConfigFile, Settings, StoreFolder, configure

Folder = Annotated[Path, Parameter(help="Folder that the stage before printed.")]


def triplets(
    *,
    conversations: str | None = None,
    group_by: str | None = None,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Build triplets from conversations, and print their folder."""
    from coala_core.stages import triplets as stage

    named = {"triplets__conversations": conversations, "triplets__group_by": group_by, "store": store}
    _run_stage(stage, configure(config, settings, **named))


def split(
    triplets: Folder,
    *,
    seed: int | None = None,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Split triplets into train, validation and test, and print the folder."""
    from coala_core.stages import split as stage

    checked = configure(config, settings, split__seed=seed, store=store)
    _run_stage(stage, checked, open_artifact(triplets, "triplets"))


def quality(
    triplets: Folder,
    split: Folder | None = None,
    *,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Measure what the pairs are like, and print the folder; without a split, leaks are not measured."""
    from coala_core.stages import quality as stage

    checked = configure(config, settings, store=store)
    inputs = [open_artifact(triplets, "triplets"), *([open_artifact(split, "split")] if split else [])]
    _run_stage(stage, checked, *inputs)


def embed(
    triplets: Folder,
    *,
    model: str | None = None,
    explain: bool = False,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Embed the responses of triplets, and print the folder.

    Parameters
    ----------
    model
        Folder or hub name of a causal language model, or "builtin".
    explain
        Compute nothing; say what the feature cache has, shard by shard, and why the rest is not reused.
    """
    from coala_core.stages import embed as stage

    checked = configure(config, settings, embed__model=model, store=store)
    artifact = open_artifact(triplets, "triplets")
    if not explain:
        return _run_stage(stage, checked, artifact)
    from flows.console import show_explanation

    show_explanation(stage.explain(Store(checked.store), checked.embed, artifact))


def solve(
    embed: Folder,
    split: Folder,
    *,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Fit the convex head (Phase I) on embeddings and a split, and print the folder."""
    from coala_core.stages import solve as stage

    checked = configure(config, settings, store=store)
    _run_stage(stage, checked, open_artifact(embed, "embed"), open_artifact(split, "split"))


def finetune(
    solve: Folder,
    *,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Tune the last layer (Phase II), and print the folder."""
    from coala_core.stages import finetune as stage

    checked = configure(config, settings, store=store)
    _run_stage(stage, checked, open_artifact(solve, "solve"))


def evaluate(
    finetune: Folder,
    *,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Evaluate a tuned head on the test split, and print the folder."""
    from coala_core.stages import evaluate as stage

    checked = configure(config, settings, store=store)
    _run_stage(stage, checked, open_artifact(finetune, "finetune"))


STAGE_COMMANDS = (triplets, split, quality, embed, solve, finetune, evaluate)


def _run_stage(stage: ModuleType, config: PipelineConfig, *inputs: Artifact) -> None:
    from flows.console import progress_bar, show_artifact

    logging.basicConfig(format="%(message)s")  # Prefect, where it runs, has a format of its own
    with progress_bar(stage.STAGE) as progress:
        artifact = stage.run(Store(config.store), getattr(config, stage.STAGE), *inputs, progress=progress)
    show_artifact(artifact)
