"""The stages as Prefect tasks: thin shells, the work is in `coala_core.stages`."""

from __future__ import annotations

from coala_core.config import (
    EmbedConfig,
    EvaluateConfig,
    FinetuneConfig,
    QualityConfig,
    SolveConfig,
    SplitConfig,
    TripletsConfig,
)
from coala_core.stages import embed, evaluate, finetune, quality, solve, split, triplets
from coala_core.storage import Artifact, Store
from tasks.stage import reported_progress, stage_task


@stage_task(triplets)
def triplets_task(store: str, config: TripletsConfig) -> Artifact:
    """Conversations in, (prompt, chosen, rejected) out."""
    with reported_progress("triplets") as progress:
        return triplets.run(Store(store), config, progress)


@stage_task(split)
def split_task(store: str, config: SplitConfig, triplets_artifact: Artifact) -> Artifact:
    """Whole groups to train, validation and test."""
    with reported_progress("split") as progress:
        return split.run(Store(store), config, triplets_artifact, progress)


@stage_task(quality)
def quality_task(
    store: str, config: QualityConfig, triplets_artifact: Artifact, split_artifact: Artifact | None = None
) -> Artifact:
    """Measure what the pairs are like, and whether they are worth training on."""
    with reported_progress("quality") as progress:
        return quality.run(Store(store), config, triplets_artifact, split_artifact, progress)


@stage_task(embed)
def embed_task(store: str, config: EmbedConfig, triplets_artifact: Artifact) -> Artifact:
    """Features of every response, from the frozen language model."""
    with reported_progress("embed") as progress:
        return embed.run(Store(store), config, triplets_artifact, progress)


@stage_task(solve)
def solve_task(store: str, config: SolveConfig, embed_artifact: Artifact, split_artifact: Artifact) -> Artifact:
    """Phase I: the convex head, its weight chosen on the validation split."""
    with reported_progress("solve") as progress:
        return solve.run(Store(store), config, embed_artifact, split_artifact, progress)


@stage_task(finetune)
def finetune_task(store: str, config: FinetuneConfig, solve_artifact: Artifact) -> Artifact:
    """Phase II: the last layer on the COALA loss."""
    with reported_progress("finetune") as progress:
        return finetune.run(Store(store), config, solve_artifact, progress)


@stage_task(evaluate)
def evaluate_task(store: str, config: EvaluateConfig, finetune_artifact: Artifact) -> Artifact:
    """Accuracy, margins and baselines on the test split."""
    with reported_progress("evaluate") as progress:
        return evaluate.run(Store(store), config, finetune_artifact, progress)
