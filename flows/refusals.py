"""What is refused before hours of work, because what comes after could not use it."""

from __future__ import annotations

from pathlib import Path

from coala_core.config import DataConfig, PipelineConfig
from coala_core.estimate import require_room, triplets_bytes
from coala_core.sources import resolve_conversations
from coala_core.stages import embed
from coala_core.stages.solve import require_stored
from coala_core.storage import Artifact, Store


def require_embedded(config: PipelineConfig, triplets: Artifact) -> None:
    """Refuse a run without a language model whose features are not there.

    Raises
    ------
    ValueError
        If no intact ``embed`` artifact of these triplets and settings is in the store.
    """
    store = Store(config.store)
    if not store.is_intact(embed.STAGE, embed.plan(store, config.embed, triplets).key):
        raise ValueError(
            f"`coala_head` needs features that are stored, got none of these triplets and `embed` settings in "
            f"{store.root}; run `coala run` with them once."
        )


def refuse_full_disk(config: DataConfig) -> None:
    """Refuse data that the store's disk has no room for; each later stage looks again when it knows its own size.

    Raises
    ------
    NoRoom
        If triplets of the files would not fit.
    """
    files = [Path(file.address) for file in resolve_conversations(config.triplets.conversations)]
    stored = sum(path.stat().st_size for path in files if path.is_file())  # what lies elsewhere has no size yet
    require_room(Path(config.store), triplets_bytes(stored), "triplets")


def refuse_unstored(config: PipelineConfig) -> None:
    """Refuse to embed for hours what the solve then cannot use.

    Raises
    ------
    ValueError
        If `solve.layer` or `solve.pooling` is not among what `embed` is told to store.
    """
    # Only the model's depth tells which layer empty `embed.layers` stand for; then the stage's own check must do.
    layers = config.embed.layers or [config.solve.layer or 1]
    require_stored(config.solve, layers, config.embed.poolings)
