"""The pipeline as a Prefect flow."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from coala_core.config import PipelineConfig
from coala_core.naming import run_name
from coala_core.stages.solve import require_stored
from tasks.records import recorded_run
from tasks.report import publish
from tasks.stages import embed_task, evaluate_task, finetune_task, solve_task, split_task, triplets_task
from tasks.summary import RunSummary


def _flow_run_name() -> str:
    config: Any = flow_run.parameters["config"]
    return run_name(config if isinstance(config, PipelineConfig) else PipelineConfig.model_validate(config))


@flow(name="coala", flow_run_name=_flow_run_name)
def coala_pipeline(config: PipelineConfig = PipelineConfig()) -> RunSummary:  # noqa: B008  frozen, hence shareable
    """Conversations in, evaluated preference head out (paper, Algorithm 1)."""
    refuse_unstored(config)
    with recorded_run(config, run_name(config), prefect_tags()) as run:
        triplets = run.add(triplets_task(config.store, config.triplets))
        split = run.add(split_task(config.store, config.split, triplets))
        embed = run.add(embed_task(config.store, config.embed, triplets))
        solve = run.add(solve_task(config.store, config.solve, embed, split))
        finetune = run.add(finetune_task(config.store, config.finetune, solve))
        run.add(evaluate_task(config.store, config.evaluate, finetune))
    summary = run.summary()
    publish(summary)
    return summary


def refuse_unstored(config: PipelineConfig) -> None:
    """Refuse to embed for hours what the solve then cannot use.

    Raises
    ------
    ValueError
        If `solve.layer` or `solve.pooling` is not among what `embed` is told to store.
    """
    # Only the model's depth tells which layer empty `embed.layers` stand for; then the stage's own check must do.
    layers = config.embed.layers or [config.solve.layer or 1]
    require_stored(config.solve, layers, config.embed.poolings)


def prefect_tags() -> dict[str, str]:
    """Tags by which an MLflow run leads back to its Prefect run."""
    tags = {"prefect.flow_run_id": flow_run.id}
    # A temporary server has no page, and Prefect then gives a URL that begins with "None".
    if flow_run.ui_url and flow_run.ui_url.startswith("http"):
        tags["prefect.flow_run_url"] = flow_run.ui_url
    return {name: str(value) for name, value in tags.items() if value}
