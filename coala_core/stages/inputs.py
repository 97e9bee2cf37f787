"""The pairs behind an artifact, found through the references and settings that manifests keep."""

from __future__ import annotations

from typing import Any

from coala_core.config import Pooling
from coala_core.features import read_pairs
from coala_core.pairs import PairFeatures
from coala_core.scratch import Scratch
from coala_core.splits import Split
from coala_core.storage import Artifact, Store


def pairs_of(
    store: Store, embed: Artifact, split: Artifact, layer: int, pooling: Pooling, scratch: Scratch | None = None
) -> dict[Split, PairFeatures]:
    """Join one layer and pooling of the embeddings and a split with the triplets that the split was made from.

    Raises
    ------
    ValueError
        If the triplets are gone, the layer or the pooling is not stored, or embeddings and split do not hold the same
        pairs.
    """
    triplets = store.resolve(split.manifest["inputs"]["triplets"])
    return read_pairs(embed.path, split.path, triplets.path, layer, pooling, scratch)


def pairs_behind(store: Store, solve: Artifact) -> dict[Split, PairFeatures]:
    """Join the embeddings, at the layer and pooling that the head takes, and the split of a ``solve`` artifact.

    Raises
    ------
    ValueError
        If one of them is gone, or an earlier version wrote the artifact.
    """
    layer, pooling = (setting(solve, name) for name in ("layer", "pooling"))
    embed, split = (store.resolve(solve.manifest["inputs"][name]) for name in ("embed", "split"))
    return pairs_of(store, embed, split, layer, pooling)


def setting(artifact: Artifact, name: str) -> Any:
    """One setting that an artifact was made with.

    Raises
    ------
    ValueError
        If the artifact was made by a version that did not have the setting.
    """
    config = artifact.manifest["config"]
    if name not in config:
        raise ValueError(
            f"`{artifact.path}` must state the setting `{artifact.stage}.{name}`, got an artifact of an earlier "
            f"version; run the {artifact.stage} stage again"
        )
    return config[name]
