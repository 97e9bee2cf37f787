"""Features of responses from a frozen language model, written as Parquet shards.

One shard holds a fixed number of pairs and is the unit of resumption: it appears whole, with a
sidecar that holds its digest, and a later run continues at the first one that is missing or damaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import EmbedConfig
from coala_core.language_model import LanguageModel
from coala_core.progress import Progress, silent
from coala_core.rendering import Message, Renderer, TokenSequence
from coala_core.storage import Workspace, file_digest

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "last", "mean+last"]


@dataclass(frozen=True)
class TextPair:
    """One prompt with its two responses, by id."""

    pair_id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass
class EmbedCounts:
    """What happened to the texts of one shard, or of all of them."""

    pairs: int = 0
    tokens: int = 0
    """Tokens computed, without padding."""
    padding: int = 0
    """Padded positions computed."""
    flops: int = 0
    """Floating-point operations of the language model, counted, padding excluded."""
    prompts_cut: int = 0
    """Sequences whose oldest turns were left out."""
    turns_cut: int = 0
    """Turns left out of them."""
    last_turns_cut: int = 0
    """Sequences whose last turn had to be cut as well."""
    responses_cut: int = 0
    """Responses longer than the window."""
    control_tokens: int = 0
    """Control tokens in foreign text that were made harmless."""
    equal_features: int = 0
    """Pairs whose two features are equal."""

    def add(self, other: EmbedCounts) -> None:
        """Add another shard's counts to these."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


def embed_pairs(
    pairs: Sequence[TextPair],
    model: LanguageModel,
    config: EmbedConfig,
    workspace: Workspace,
    progress: Progress = silent,
) -> EmbedCounts:
    """Write the features of all pairs as Parquet shards, reusing the intact shards already there.

    The feature of a response is its own tokens' states at the model's layer, given the prompt, pooled by
    `config.pooling`. Features are float32 and finite.

    Parameters
    ----------
    pairs : sequence of TextPair
        Order fixes the shards.
    model : LanguageModel
        Cut at the layer to read.
    config : EmbedConfig
        Pooling, window, batch and shard sizes.
    workspace : Workspace
        Receives ``shard-00000.parquet``, ... with columns pair_id, chosen and rejected.
    progress : Progress
        Told pairs done, and pairs in all.

    Returns
    -------
    EmbedCounts
        Totals over all shards, reused ones included.

    Raises
    ------
    ValueError
        If there is no pair, or a text cannot be rendered or a feature is not finite; then the pair is named.
    """
    if not pairs:
        raise ValueError("`embed_pairs(pairs=...)` must hold at least one pair, got none; check the triplets")
    renderer = Renderer(model.tokenizer, config.max_tokens, model.vocabulary)
    totals = EmbedCounts()
    for index, start in enumerate(range(0, len(pairs), config.shard_rows)):
        name = f"shard-{index:05d}.parquet"
        counts = _intact_shard(workspace, name)
        if counts is None:
            counts = _write_shard(
                pairs[start : start + config.shard_rows], name, renderer, model, config, workspace,
                lambda done, start=start: progress(start + done, len(pairs), "pairs"),
            )  # fmt: skip
        totals.add(counts)
        progress(totals.pairs, len(pairs), "pairs")
    return totals


