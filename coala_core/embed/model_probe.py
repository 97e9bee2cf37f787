"""What a language model can do, found out by short forward passes rather than by its name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from coala_core.config import EmbedConfig
from coala_core.embed.model_source import quiet_transformers
from coala_core.embed.prefix_tree import pack_batches

if TYPE_CHECKING:
    from coala_core.embed.language_model import LanguageModel

logger = logging.getLogger("coala.model")

_TRUNK = 24
_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-1}
"""Largest relative difference of a token's state that is taken for rounding; a leak between branches moves it by its
own size."""


def check_causal(model: LanguageModel, config: EmbedConfig) -> None:
    """Refuse models in which later tokens, padding among them, move the states of earlier ones.

    Raises
    ------
    ValueError
        If the model is not causal.
    """
    import torch

    later = torch.stack([torch.zeros(15, dtype=torch.int64), torch.arange(1, 16) % model.vocabulary])
    ids = torch.nn.functional.pad(later, (1, 0)).to(model.device)
    with torch.inference_mode():
        for states in model.hidden_states(ids):
            first, second = states[:, 0].float()
            if (first - second).norm() > 1e-2 * first.norm():
                raise ValueError(
                    f"`embed.model={config.model}` must be a causal language model, got {type(model.model).__name__}, "
                    "whose earlier states depend on later tokens; choose a decoder"
                )


def why_unshared(model: LanguageModel, config: EmbedConfig) -> str | None:
    """Say why common prefixes cannot be computed once; None if they can.

    A small tree is computed along its branches and one sequence a row, and the states are compared: that
    finds models whose layers mix neighbours of the row in a way other than attention.

    Parameters
    ----------
    model : LanguageModel
        Ready to run.
    config : EmbedConfig
        Whether sharing is wished, and the window.
    """
    if not config.share_prefixes:
        return "switched off by `embed.share_prefixes`"
    try:
        with quiet_transformers():
            difference = _largest_difference(model)
    except (NotImplementedError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = str(error) or type(error).__name__
    else:
        if difference <= _ROUNDING[str(model.dtype).removeprefix("torch.")]:
            reason = _limited_by_a_mask(model, config)
        else:
            reason = f"along a tree its states differ by {difference:.1e} from those of a plain forward pass"
    if reason:
        logger.warning("common prefixes are not shared with %s: %s", type(model.model).__name__, reason)
    return reason or None


def _largest_difference(model: LanguageModel) -> float:
    """Largest relative difference, over layers and tokens, between states along a tree and alone; NaN if one is."""
    import torch

    tokens = (np.arange(3 * _TRUNK) * 7 + 3) % model.vocabulary
    trunk, one, two = ([int(token) for token in part] for part in tokens.reshape(3, _TRUNK))
    sequences = [trunk, trunk[:10] + one, trunk[:10] + one[:5] + two[:9], trunk[:17] + two, trunk[:4]]
    (batch,) = pack_batches(sequences, budget=1000)
    rows = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        rows[row, : len(sequence)] = torch.tensor(sequence)
    differences = []
    with torch.inference_mode():
        packed, alone = model.packed_states(batch), model.hidden_states(rows.to(model.device))
        for row, path in zip(batch.rows, batch.paths, strict=True):
            for tree, states in zip(packed, alone, strict=True):
                along = torch.cat([tree[start : start + length] for start, length in path]).float()
                plain = states[row, : len(along)].float()
                # Token by token: some models have a first token whose state is a hundred times the others.
                differences.append(((along - plain).norm(dim=-1) / plain.norm(dim=-1).clamp_min(1e-9)).max())
    return float(torch.stack(differences).max())


def _limited_by_a_mask(model: LanguageModel, config: EmbedConfig) -> str:
    """Find limits of attention that act beyond the probe and that the layers did not hand to the tree."""
    if not model.windows:
        return "its attention is built in and cannot be replaced"
    decoder: Any = model.model.config.get_text_config()
    window = getattr(decoder, "sliding_window", None) if getattr(decoder, "use_sliding_window", True) else None
    kinds = getattr(decoder, "layer_types", None) or ["sliding_attention"]
    if "sliding_attention" not in kinds[: max(model.layers)] or window in model.windows:
        window = None
    limits = [limit for limit in (window, getattr(decoder, "attention_chunk_size", None)) if limit]
    if limits and min(limits) < config.max_tokens:
        return f"its attention is limited to {min(limits)} tokens by a mask of its own"
    return ""
