"""Stage ``solve``, Phase I: a path of convex heads, and the one that does best on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from coala_core.config import Pooling, SolveConfig
from coala_core.cvxnn import Path as WeightPath
from coala_core.cvxnn import Solution, fit_path, needs_disk
from coala_core.estimate import require_room, scratch_bytes
from coala_core.feature_table import features_shape
from coala_core.features import stack_rows
from coala_core.heads import WEIGHTS, write_head
from coala_core.interruption import deferred_signals
from coala_core.metrics import pair_accuracy
from coala_core.pairs import PairFeatures
from coala_core.plots import plot_path, plot_residuals
from coala_core.progress import Progress, silent
from coala_core.scratch import Scratch
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.inputs import pairs_of, setting
from coala_core.storage import Artifact, Store, Workspace

STAGE = "solve"
REVISION = 7

logger = logging.getLogger("coala.stages")


def plan(store: Store, config: SolveConfig, embed: Artifact, split: Artifact) -> Plan:
    """Key of the head: embeddings, split and configuration, with the layer and the pooling that empty ones stand for.

    Raises
    ------
    ValueError
        If the layer or the pooling is not stored.
    """
    layers, poolings = setting(embed, "layers"), setting(embed, "poolings")
    require_stored(config, layers, poolings)
    filled = {"layer": config.layer or layers[0], "pooling": config.pooling or poolings[0]}
    settings = {**config.model_dump(), **filled}
    inputs = {"embed": embed, "split": split}
    return Plan(STAGE, REVISION, settings, inputs, {**settings, **by_content(inputs)})


def require_stored(config: SolveConfig, layers: Sequence[int], poolings: Sequence[str]) -> None:
    """Refuse a layer or a pooling that embeddings do not hold.

    Parameters
    ----------
    config : SolveConfig
        Layer and pooling asked for; empty ones are always held.
    layers, poolings : sequence
        What the embeddings hold.

    Raises
    ------
    ValueError
        If the layer, or a part of the pooling, is not among them.
    """
    if config.layer is not None and config.layer not in layers:
        raise ValueError(
            f"`solve.layer` must be one of the stored layers {', '.join(map(str, layers))}, got {config.layer}; "
            "choose one of them or add it to `embed.layers`"
        )
    if config.pooling is not None and not set(config.pooling.split("+")) <= set(poolings):
        raise ValueError(
            f"`solve.pooling` must be made of the stored poolings {', '.join(poolings)}, got {config.pooling}; "
            "choose one of them or add what is missing to `embed.poolings`"
        )


def run(store: Store, config: SolveConfig, embed: Artifact, split: Artifact, progress: Progress = silent) -> Artifact:
    """Fit the path on the training split and keep the head that orders the most validation pairs rightly.

    After Ctrl-C or SIGTERM the best head so far is left in the artifact's unfinished folder, which is no artifact,
    a warning names the file, and the signal takes its course; the next run starts anew.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : SolveConfig
        Layer and pooling of the features, gates, path, tolerance.
    embed, split : Artifact
        Of the stages of these names, on the same pairs.
    progress : Progress
        Told sweeps done.

    Raises
    ------
    ValueError
        If the layer or the pooling is not stored, embeddings and split do not belong together, or the features
        cannot be fitted.
    """
    planned = plan(store, config, embed, split)
    layer, pooling = planned.config["layer"], planned.config["pooling"]

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        shape = features_shape(embed.path, layer, pooling)
        require_room(workspace.path, scratch_bytes(*shape, config), STAGE)
        scratch = _scratch(workspace, config, *shape)
        placed = config.model_copy(update={"storage": "disk"}) if scratch else config
        pairs = pairs_of(store, embed, split, layer, pooling, scratch)
        features, labels = stack_rows(pairs["train"], scratch)
        with deferred_signals() as interrupted:
            path = fit_path(features, labels, placed, progress, stop=interrupted, scratch=workspace.path)
            rows = [_path_row(solution, path, pairs) for solution in path.solutions]
            best = choose_solution(rows)
            _write_head(workspace, path, rows, best, head_card(embed, layer, pooling))
            if interrupted():
                logger.warning("solve: interrupted; the best head so far is `%s`", workspace.path / WEIGHTS)
        _write_rest(workspace, path, rows, best)

    return produce(store, planned, compute)


def _scratch(workspace: Workspace, config: SolveConfig, pairs: int, width: int) -> Scratch | None:
    """Where to put features that do not fit into memory, beside the artifact; None where they do."""
    if not needs_disk(2 * pairs, width, config):
        return None
    logger.info("solve: features of %d pairs are kept on disk, in `%s`", pairs, workspace.path)
    return Scratch(workspace.path)


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


def _write_head(
    workspace: Workspace, path: WeightPath, rows: list[dict[str, Any]], best: int, card: dict[str, Any]
) -> None:
    whole = {"phase": 1, "embed": card, "solve": _report(path, rows, best)}
    write_head(workspace, path.solutions[best].head, whole)
    workspace.write_json("path.json", rows)


def _write_rest(workspace: Workspace, path: WeightPath, rows: list[dict[str, Any]], best: int) -> None:
    solution, report = path.solutions[best], _report(path, rows, best)
    history = [asdict(record) for record in solution.history]
    workspace.write_json("history.json", history)
    workspace.write("path.png", lambda target: plot_path(rows, target, chosen=solution.lasso_weight))
    workspace.write("residuals.png", lambda target: plot_residuals(history, target))
    unconverged = [row["lasso_weight"] for row in rows if row["status"] != "CONVERGED"]
    workspace.report = {**report, "total_sweeps": sum(row["sweeps"] for row in rows), "unconverged": unconverged}


def head_card(embed: Artifact, layer: int, pooling: Pooling) -> dict[str, Any]:
    """Tell what a stored head has to know of the embeddings that it takes."""
    keep = ("model", "model_fingerprint", "depth", "hidden_size", "has_chat_template")
    card = {name: embed.report[name] for name in keep}
    return {**card, "layer": layer, "pooling": pooling, "max_tokens": setting(embed, "max_tokens")}
