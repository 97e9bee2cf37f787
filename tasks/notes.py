"""Descriptions of runs, models and versions in MLflow, as Markdown in which foreign text is inert."""

from __future__ import annotations

from collections.abc import Iterable

from coala_core.quality import inert
from coala_core.storage import Artifact

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a description."""

PURPOSES = {
    "generate": "Conversations between two language-model agents.",
    "triplets": "Conversations became pairs of a chosen and a rejected reply to one prompt.",
    "split": "Whole groups of pairs went to train, validation and test.",
    "quality": "What the pairs are like, and whether they are worth training on.",
    "embed": "The frozen language model turned every response into features.",
    "solve": "Phase I: convex heads over a path of weights, the best on the validation split kept, its gap certified.",
    "finetune": "Phase II: the head's last layer tuned by AdamW on the COALA loss.",
    "evaluate": "The test split, scored once by the head and by three baselines.",
}
"""What each stage does, in a sentence."""


def stage_note(artifact: Artifact, *, reused: bool) -> str:
    """Describe the run of a stage: what it does, whether it was computed, and where its files are."""
    made = "reused from an earlier run" if reused else f"computed in {artifact.seconds:.1f} s"
    facts = {"artifact": f"{artifact.stage}/{artifact.key}", "digest": artifact.sha256[:12], "folder": artifact.path}
    return note(f"{PURPOSES.get(artifact.stage, artifact.stage)} This one was {made}.", facts.items())


def note(sentence: str, facts: Iterable[tuple[str, object]]) -> str:
    """Write a sentence of ours and a table of facts, which may hold foreign text."""
    rows = [f"| {inert(name)} | {inert(str(value))} |" for name, value in facts]
    return "\n".join([sentence, "", "| | |", "| --- | --- |", *rows]) + "\n"
