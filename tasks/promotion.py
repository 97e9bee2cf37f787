"""Promote a head: it becomes the champion only when it beats the champion on the same pairs, by more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from coala_core.comparison import Comparison, compare_paired, fewest_groups
from coala_core.lineage import Lineage, ScoredPairs, read_scores
from coala_core.metrics import pair_outcomes
from coala_core.quality import inert
from coala_core.storage import Artifact, Store, open_artifact
from tasks.logged_model import HEAD_TAG
from tasks.notes import note
from tasks.registry import ARTIFACTS_TAG, CHAMPION, Registry, checked_name, one_sentence

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "coala.evaluation_digest"
EVALUATE_TAG = "coala.evaluate"

FloatArray = NDArray[np.float64]


class Promotion(BaseModel):
    """What became of a candidate."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Registered model."""
    version: str | None
    """The candidate's version; None in a dry run that would have made one."""
    champion: bool
    """Whether the candidate is the champion now, or would be."""
    reason: str
    """Why, in a sentence."""
    against: str | None
    """Version that was the champion before, if there was one."""
    lead: float | None
    """Accuracy minus that of the champion, or minus one half; None where it was the champion already."""
    lead_low: float | None
    """Lower end of the interval of `lead`; None where groups are too few for one."""
    lead_high: float | None
    """Upper end."""
    evaluation_digest: str
    """Digest of the test pairs."""
    dry_run: bool
    """Whether nothing was written."""


@task(name="promote")
def promote_task(store: str, run: str, name: str, dry_run: bool) -> Promotion:
    """Register a candidate and compare it with the champion; the rule is `promote`'s."""
    promotion = promote(Store(store), run, name, dry_run=dry_run)
    create_markdown_artifact(promotion_note(promotion), key="promotion", description=inert(promotion.reason))
    return promotion


def promote(store: Store, run: str, name: str, *, dry_run: bool = False, uri: str | None = None) -> Promotion:
    """Register a run's head as ``candidate``, and move ``champion`` to it if it has earned that.

    Both heads are scored on the candidate's test pairs, ties as one half. The candidate becomes champion when the
    bootstrap interval of the difference of accuracies, paired and over whole groups, lies above 0. Without a champion
    it must beat guessing in the same way. Coverage, resamples and seed are those of the candidate's evaluation.

    Parameters
    ----------
    store : Store
        Where the candidate's artifacts are.
    run : str
        Folder of an ``evaluate`` artifact, or a recorded run (`Registry.evaluation`).
    name : str
        Registered model.
    dry_run : bool
        Decide, but write nothing.
    uri : str, optional
        MLflow's address.

    Raises
    ------
    ValueError
        If the run, its artifacts or its model are not to be had, or the champion cannot be scored on the same pairs.
    ConnectionError
        If MLflow does not answer or refuses.
    """
    checked_name(name)
    registry = Registry(store.root, uri)
    # Of two promotions at once the second compares with what the first one left.
    with one_sentence(registry.uri), store.lock("registry", name):
        lineage = Lineage.of(store, _evaluation(store, registry, run))
        model = registry.logged_head(lineage.finetune.sha256)
        champion = registry.aliased(name, CHAMPION)
        digest = lineage.test_digest()
        if champion is not None and champion.tags.get(HEAD_TAG) == lineage.finetune.sha256:
            return _no_change(champion, digest, dry_run)
        comparison = _compare(store, registry, lineage, champion, digest)
        version = None if dry_run else registry.register(name, model)
        promotion = _decision(name, version, champion, comparison, digest, dry_run)
        if version is not None:
            _write_down(registry, version, promotion, lineage)
        return promotion


def promotion_note(promotion: Promotion) -> str:
    """Describe a promotion in Markdown."""
    # In the past tense: a later version may take the alias.
    outcome = "became the champion" if promotion.champion else "was registered as a candidate"
    version = "The head" if promotion.version is None else f"Version {promotion.version}"
    dry = " Not really: this was a dry run, nothing was written." if promotion.dry_run else ""
    facts: dict[str, object] = {"model": promotion.name, "reason": promotion.reason}
    if promotion.against is not None:
        facts["compared with"] = f"version {promotion.against}"
    return note(f"{version} {outcome}.{dry}", (facts | {"test pairs": promotion.evaluation_digest[:12]}).items())


