"""The pipeline as Prefect flows: the whole of it, the data alone, and the head alone on stored features."""

from __future__ import annotations

from prefect import flow

from coala_core.config import DataConfig, PipelineConfig
from coala_core.naming import data_name, run_name
from coala_core.storage import Artifact
from flows.context import parameter, prefect_tags
from flows.refusals import refuse_full_disk, refuse_unstored, require_embedded
from tasks.records import RunRecord, recorded_run
from tasks.report import publish
from tasks.stages import embed_task, evaluate_task, finetune_task, quality_task, solve_task, split_task, triplets_task
from tasks.summary import RunSummary


def _pipeline_name() -> str:
    return run_name(parameter(PipelineConfig))


def _data_name() -> str:
    return data_name(parameter(DataConfig))


@flow(name="coala", flow_run_name=_pipeline_name)
def coala_pipeline(config: PipelineConfig = PipelineConfig()) -> RunSummary:  # noqa: B008  frozen, hence shareable
    """Conversations in, evaluated preference head out (paper, Algorithm 1)."""
    refuse_unstored(config)
    with recorded_run(config, run_name(config), prefect_tags()) as run:
        refuse_full_disk(config)
        triplets, split = _data_stages(run, config)
        embed = run.add(embed_task(config.store, config.embed, triplets))
        _head_stages(run, config, embed, split)
    return _published(run)


@flow(name="coala-data", flow_run_name=_data_name)
def coala_data(config: DataConfig = DataConfig()) -> RunSummary:  # noqa: B008
    """Conversations in, split triplets out, with what is to be said about them; no language model."""
    with recorded_run(config, data_name(config), prefect_tags()) as run:
        refuse_full_disk(config)
        _data_stages(run, config)
    return _published(run)


@flow(name="coala-head", flow_run_name=_pipeline_name)
def coala_head(config: PipelineConfig = PipelineConfig()) -> RunSummary:  # noqa: B008
    """Phase I, Phase II and evaluation on features that an earlier run has stored; no language model."""
    refuse_unstored(config)
    with recorded_run(config, run_name(config), prefect_tags()) as run:
        refuse_full_disk(config)
        triplets, split = _data_stages(run, config)
        require_embedded(config, triplets)
        embed = run.add(embed_task(config.store, config.embed, triplets))
        _head_stages(run, config, embed, split)
    return _published(run)


def _data_stages(run: RunRecord, config: DataConfig) -> tuple[Artifact, Artifact]:
    """From a file of conversations to split triplets, with a report on them."""
    triplets = run.add(triplets_task(config.store, config.triplets))
    split = run.add(split_task(config.store, config.split, triplets))
    run.add(quality_task(config.store, config.quality, triplets, split))
    return triplets, split


def _head_stages(run: RunRecord, config: PipelineConfig, embed: Artifact, split: Artifact) -> None:
    """From features to a verdict."""
    solve = run.add(solve_task(config.store, config.solve, embed, split))
    finetune = run.add(finetune_task(config.store, config.finetune, solve))
    run.add(evaluate_task(config.store, config.evaluate, finetune))


def _published(run: RunRecord) -> RunSummary:
    """Put the result on the run's page and return it."""
    summary = run.summary()
    publish(summary)
    return summary
