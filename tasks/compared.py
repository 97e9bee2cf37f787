"""Evaluations of the same pairs, side by side."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_table_artifact
from pydantic import BaseModel, ConfigDict

from coala_core.comparison import compare_paired
from coala_core.lineage import Lineage, ScoredPairs, read_scores
from coala_core.metrics import pair_outcomes
from coala_core.storage import MANIFEST, TIMING, Artifact, Damaged, Store, open_artifact

log = logging.getLogger("coala.compare")

NEWEST = 5
"""Evaluations that are compared where none is named."""


class ComparedHead(BaseModel):
    """One head beside the first one, on the same test pairs."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    """Folder of its evaluation."""
    accuracy: float
    """Share of test pairs in order, ties one half."""
    lead: float | None = None
    """Accuracy minus that of the first head; None for the first itself."""
    low: float | None = None
    """Lower end of the lead's bootstrap interval over whole groups; None where groups are too few."""
    high: float | None = None
    """Upper end."""
    won: int = 0
    """Pairs on which it does better than the first."""
    lost: int = 0
    """Pairs on which it does worse."""


def compare_evaluations(store: Store, evaluations: Sequence[Artifact]) -> list[ComparedHead]:
    """Compare heads with the first of them, pair by pair.

    Parameters
    ----------
    store : Store
        Where the artifacts are that the evaluations were made from.
    evaluations : sequence of Artifact
        Two or more of the stage ``evaluate``; confidence, resamples and seed are those of the first.

    Raises
    ------
    ValueError
        If there are fewer than two, or they are not of the same test pairs.
    """
    if len(evaluations) < 2:
        raise ValueError(
            f"`compare` needs two evaluations of the same test pairs or more, got {len(evaluations)}; "
            "name another folder, or run the pipeline with other settings first."
        )
    first, config = read_scores(evaluations[0]), evaluations[0].manifest["config"]
    digests = [Lineage.of(store, each).test_digest() for each in evaluations]
    for each, digest in zip(evaluations, digests, strict=True):
        if digest != digests[0]:
            raise ValueError(
                f"`compare` needs evaluations of the same test pairs, got others in {each.path}; "
                "evaluate both heads on one split of one data set."
            )
    compared = [ComparedHead(folder=evaluations[0].path, accuracy=_accuracy(first))]
    for each in evaluations[1:]:
        theirs = read_scores(each)
        found = compare_paired(
            pair_outcomes(theirs.chosen, theirs.rejected),
            pair_outcomes(first.chosen, first.rejected),
            first.groups,
            confidence=config["confidence"],
            resamples=config["resamples"],
            seed=config["seed"],
        )
        low, high = found.interval or (None, None)
        compared.append(
            ComparedHead(
                folder=each.path,
                accuracy=_accuracy(theirs),
                lead=found.lead,
                low=low,
                high=high,
                won=found.won,
                lost=found.lost,
            )
        )
    return compared


def newest_evaluations(store: Store, count: int) -> list[Artifact]:
    """Find the newest evaluations of a store that scored the same test pairs as its very newest.

    Parameters
    ----------
    store : Store
    count : int
        How many at most.

    Returns
    -------
    list of Artifact
        The oldest of them first, so that leads are those of what came later. One that is damaged, or whose inputs
        are gone, is passed over and named in the log.
    """
    folders = [path.parent for path in store.root.glob(f"evaluate/*/{MANIFEST}")]
    found: list[Artifact] = []
    wanted: str | None = None
    for folder in sorted(folders, key=_finished_at, reverse=True):
        try:
            each = open_artifact(folder, "evaluate")
            digest = Lineage.of(store, each).test_digest()
        except (ValueError, Damaged) as fault:
            log.warning("%s is passed over: %s", folder, fault)
            continue
        wanted = wanted or digest
        if digest == wanted:
            found.append(each)
        if len(found) == count:
            break
    return found[::-1]


def _finished_at(folder: Path) -> float:
    """When an artifact was finished, without reading its files; 0 where no timing lies beside it."""
    path = folder / TIMING
    return float(json.loads(path.read_text()).get("finished_at", 0.0)) if path.exists() else 0.0


def comparison_table(heads: Sequence[ComparedHead]) -> list[dict[str, str]]:
    """Rows as text, the first head first."""
    return [
        {
            "held-out accuracy": f"{head.accuracy:.3f}",
            "lead": "" if head.lead is None else f"{head.lead:+.3f}",
            "interval": _interval(head),
            "won, lost": "" if head.lead is None else f"{head.won}, {head.lost}",
            "evaluation": str(head.folder),
        }
        for head in heads
    ]


def publish_comparison(heads: Sequence[ComparedHead]) -> None:
    """Put the table on the page of the Prefect run."""
    description = "Each head beside the first one, on the same test pairs; a lead counts where its interval has no 0."
    create_table_artifact(comparison_table(heads), key="comparison", description=description)


def _accuracy(scored: ScoredPairs) -> float:
    return float(pair_outcomes(scored.chosen, scored.rejected).mean())


def _interval(head: ComparedHead) -> str:
    """State the interval, or why there is none."""
    if head.lead is None:
        return "the others are compared with this one"
    return "too few groups" if head.low is None or head.high is None else f"{head.low:+.3f} to {head.high:+.3f}"