def _evaluation(store: Store, registry: Registry, run: str) -> Artifact:
    """Open a folder, or find a run."""
    return open_artifact(run, "evaluate") if Path(run).expanduser().is_dir() else registry.evaluation(store, run)


def _compare(
    store: Store, registry: Registry, lineage: Lineage, champion: ModelVersion | None, digest: str
) -> Comparison:
    """Compare the candidate with the champion on the candidate's test pairs, or with guessing."""
    scored, config = read_scores(lineage.evaluate), lineage.evaluate.manifest["config"]
    rival = None if champion is None else _champion_outcomes(store, registry, lineage, champion, digest, scored)
    return compare_paired(
        pair_outcomes(scored.chosen, scored.rejected),
        rival,
        scored.groups,
        confidence=config["confidence"],
        resamples=config["resamples"],
        seed=config["seed"],
    )


def _champion_outcomes(
    store: Store, registry: Registry, lineage: Lineage, champion: ModelVersion, digest: str, scored: ScoredPairs
) -> FloatArray:
    """Score the champion on the candidate's test pairs: on the same features, or as its own evaluation did."""
    head, embedding = registry.read_head(champion)
    if embedding.same_features(lineage.embedding):
        test = lineage.test_pairs(store)
        return pair_outcomes(head.score(test.chosen), head.score(test.rejected))
    if champion.tags.get(DIGEST_TAG) != digest:
        raise ValueError(
            f"`promote` needs champion and candidate scored on the same test pairs, got version {champion.version} of "
            f"{champion.name}, whose pairs and features are both others; evaluate them on one data set, or choose "
            "another --name."
        )
    theirs = read_scores(store.resolve(json.loads(champion.tags[EVALUATE_TAG])))
    return pair_outcomes(theirs.chosen, theirs.rejected)


def _no_change(champion: ModelVersion, digest: str, dry_run: bool) -> Promotion:
    """State that the candidate is the champion already."""
    return Promotion(
        name=champion.name,
        version=str(champion.version),
        champion=True,
        reason=f"Version {champion.version} holds this head and is the champion already.",
        against=None,
        lead=None,
        lead_low=None,
        lead_high=None,
        evaluation_digest=digest,
        dry_run=dry_run,
    )


def _decision(
    name: str,
    version: ModelVersion | None,
    champion: ModelVersion | None,
    comparison: Comparison,
    digest: str,
    dry_run: bool,
) -> Promotion:
    """State who is the champion now."""
    low, high = comparison.interval or (None, None)
    return Promotion(
        name=name,
        version=None if version is None else str(version.version),
        champion=comparison.better,
        reason=_reason(comparison, "guessing" if champion is None else f"version {champion.version}"),
        against=None if champion is None else str(champion.version),
        lead=comparison.lead,
        lead_low=low,
        lead_high=high,
        evaluation_digest=digest,
        dry_run=dry_run,
    )


def _reason(comparison: Comparison, rival: str) -> str:
    """Say how the comparison went."""
    where = f"on {comparison.pairs} test pairs of {comparison.groups} groups"
    ahead = f"Accuracy {comparison.lead:+.3f} against {rival} {where}"
    if comparison.interval is None:
        fewest = fewest_groups(comparison.confidence)
        return f"{ahead}; {fewest} groups are the fewest that can tell this from chance at {comparison.confidence:.0%}."
    low, high = comparison.interval
    verdict = "lies above 0" if comparison.better else "does not lie above 0"
    return f"{ahead}; the {comparison.confidence:.0%} interval over groups [{low:+.3f}, {high:+.3f}] {verdict}."


def _write_down(registry: Registry, version: ModelVersion, promotion: Promotion, lineage: Lineage) -> None:
    """Move the alias if earned, and write the reason on the version."""
    evaluate = lineage.evaluate
    reference = {"stage": evaluate.stage, "key": evaluate.key, "sha256": evaluate.sha256}
    tags = {
        "coala.decision": "promoted" if promotion.champion else "kept as candidate",
        "coala.reason": promotion.reason,
        "coala.against": promotion.against or "guessing",
        "coala.lead": f"{promotion.lead:.6f}",
        DIGEST_TAG: promotion.evaluation_digest,
        EVALUATE_TAG: json.dumps(reference),
        ARTIFACTS_TAG: json.dumps(lineage.keys),
    }
    # Described first: whoever sees the alias move finds the reason there.
    registry.describe(version, promotion_note(promotion), tags)
    if promotion.champion:
        registry.point(promotion.name, CHAMPION, version.version)
