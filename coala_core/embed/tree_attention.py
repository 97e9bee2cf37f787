"""Attention over a packed row: each chain of tokens sees the path before it, and nothing beside it.

Registered with transformers under `NAME`, it takes the place of a model's own attention; the layers
around it see one row of tokens without padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from coala_core.embed.prefix_tree import Chain

NAME = "coala_prefix_tree"

_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sinks", "indices", "block_indices")
"""What some models do to the scores or the softmax, or pick of the keys, by the name under which they hand it over."""


class AttentionPlan:
    """The chains of one packed row, with the masks that its layers share.

    Parameters
    ----------
    chains : tuple of Chain
        Every position of the row is in exactly one.
    """

    def __init__(self, chains: tuple[Chain, ...]) -> None:
        self.chains = chains
        self.windows: set[int | None] = set()
        """Sliding windows that layers asked for; None where one asked for none."""
        self._masks: dict[Any, torch.Tensor] = {}

    def mask(self, chain: Chain, window: int | None, groups: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask, (groups times length, depth + length): causal, and no further back than the window."""
        key = (chain.depth, chain.length, window, groups)
        if key not in self._masks:
            shape = (chain.length, chain.depth + chain.length)
            mask = torch.full(shape, float("-inf"), dtype=like.dtype, device=like.device)
            hidden = mask.triu(chain.depth + 1)
            if window is not None:
                hidden = hidden + mask.tril(chain.depth - window)
            self._masks[key] = hidden.repeat(groups, 1)
        return self._masks[key]


_plan: ContextVar[AttentionPlan] = ContextVar("attention_plan")


@contextmanager
def attention_plan(chains: tuple[Chain, ...]) -> Iterator[AttentionPlan]:
    """Let the model's layers attend along these chains."""
    plan = AttentionPlan(chains)
    token = _plan.set(plan)
    try:
        yield plan
    finally:
        _plan.reset(token)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention along the chains of the current plan.

    Parameters
    ----------
    module : torch.nn.Module
        The layer that asks.
    query : (1, heads, tokens, width)
    key, value : (1, key heads, tokens, width)
        `key heads` divides `heads`.
    attention_mask : None
        The plan takes its place.
    scaling : float, optional
        Factor of the scores; one over the root of the width if absent.
    sliding_window : int, optional
        Number of tokens, itself included, that a token sees.

    Returns
    -------
    (1, tokens, heads, width), None

    Raises
    ------
    NotImplementedError
        If the layer asks for what this attention does not do.
    """
    refused = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if refused or attention_mask is not None:
        raise NotImplementedError(f"its attention takes {', '.join(refused) or 'a mask of its own'}")
    plan = _plan.get()
    plan.windows.add(sliding_window)
    output = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for chain in plan.chains:
        run = slice(chain.start, chain.start + chain.length)
        states = _attend_chain(plan, chain, query[:, :, run], key, value, scaling, sliding_window)
        output[:, run] = states.transpose(1, 2)
    return output, None


def _attend_chain(
    plan: AttentionPlan,
    chain: Chain,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    keys, values = _along(key, chain), _along(value, chain)
    groups = query.shape[1] // key.shape[1]
    if window is not None and chain.depth + chain.length <= window:
        window = None
    if window is None and not chain.prefix:
        return scaled_dot_product_attention(
            query, keys, values, is_causal=True, scale=scaling, enable_gqa=groups > 1
        )  # fmt: skip
    if window is None and query.is_cuda:  # the kernel knows this mask by name and never reads it
        bias = causal_lower_right(chain.length, chain.depth + chain.length)
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=bias, scale=scaling, enable_gqa=groups > 1
        )  # fmt: skip
    # Heads that share keys are folded into one head of more queries, which reads the keys once.
    folded = query.reshape(1, key.shape[1], groups * chain.length, query.shape[3])
    mask = plan.mask(chain, window, groups, query)
    states = scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scaling)
    return states.reshape(1, query.shape[1], chain.length, value.shape[3])


def _along(states: torch.Tensor, chain: Chain) -> torch.Tensor:
    """Keys or values of the path to the chain's last token, (1, key heads, depth + length, width)."""
    own = states[:, :, chain.start : chain.start + chain.length]
    if not chain.prefix:
        return own
    before = [states[:, :, start : start + length] for start, length in chain.prefix]
    # A trunk that the chain follows at once is already one piece.
    if len(chain.prefix) == 1 and sum(chain.prefix[0]) == chain.start:
        return states[:, :, chain.prefix[0][0] : chain.start + chain.length]
    return torch.cat([*before, own], dim=2)


AttentionInterface.register(NAME, attend)
