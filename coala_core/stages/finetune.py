"""Stage ``finetune``, Phase II: the last layer on the COALA loss."""

from __future__ import annotations

import json

from coala_core.config import FinetuneConfig
from coala_core.finetune import finetune_head
from coala_core.heads import CARD, read_head, write_head
from coala_core.plots import plot_margins_over_epochs
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.inputs import pairs_behind
from coala_core.storage import Artifact, Store, Workspace

STAGE = "finetune"
REVISION = 1


def plan(store: Store, config: FinetuneConfig, solve: Artifact) -> Plan:
    """Key of the tuned head: the Phase I head and the configuration."""
    inputs = {"solve": solve}
    return Plan(STAGE, REVISION, config.model_dump(), inputs, {**config.model_dump(), **by_content(inputs)})


def run(store: Store, config: FinetuneConfig, solve: Artifact, progress: Progress = silent) -> Artifact:
    """Tune the last layer of a ``solve`` artifact's head on the embeddings and split it was made from.

    Parameters
    ----------
    store : Store
        Where the artifact goes, where an equal one is looked for, and where the embeddings are.
    config : FinetuneConfig
        Loss, beta, gamma and AdamW's settings.
    solve : Artifact
        Of the stage ``solve``.
    progress : Progress
        Told epochs done.

    Raises
    ------
    ValueError
        If the head has no neuron, or an artifact that it was made from is gone.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        pairs = pairs_behind(store, solve)
        result = finetune_head(read_head(solve.path), pairs["train"], pairs["validation"], config, progress)
        card = json.loads((solve.path / CARD).read_text(encoding="utf-8"))
        report = result.report()
        write_head(workspace, result.head, {**card, "phase": 2, "finetune": report, "beta": config.beta})
        workspace.write_json("history.json", result.history)
        workspace.write("margins.png", lambda path: plot_margins_over_epochs(result.history, path))
        workspace.report = {**report, **_kept_metrics(result.history[result.kept_epoch])}

    return produce(store, plan(store, config, solve), compute)


def _kept_metrics(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}
