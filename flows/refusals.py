"""What is refused before hours of work, because what comes after could not use it."""

from __future__ import annotations

from coala_core.config import PipelineConfig
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
