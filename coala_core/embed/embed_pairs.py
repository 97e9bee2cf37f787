"""Features of responses from a frozen language model, every distinct token computed once.

A response's feature is pooled from its own tokens' hidden states, given the prompt. Pairs are
rendered, packed by common prefix and run; where the model's attention cannot follow a tree, rows of similar length
are run side by side instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from coala_core.config import EmbedConfig
from coala_core.embed.batching import Batch, memory_is_short, padded_batches, shared_batches
from coala_core.embed.language_model import LanguageModel
from coala_core.embed.pooling import pool_spans, response_path
from coala_core.embed.prefix_tree import SortedSequences, Tokens
from coala_core.embed.rendering import Message, Renderer, TokenSequence
from coala_core.feature_table import column_name
from coala_core.progress import Progress, silent

Features = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TextPair:
    """One prompt with its two responses, by id."""

    pair_id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass
class Work:
    """What the language model did for some pairs."""

    tokens: int = 0
    """Tokens of all sequences, as one row at a time would compute them."""
    distinct_tokens: int = 0
    """Tokens that differ in themselves or in what stands before them."""
    computed_tokens: int = 0
    """Tokens computed, padding excluded."""
    padding: int = 0
    """Padded positions computed."""
    flops: int = 0
    """Floating-point operations of the language model, counted, padding excluded."""
    batches: int = 0
    """Forward passes."""
    memory_halvings: int = 0
    """Times that the token budget was halved because memory was short."""

    def add(self, other: Work) -> None:
        """Add other pairs' work to this."""
        for name in (field.name for field in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Embedded:
    """Features of some pairs, with what happened to their texts."""

    features: Features
    """``chosen_<column>`` and ``rejected_<column>``, each (pairs, d) float32 and finite."""
    facts: dict[str, NDArray[np.int32]]
    """For each pair: `FACTS`."""
    work: Work


FACTS = (
    "tokens",
    "prompts_cut",
    "turns_cut",
    "last_turns_cut",
    "responses_cut",
    "control_tokens",
    "equal_features",
)
"""Of each pair, both sequences together: tokens; sequences whose oldest turns were left out; turns left out of
them; sequences whose last turn had to be cut as well; responses longer than the window; control tokens in foreign
text that were made harmless; and whether the two features are equal in every column."""


def embed_pairs(
    pairs: Sequence[TextPair], model: LanguageModel, config: EmbedConfig, progress: Progress = silent
) -> Embedded:
    """Compute the features of pairs at the model's layers, in every pooling asked for.

    Parameters
    ----------
    pairs : sequence of TextPair
        At least one. Pairs that share prompts or conversations are best given together.
    model : LanguageModel
        Cut at the highest layer to read.
    config : EmbedConfig
        Poolings, window and token budget.
    progress : Progress
        Told pairs done, and pairs in all.

    Raises
    ------
    ValueError
        If there is no pair, or a text cannot be rendered or a feature is not finite; then the pair is named.
    MemoryError
        If one sequence alone does not fit into memory.
    """
    if not pairs:
        raise ValueError("`embed_pairs(pairs=...)` must hold at least one pair, got none; check the triplets")
    renderer = Renderer(model.tokenizer, config.max_tokens, model.vocabulary)
    sequences = [sequence for pair in pairs for sequence in _render(renderer, pair)]
    work = Work(
        tokens=sum(len(sequence.token_ids) for sequence in sequences),
        distinct_tokens=SortedSequences([sequence.token_ids for sequence in sequences]).distinct,
    )
    rows = _run(sequences, model, config, work, progress)
    features = {
        f"{side}_{name}": values[i::2] for i, side in enumerate(("chosen", "rejected")) for name, values in rows.items()
    }
    _refuse_non_finite(features, pairs)
    return Embedded(features, _facts(sequences, _equal(features)), work)


def _render(renderer: Renderer, pair: TextPair) -> tuple[TokenSequence, ...]:
    try:
        return renderer.render_pair(pair.prompt, pair.chosen, pair.rejected)
    except ValueError as error:
        raise ValueError(f"pair {pair.pair_id}: {error}") from error


def _run(
    sequences: Sequence[TokenSequence], model: LanguageModel, config: EmbedConfig, work: Work, progress: Progress
) -> Features:
    """Features of each sequence by column name, (sequences, d) each."""
    import torch

    columns = [column_name(layer, pooling) for layer in model.layers for pooling in config.poolings]
    features = {name: np.empty((len(sequences), model.hidden_size), dtype=np.float32) for name in columns}

    def compute(batch: Batch) -> Features:
        paths = [
            response_path(path, sequences[row].response_start)
            for row, path in zip(batch.rows, batch.paths, strict=True)
        ]
        with torch.inference_mode():
            return {
                column_name(layer, pooling): pool_spans(states, paths, pooling).cpu().numpy()
                for layer, states in zip(model.layers, batch.states(model), strict=True)
                for pooling in config.poolings
            }

    plan = padded_batches if model.unshared else shared_batches
    done = 0
    for batch, pooled in _within_memory(sequences, plan, compute, config.batch_tokens, work):
        for name, values in pooled.items():
            features[name][list(batch.rows)] = values
        work.computed_tokens += batch.computed
        work.padding += batch.padding
        work.flops += model.flops(batch.computed, batch.attended)
        work.batches += 1
        done += len(batch.rows)
        progress(done // 2, len(sequences) // 2, "pairs")
    return features


def _within_memory(
    sequences: Sequence[TokenSequence],
    plan: Callable[[Sequence[Tokens], Sequence[int], int], Iterator[Batch]],
    compute: Callable[[Batch], Features],
    budget: int,
    work: Work,
) -> Iterator[tuple[Batch, Features]]:
    """Compute all sequences; where memory is short, halve the budget and batch what is left anew."""
    left = set(range(len(sequences)))
    while left:
        rows = sorted(left)
        for batch in plan([sequences[row].token_ids for row in rows], rows, budget):
            try:
                pooled = compute(batch)
            except (RuntimeError, MemoryError) as error:
                if not memory_is_short(error):
                    raise
                if len(batch.rows) == 1:
                    raise MemoryError(
                        f"`embed` needs memory for one sequence of {batch.computed} tokens, got none; "
                        "lower `embed.max_tokens`, or take another device"
                    ) from error
                budget = max(1, min(budget, batch.computed + batch.padding) // 2)
                work.memory_halvings += 1
                break
            left.difference_update(batch.rows)
            yield batch, pooled


def _refuse_non_finite(features: Features, pairs: Sequence[TextPair]) -> None:
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in features.values()])
    broken = np.flatnonzero(~finite)
    if broken.size:
        raise ValueError(
            f"`embed` needs finite hidden states, got NaN or infinity in {broken.size} pairs, first in pair "
            f"{pairs[broken[0]].pair_id}; use `dtype: float32` or check the model's weights"
        )


def _equal(features: Features) -> NDArray[np.bool_]:
    """Tell for each pair whether its features are equal in every column."""
    names = [name.removeprefix("chosen_") for name in features if name.startswith("chosen_")]
    alike = [features[f"chosen_{name}"] == features[f"rejected_{name}"] for name in names]
    return np.asarray(np.concatenate(alike, axis=1).all(axis=1))


def _facts(sequences: Sequence[TokenSequence], equal: NDArray[np.bool_]) -> dict[str, NDArray[np.int32]]:
    rows = [
        (
            len(sequence.token_ids),
            sequence.turns_cut > 0,
            sequence.turns_cut,
            sequence.prompt_tokens_cut > 0,
            sequence.response_tokens_cut > 0,
            sequence.control_tokens,
        )
        for sequence in sequences
    ]
    sums = np.array(rows, dtype=np.int32).reshape(len(equal), 2, -1).sum(axis=1, dtype=np.int32)
    columns = [*sums.T, equal.astype(np.int32)]
    return dict(zip(FACTS, columns, strict=True))
