"""The artifacts behind an evaluation, and what identifies its test pairs and its features."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.embed.shards import scan_texts
from coala_core.pairs import PairFeatures
from coala_core.scorer import HeadEmbedding
from coala_core.stages.inputs import pairs_behind, setting
from coala_core.storage import Artifact, Store, digest


@dataclass(frozen=True)
class Lineage:
    """Every artifact that an evaluation comes from, found through the references that manifests keep."""

    triplets: Artifact
    split: Artifact
    embed: Artifact
    solve: Artifact
    finetune: Artifact
    evaluate: Artifact

    @classmethod
    def of(cls, store: Store, evaluate: Artifact) -> Lineage:
        """Follow the references of an ``evaluate`` artifact.

        Raises
        ------
        ValueError
            If an artifact that it comes from is gone.
        """
        finetune = store.resolve(evaluate.manifest["inputs"]["finetune"])
        solve = store.resolve(finetune.manifest["inputs"]["solve"])
        embed, split = (store.resolve(solve.manifest["inputs"][name]) for name in ("embed", "split"))
        triplets = store.resolve(split.manifest["inputs"]["triplets"])
        return cls(triplets, split, embed, solve, finetune, evaluate)

    @property
    def keys(self) -> dict[str, str]:
        """Key of each artifact, by stage."""
        return {field.name: getattr(self, field.name).key for field in fields(self)}

    @property
    def embedding(self) -> HeadEmbedding:
        """The features that the head takes."""
        return head_embedding(self.solve, self.embed)

    def test_pairs(self, store: Store) -> PairFeatures:
        """Features of the test pairs, in the order of their ids."""
        return pairs_behind(store, self.solve)["test"].sorted_by_id()

    def test_digest(self) -> str:
        """Digest of the test pairs, texts and ids: evaluations of equal digest scored the same pairs.

        Returns
        -------
        str
            SHA-256 in hex.
        """
        return scored_digest(self.evaluate, self.triplets)


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """What an evaluation scored, in the order of the pair ids."""

    pair_ids: list[str]
    groups: list[str]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]


def read_scores(evaluate: Artifact) -> ScoredPairs:
    """Read the scores of an ``evaluate`` artifact."""
    table = pq.read_table(evaluate.path / "scores.parquet").sort_by("pair_id")
    return ScoredPairs(
        table["pair_id"].to_pylist(),
        table["group"].to_pylist(),
        table["chosen_score"].to_numpy().astype(np.float64),
        table["rejected_score"].to_numpy().astype(np.float64),
    )


def scored_digest(evaluate: Artifact, triplets: Artifact) -> str:
    """Digest of the pairs that an evaluation scored; see `Lineage.test_digest`."""
    texts = scan_texts(triplets.path / "triplets.parquet")
    keys = dict(zip(texts.pair_ids, texts.keys, strict=True))
    return digest([[pair, keys[pair]] for pair in read_scores(evaluate).pair_ids])


def head_embedding(solve: Artifact, embed: Artifact) -> HeadEmbedding:
    """Say which features the head of a ``solve`` artifact, and every head tuned from it, takes."""
    model, fingerprint = setting(embed, "model"), embed.report["model_fingerprint"]
    folder = Path(model).expanduser()
    name, at, commit = fingerprint.rpartition("@")
    return HeadEmbedding(
        model=str(folder.resolve()) if folder.is_dir() else model,  # who serves the head works in another folder
        revision=commit if at and name == model else setting(embed, "revision"),  # a branch may move on
        fingerprint=fingerprint,
        layer=setting(solve, "layer"),
        pooling=setting(solve, "pooling"),
        max_tokens=setting(embed, "max_tokens"),
        dtype=setting(embed, "dtype"),
    )
