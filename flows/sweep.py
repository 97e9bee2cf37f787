"""Many pipelines that differ in some settings, one after the other, ranked on the validation split."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger

from coala_core.config import SweepConfig
from coala_core.naming import run_name
from flows.pipeline import coala_pipeline
from tasks.sweep import SweepResult, SweepRow, choice_text, failed_row, finished_row, publish_sweep


@flow(name="coala-sweep")
def coala_sweep(config: SweepConfig = SweepConfig()) -> SweepResult:  # noqa: B008  frozen, hence shareable
    """Run every combination of the grid, and rank the heads by validation loss.

    Stages that combinations have in common are computed once. A combination that fails is reported, and the others
    are run.
    """
    runs = config.runs()
    rows: list[SweepRow] = []
    for number, (choice, pipeline) in enumerate(runs, start=1):
        name = f"{run_name(pipeline)}, {choice_text(choice)}"
        get_run_logger().info("run %d of %d: %s", number, len(runs), choice_text(choice))
        tracking = pipeline.tracking.model_copy(update={"run_name": name})
        named = pipeline.model_copy(update={"tracking": tracking})
        state = coala_pipeline.with_options(flow_run_name=name)(named, return_state=True)
        outcome = state.result(raise_on_failure=False)
        rows.append(
            failed_row(choice, outcome) if isinstance(outcome, BaseException) else finished_row(choice, outcome)
        )
    result = SweepResult(rows=rows)
    publish_sweep(result)
    result.require_one()
    return result
