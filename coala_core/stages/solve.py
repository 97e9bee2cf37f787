"""Stage ``solve``, Phase I: a path of convex heads, and the one that does best on the validation split."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from coala_core.config import SolveConfig
from coala_core.cvxnn import Path as WeightPath
from coala_core.cvxnn import Solution, fit_path
from coala_core.features import stack_rows
from coala_core.heads import WEIGHTS, write_head
from coala_core.interruption import deferred_signals
from coala_core.metrics import pair_accuracy
from coala_core.pairs import PairFeatures
from coala_core.plots import plot_path, plot_residuals
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.inputs import pairs_of
from coala_core.storage import Artifact, Store, Workspace

STAGE = "solve"
REVISION = 1

logger = logging.getLogger("coala.stages")


def plan(store: Store, config: SolveConfig, embed: Artifact, split: Artifact) -> Plan:
    """Key of the head: embeddings, split and configuration."""
    inputs = {"embed": embed, "split": split}
    return Plan(STAGE, REVISION, config.model_dump(), inputs, {**config.model_dump(), **by_content(inputs)})


def run(store: Store, config: SolveConfig, embed: Artifact, split: Artifact, progress: Progress = silent) -> Artifact:
    """Fit the path on the training split and keep the head that orders the most validation pairs rightly.

    After Ctrl-C or SIGTERM the best head so far is left in the artifact's unfinished folder, which is no artifact,
    a warning names the file, and the signal takes its course; the next run starts anew.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : SolveConfig
        Gates, path, tolerance.
    embed, split : Artifact
        Of the stages of these names, on the same pairs.
    progress : Progress
        Told sweeps done.

    Raises
    ------
    ValueError
        If embeddings and split do not belong together, or the features cannot be fitted.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        pairs = pairs_of(store, embed, split)
        features, labels = stack_rows(pairs["train"])
        with deferred_signals() as interrupted:
            path = fit_path(features, labels, config, progress, stop=interrupted)
            rows = [_path_row(solution, path, pairs) for solution in path.solutions]
            best = choose_solution(rows)
            _write_head(workspace, path, rows, best, embed)
            if interrupted():
                logger.warning("solve: interrupted; the best head so far is `%s`", workspace.path / WEIGHTS)
        _write_rest(workspace, path, rows, best)

    return produce(store, plan(store, config, embed, split), compute)


def choose_solution(rows: list[dict[str, Any]]) -> int:
    """Index of the path's row with the highest validation accuracy; of equals the largest weight.

    Heads without neurons order nothing and are passed over unless there is no other.
    """
    return max(range(len(rows)), key=lambda i: (rows[i]["neurons"] > 0, rows[i]["validation_accuracy"], -i))


def _path_row(solution: Solution, path: WeightPath, pairs: dict[Any, PairFeatures]) -> dict[str, Any]:
    head = solution.head
    accuracy = {
        name: pair_accuracy(head.score(pairs[name].chosen), head.score(pairs[name].rejected)).accuracy
        for name in ("train", "validation")
    }
    return {
        "lasso_weight": solution.lasso_weight,
        "share": solution.lasso_weight / path.zero_weight,
        "train_accuracy": accuracy["train"],
        "validation_accuracy": accuracy["validation"],
        "neurons": len(head.second_weight),
        "status": solution.status.name,
        "gap": solution.gap,
        "lower_bound": solution.lower_bound,
        "upper_bound": solution.upper_bound,
        "cone_violation": solution.cone_violation,
        "network_objective": solution.network_objective,
        "sweeps": solution.sweeps,
        "refactorisations": solution.refactorisations,
        "constant_columns": solution.constant_columns,
    }


def _report(path: WeightPath, rows: list[dict[str, Any]], best: int) -> dict[str, Any]:
    status = path.solutions[best].status
    known = {"status_text": str(status), "zero_weight": path.zero_weight, "unsolved": list(path.unsolved)}
    return {**rows[best], **known}


def _write_head(workspace: Workspace, path: WeightPath, rows: list[dict[str, Any]], best: int, embed: Artifact) -> None:
    card = {"phase": 1, "embed": head_card(embed), "solve": _report(path, rows, best)}
    write_head(workspace, path.solutions[best].head, card)
    workspace.write_json("path.json", rows)


def _write_rest(workspace: Workspace, path: WeightPath, rows: list[dict[str, Any]], best: int) -> None:
    solution, report = path.solutions[best], _report(path, rows, best)
    history = [asdict(record) for record in solution.history]
    workspace.write_json("history.json", history)
    workspace.write("path.png", lambda target: plot_path(rows, target, chosen=solution.lasso_weight))
    workspace.write("residuals.png", lambda target: plot_residuals(history, target))
    unconverged = [row["lasso_weight"] for row in rows if row["status"] != "CONVERGED"]
    workspace.report = {**report, "total_sweeps": sum(row["sweeps"] for row in rows), "unconverged": unconverged}


def head_card(embed: Artifact) -> dict[str, Any]:
    """Tell what a stored head has to know of the embeddings that it takes."""
    report, config = embed.report, embed.manifest["config"]
    keep = ("model", "model_fingerprint", "layer", "depth", "hidden_size", "has_chat_template")
    return {**{name: report[name] for name in keep}, "pooling": config["pooling"], "max_tokens": config["max_tokens"]}
