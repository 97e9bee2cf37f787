"""Heads that a run leaves, as models to record, and how they did."""

from __future__ import annotations

from typing import Any

from coala_core.lineage import Lineage, head_embedding
from coala_core.storage import Artifact, Store
from tasks.events import HeadModel
from tasks.measures import head_metrics
from tasks.notes import NOTE, note
from tasks.tracker import Tracker

PHASES = {"solve": 1, "finetune": 2}
"""Phase whose head a stage leaves."""

TEST_PAIRS = "test pairs"
"""Name under which MLflow has the pairs that heads are scored on."""


def head_model(store: Store, artifact: Artifact) -> HeadModel | None:
    """Describe the head of a ``solve`` or ``finetune`` artifact; None for other stages.

    Raises
    ------
    ValueError
        If an artifact that the head was made from is gone.
    """
    if artifact.stage not in PHASES:
        return None
    solve = artifact if artifact.stage == "solve" else store.resolve(artifact.manifest["inputs"]["solve"])
    embed = store.resolve(solve.manifest["inputs"]["embed"])
    embedding = head_embedding(solve, embed)
    phase = PHASES[artifact.stage]
    made: dict[str, Any] = {part.stage: part.manifest["config"] for part in (solve, artifact)}
    facts = {
        "language model": embed.report["model"],
        "layer": embedding.layer,
        "pooling": embedding.pooling,
        "artifact": f"{artifact.stage}/{artifact.key}",
    }
    serve = (
        "Serve it with `mlflow models serve --env-manager local`; the weights are plain safetensors beside `head.json`."
    )
    return HeadModel(
        name=f"head-phase-{phase}",
        folder=artifact.path,
        sha256=artifact.sha256,
        embedding=embedding.model_dump(),
        params=made | {"embedding": embedding.model_dump()},
        tags={
            "coala.key": artifact.key,
            "coala.phase": str(phase),
            "coala.embed": embed.sha256,
            NOTE: note(f"Preference head after Phase {phase}. {serve}", facts.items()),
        },
    )


def log_verdict(tracker: Tracker, store: Store, evaluate: Artifact) -> str:
    """Record how both heads did on the test pairs, beside the heads; returns the digest of the pairs.

    Raises
    ------
    ValueError
        If an artifact that the verdict comes from is gone.
    """
    digest = Lineage.of(store, evaluate).test_digest()
    report = evaluate.report
    tracker.log_scores("solve", head_metrics(report, "phase_one_head"), (TEST_PAIRS, digest))
    tracker.log_scores("finetune", head_metrics(report), (TEST_PAIRS, digest))
    return digest