def _intact_shard(workspace: Workspace, name: str) -> EmbedCounts | None:
    """Return the counts of a shard that is complete and matches its sidecar; None if it has to be computed."""
    shard, sidecar = workspace.path / name, workspace.path / _sidecar(name)
    if not shard.exists() or not sidecar.exists():
        return None
    try:
        note = json.loads(sidecar.read_text(encoding="utf-8"))
        counts, expected = EmbedCounts(**note["counts"]), note["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return counts if file_digest(shard) == expected else None


def _sidecar(name: str) -> str:
    return name.replace(".parquet", ".json")


def _write_shard(
    pairs: Sequence[TextPair],
    name: str,
    renderer: Renderer,
    model: LanguageModel,
    config: EmbedConfig,
    workspace: Workspace,
    progress: Any,
) -> EmbedCounts:
    sequences = [sequence for pair in pairs for sequence in _render(renderer, pair)]
    features, padding = _features(sequences, model, config, progress)
    chosen, rejected = features[0::2], features[1::2]
    _refuse_non_finite(features, pairs)
    counts = _count(sequences, padding, model, int(np.all(chosen == rejected, axis=1).sum()))
    table = feature_table([pair.pair_id for pair in pairs], chosen, rejected)
    path = workspace.write(name, lambda target: write_feature_table(table, target))
    workspace.write_json(_sidecar(name), {"sha256": file_digest(path), "counts": asdict(counts)})
    return counts


def _render(renderer: Renderer, pair: TextPair) -> tuple[TokenSequence, ...]:
    try:
        return renderer.render_pair(pair.prompt, pair.chosen, pair.rejected)
    except ValueError as error:
        raise ValueError(f"pair {pair.pair_id}: {error}") from error


def _features(
    sequences: Sequence[TokenSequence], model: LanguageModel, config: EmbedConfig, progress: Any
) -> tuple[NDArray[np.float32], int]:
    import torch

    width = model.hidden_size * (2 if config.pooling == "mean+last" else 1)
    features = np.empty((len(sequences), width), dtype=np.float32)  # (rows, d)
    padding = done = 0
    for rows in token_batches([len(s.token_ids) for s in sequences], config.batch_tokens):
        batch = [sequences[row] for row in rows]
        ids, response = pad_right(batch)
        with torch.inference_mode():
            states = model.hidden_states(ids.to(model.device))
            features[rows] = pool(states, response.to(model.device), config.pooling).cpu().numpy()
        padding += ids.numel() - sum(len(sequence.token_ids) for sequence in batch)
        done += len(rows)
        progress(done // 2)
    return features, padding


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group rows of similar length so that rows times the longest stays within the token budget.

    A row longer than the budget forms a batch of its own. Longest first, so that memory peaks at the start.

    >>> list(token_batches([3, 9, 4, 10], budget=20))
    [[3, 1], [2, 0]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pad_right(batch: Sequence[TokenSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and response mask of a batch, each (rows, tokens) and padded on the right with 0."""
    import torch

    longest = max(len(sequence.token_ids) for sequence in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.int64)
    response = torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        length = len(sequence.token_ids)
        ids[row, :length] = torch.tensor(sequence.token_ids)
        response[row, sequence.response_start : length] = 1
    return ids, response


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool the masked positions of each row into one float32 vector.

    Parameters
    ----------
    states : (rows, tokens, hidden)
    mask : (rows, tokens), 1 on the response's own tokens, at least one a row
    pooling : "mean", "last" or "mean+last"
        Mean of the masked states, the last masked state, or both side by side.

    Returns
    -------
    (rows, hidden) float32, or (rows, 2 hidden) for "mean+last"
    """
    import torch

    states = states.float()
    weights = mask.to(states.dtype).unsqueeze(-1)  # (rows, tokens, 1)
    # Padded states may be anything, NaN included, and NaN times 0 is NaN.
    mean = torch.where(weights > 0, states, 0.0).sum(1) / weights.sum(1)
    if pooling == "mean":
        return mean
    positions = torch.arange(mask.shape[1], device=mask.device)
    final = (mask * positions).argmax(1)
    last = states[torch.arange(len(states), device=mask.device), final]
    return last if pooling == "last" else torch.cat([mean, last], dim=1)


def _refuse_non_finite(features: NDArray[np.float32], pairs: Sequence[TextPair]) -> None:
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if broken.size:
        raise ValueError(
            f"`embed` needs finite hidden states, got NaN or infinity in {broken.size} responses, first in pair "
            f"{pairs[broken[0] // 2].pair_id}; use `dtype: float32` or check the model's weights"
        )


def _count(sequences: Sequence[TokenSequence], padding: int, model: LanguageModel, equal_features: int) -> EmbedCounts:
    lengths = [len(sequence.token_ids) for sequence in sequences]
    return EmbedCounts(
        pairs=len(sequences) // 2,
        tokens=sum(lengths),
        padding=padding,
        flops=model.flops(lengths),
        prompts_cut=sum(sequence.turns_cut > 0 for sequence in sequences),
        turns_cut=sum(sequence.turns_cut for sequence in sequences),
        last_turns_cut=sum(sequence.prompt_tokens_cut > 0 for sequence in sequences),
        responses_cut=sum(sequence.response_tokens_cut > 0 for sequence in sequences),
        control_tokens=sum(sequence.control_tokens for sequence in sequences),
        equal_features=equal_features,
    )


def feature_table(pair_ids: Sequence[str], chosen: NDArray[np.float32], rejected: NDArray[np.float32]) -> pa.Table:
    """Arrow table of pair_id, chosen and rejected, the features as fixed-size lists of non-null float32."""

    def column(values: NDArray[np.float32]) -> pa.Array:
        kind = pa.list_(pa.field("item", pa.float32(), nullable=False), values.shape[1])
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), type=kind)

    return pa.table({"pair_id": pa.array(pair_ids), "chosen": column(chosen), "rejected": column(rejected)})


def write_feature_table(table: pa.Table, path: Path) -> None:
    """Write one shard; dictionaries would make reading float lists ten times slower."""
    pq.write_table(table, path, use_dictionary=False, compression="none", row_group_size=8192)


def read_features(directory: Path) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Read all shards of an ``embed`` artifact.

    Returns
    -------
    pair_ids : list of str, length n
    chosen, rejected : (n, d) float32
    """
    table = pa.concat_tables(pq.read_table(path) for path in sorted(directory.glob("shard-*.parquet")))
    chosen, rejected = (_matrix(table.column(name)) for name in ("chosen", "rejected"))
    return table.column("pair_id").to_pylist(), chosen, rejected


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    width = column.type.list_size
    # `flatten` respects the offset of a sliced chunk; `values` does not.
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty((0, width), dtype=np.float32)
