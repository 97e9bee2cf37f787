"""From the states of a response's own tokens to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coala_core.config import StoredPooling
from coala_core.embed.prefix_tree import Span

if TYPE_CHECKING:
    import torch


def pool_spans(states: torch.Tensor, paths: Sequence[Sequence[Span]], pooling: StoredPooling) -> torch.Tensor:
    """Pool the states of each response into one float32 vector.

    Parameters
    ----------
    states : (tokens, hidden)
        States of a row of tokens, in any precision.
    paths : for each response, spans
        Where its own tokens lie in the row, in order; at least one token a response.
    pooling : "mean" or "last"
        Mean of the response's states, or its last state.

    Returns
    -------
    (responses, hidden) float32
    """
    import torch

    if pooling == "last":
        return states[[sum(path[-1]) - 1 for path in paths]].float()
    # Spans of responses never hold padding, which may be NaN.
    own = torch.cat([states[start : start + length] for path in paths for start, length in path]).float()
    lengths = torch.tensor([sum(length for _, length in path) for path in paths], device=states.device)
    return torch.segment_reduce(own, "mean", lengths=lengths, axis=0)


def response_path(path: Sequence[Span], response_start: int) -> list[Span]:
    """Spans of a sequence's path from its token `response_start` on.

    >>> response_path([(0, 4), (9, 3)], 5)
    [(10, 2)]
    """
    spans = []
    for start, length in path:
        skip = min(length, response_start)
        response_start -= skip
        if skip < length:
            spans.append((start + skip, length - skip))
    return spans
