"""The pairs behind an artifact, found through the references that manifests keep."""

from __future__ import annotations

from coala_core.features import read_pairs
from coala_core.pairs import PairFeatures
from coala_core.splits import Split
from coala_core.storage import Artifact, Store


def pairs_of(store: Store, embed: Artifact, split: Artifact) -> dict[Split, PairFeatures]:
    """Join embeddings and a split with the triplets that the split was made from.

    Raises
    ------
    ValueError
        If the triplets are gone, or embeddings and split do not hold the same pairs.
    """
    triplets = store.resolve(split.manifest["inputs"]["triplets"])
    return read_pairs(embed.path, split.path, triplets.path)


def pairs_behind(store: Store, solve: Artifact) -> dict[Split, PairFeatures]:
    """Join the embeddings and the split that a ``solve`` artifact was made from.

    Raises
    ------
    ValueError
        If one of them is gone.
    """
    embed, split = (store.resolve(solve.manifest["inputs"][name]) for name in ("embed", "split"))
    return pairs_of(store, embed, split)
