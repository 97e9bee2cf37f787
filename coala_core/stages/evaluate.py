"""Stage ``evaluate``: the test split, once."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import EvaluateConfig
from coala_core.evaluate import evaluate_head
from coala_core.heads import read_head
from coala_core.plots import plot_margin_histogram
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.inputs import pairs_behind
from coala_core.storage import Artifact, Store, Workspace

STAGE = "evaluate"
REVISION = 1


def plan(store: Store, config: EvaluateConfig, finetune: Artifact) -> Plan:
    """Key of the evaluation: the tuned head and the configuration."""
    inputs = {"finetune": finetune}
    return Plan(STAGE, REVISION, config.model_dump(), inputs, {**config.model_dump(), **by_content(inputs)})


def run(store: Store, config: EvaluateConfig, finetune: Artifact, progress: Progress = silent) -> Artifact:
    """Score the test pairs with a ``finetune`` artifact's head and with the baselines.

    Parameters
    ----------
    store : Store
        Where the artifact goes, where an equal one is looked for, and where the inputs are.
    config : EvaluateConfig
        Coverage of the intervals, and the bootstrap.
    finetune : Artifact
        Of the stage ``finetune``.
    progress : Progress
        Told scorers done.

    Raises
    ------
    ValueError
        If an artifact that the head was made from is gone.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        solve = store.resolve(finetune.manifest["inputs"]["solve"])
        pairs = pairs_behind(store, solve)
        evaluation = evaluate_head(
            read_head(finetune.path),
            read_head(solve.path),
            pairs["train"],
            pairs["validation"],
            pairs["test"],
            config,
            beta=finetune.manifest["config"]["beta"],
            progress=progress,
        )
        scores = evaluation.table()
        margins = [pair.margin for pair in evaluation.pairs]
        workspace.write_json("evaluation.json", evaluation.report())
        workspace.write("scores.parquet", lambda path: pq.write_table(pa.Table.from_pylist(scores), path))
        workspace.write("margins.png", lambda path: plot_margin_histogram(margins, path))
        workspace.report = evaluation.report()

    return produce(store, plan(store, config, finetune), compute)
