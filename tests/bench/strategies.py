"""Ways to compute common prefixes once, against each other: chains, a tree mask, and a key-value cache.

Chains are what the project uses. The other two are written here to be measured: the whole tree under one
dense mask, and the longest sequence first with its keys and values kept, then its branches side by side on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from coala_core.embed.language_model import LanguageModel
from coala_core.embed.prefix_tree import PackedBatch, pack_batches

Strategy = Callable[[LanguageModel, PackedBatch], torch.Tensor]


def chains(model: LanguageModel, batch: PackedBatch) -> torch.Tensor:
    """Attend chain by chain: what `coala embed` does."""
    return model.packed_states(batch)[0]


def tree_mask(model: LanguageModel, batch: PackedBatch) -> torch.Tensor:
    """Attend over the whole row under a mask that shows each token its own path."""
    size = len(batch.token_ids)
    mask = torch.full((size, size), float("-inf"), dtype=model.dtype)
    for chain in batch.chains:
        rows = slice(chain.start, chain.start + chain.length)
        for start, length in chain.prefix:
            mask[rows, start : start + length] = 0
        mask[rows, rows] = torch.full((chain.length, chain.length), float("-inf"), dtype=model.dtype).triu(1)
    ids, positions = (torch.from_numpy(values)[None] for values in (batch.token_ids, batch.positions))
    model._attend_with("sdpa")
    return model._forward(input_ids=ids, position_ids=positions, attention_mask=mask[None, None])[0][0]


def key_value_cache(model: LanguageModel, batch: PackedBatch) -> torch.Tensor:
    """Run the trunk and keep its keys and values, then every branch on a copy of them, padded to the longest.

    Branches of branches are not handled: the batch must be one trunk with branches on it.
    """
    model._attend_with("sdpa")
    trunk, *branches = batch.chains
    ids, positions = (torch.from_numpy(values) for values in (batch.token_ids, batch.positions))
    states = torch.empty(len(ids), model.hidden_size, dtype=model.dtype)
    output = model.model(input_ids=ids[None, : trunk.length], use_cache=True)
    states[: trunk.length] = model._captured.pop(model.layers[0])[0]
    if not branches:
        return states
    past, longest = output.past_key_values, max(chain.length for chain in branches)
    past.batch_repeat_interleave(len(branches))
    padded = torch.zeros(2, len(branches), longest, dtype=torch.int64)
    mask = torch.full((len(branches), 1, longest, trunk.length + longest), float("-inf"), dtype=model.dtype)
    for row, chain in enumerate(branches):
        if len(chain.prefix) != 1 or chain.prefix[0][0] != 0:
            raise ValueError("`key_value_cache` takes branches of the trunk only")
        own = slice(chain.start, chain.start + chain.length)
        padded[0, row, : chain.length], padded[1, row, : chain.length] = ids[own], positions[own]
        mask[row, :, :, : chain.depth] = 0
        mask[row, 0, :, trunk.length :] = torch.full((longest, longest), float("-inf"), dtype=model.dtype).triu(1)
    model.model(input_ids=padded[0], position_ids=padded[1], attention_mask=mask, past_key_values=past, use_cache=True)
    found = model._captured.pop(model.layers[0])
    for row, chain in enumerate(branches):
        states[chain.start : chain.start + chain.length] = found[row, : chain.length]
    return states


STRATEGIES: dict[str, Strategy] = {"chains": chains, "tree mask": tree_mask, "key-value cache": key_value_cache}


def compare(model: LanguageModel, conversations: Sequence[Sequence[Sequence[int]]]) -> dict[str, dict[str, float]]:
    """Measure every strategy on the same conversations, one tree each, in turn.

    Parameters
    ----------
    model : LanguageModel
        Reads one layer below its depth.
    conversations : sequence of lists of token sequences

    Returns
    -------
    dict
        For each strategy tokens per second, and the largest relative difference of its states from those of the first.
    """
    batches = [pack_batches(sequences, budget=1 << 20)[0] for sequences in conversations]
    seconds = dict.fromkeys(STRATEGIES, 0.0)
    difference = dict.fromkeys(STRATEGIES, 0.0)
    with torch.inference_mode():
        for strategy in STRATEGIES.values():
            strategy(model, batches[0])
        for batch in batches:
            reference = None
            for name, strategy in STRATEGIES.items():
                started = time.perf_counter()
                states = strategy(model, batch).float()
                seconds[name] += time.perf_counter() - started
                reference = states if reference is None else reference
                gap = float((states - reference).norm() / reference.norm())
                difference[name] = max(difference[name], gap)
    tokens = sum(len(batch.token_ids) for batch in batches)
    return {
        name: {"tokens_per_s": tokens / seconds[name], "largest_relative_difference": difference[name]}
        for name in STRATEGIES
    }
