"""Features of preference pairs: chosen and rejected stay side by side, joined by id."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 8192  # of features that are looked at or copied together


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Embeddings of both responses of n preference pairs.

    Row i of every field belongs to `pair_ids[i]`. Results of this package depend on the
    set of pairs, never on the order of the rows.

    Parameters
    ----------
    pair_ids : list of str, n
        Distinct names of the pairs.
    groups : list of str, n
        What a split or a resample keeps together, such as the conversation.
    chosen, rejected : (n, d) float32
        Raw embeddings of the preferred and of the other response; finite.
    chosen_length, rejected_length : (n,) integers
        Characters of the responses; zero or more.

    Raises
    ------
    ValueError
        If there is no pair, a pair id repeats, shapes or types disagree, a feature is not
        finite or a length is negative.
    """

    pair_ids: list[str]
    groups: list[str]
    chosen: NDArray[np.float32]
    rejected: NDArray[np.float32]
    chosen_length: NDArray[np.int64]
    rejected_length: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse fields that do not describe the same n pairs."""
        if not self.pair_ids:
            raise ValueError(
                "`PairFeatures(pair_ids=...)` must hold at least one pair, got 0; "
                "give this split a larger share or the pipeline more groups."
            )
        _require_distinct(self.pair_ids)
        if len(self.groups) != len(self.pair_ids):
            raise ValueError(
                f"`PairFeatures(groups=...)` must name one group per pair, got {len(self.groups)} "
                f"for {len(self.pair_ids)} pairs; build both from the same rows."
            )
        for name in ("chosen", "rejected"):
            _require_features(name, getattr(self, name), self.chosen.shape, len(self.pair_ids))
        for name in ("chosen_length", "rejected_length"):
            _require_lengths(name, getattr(self, name), len(self.pair_ids))

    def __len__(self) -> int:
        """Return the number of pairs, n."""
        return len(self.pair_ids)

    @property
    def width(self) -> int:
        """Number of features, d."""
        return int(self.chosen.shape[1])

    def order_by_id(self) -> list[int]:
        """Rows in the order of their pair ids, the order in which every computation runs."""
        return sorted(range(len(self)), key=self.pair_ids.__getitem__)

    def sorted_by_id(self) -> PairFeatures:
        """Return the same pairs in the order of their ids."""
        order = self.order_by_id()
        return PairFeatures(
            pair_ids=[self.pair_ids[i] for i in order],
            groups=[self.groups[i] for i in order],
            chosen=self.chosen[order],
            rejected=self.rejected[order],
            chosen_length=self.chosen_length[order],
            rejected_length=self.rejected_length[order],
        )


def require_same_width(call: str, width: int, **pairs: PairFeatures) -> None:
    """Refuse pairs whose embeddings do not have `width` features.

    Parameters
    ----------
    call : str
        Function the user called, for the message.
    width : int
        Features the head takes.
    **pairs : PairFeatures
        Pairs under the name of the argument they came in.

    Raises
    ------
    ValueError
        At the first argument of another width.
    """
    for name, features in pairs.items():
        if features.width != width:
            raise ValueError(
                f"`{call}({name}=...)` must have the {width} features the head was fitted on, "
                f"got {features.width}; embed every split with the same model, layer and pooling."
            )


def require_separate_groups(call: str, **pairs: PairFeatures) -> None:
    """Refuse splits that share a group, since one would then leak into the other.

    Parameters
    ----------
    call : str
        Function the user called, for the message.
    **pairs : PairFeatures
        Splits under the name of the argument they came in.

    Raises
    ------
    ValueError
        If a group lies in two of them.
    """
    seen: dict[str, str] = {}
    for name, features in pairs.items():
        for group in sorted(set(features.groups)):
            if group in seen:
                raise ValueError(
                    f"`{call}({name}=...)` must share no group with `{seen[group]}`, got {group!r} in both; "
                    "split by group."
                )
            seen[group] = name


def _require_distinct(pair_ids: list[str]) -> None:
    """Refuse a pair id that occurs twice."""
    repeated, times = Counter(pair_ids).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"`PairFeatures(pair_ids=...)` must be distinct, got {repeated!r} {times} times; "
            "drop duplicate pairs or make their ids differ."
        )


def _require_features(name: str, features: NDArray[np.float32], shape: tuple[int, ...], n: int) -> None:
    """Refuse features that are not a finite float32 matrix of n rows, alike for both responses."""
    if features.ndim != 2 or features.shape[0] != n or features.shape != shape or features.dtype != np.float32:
        raise ValueError(
            f"`PairFeatures({name}=...)` must be float32 of shape ({n}, d), alike for chosen and rejected, "
            f"got {features.dtype} of shape {features.shape}; embed both responses of every pair in float32."
        )
    starts = range(0, n, BLOCK_ROWS)
    finite = sum(int(np.isfinite(features[start : start + BLOCK_ROWS]).sum()) for start in starts)
    if finite != features.size:
        raise ValueError(
            f"`PairFeatures({name}=...)` must be finite, got {finite} finite "
            f"of {features.size} values; embed again in float32."
        )


def _require_lengths(name: str, lengths: NDArray[np.int64], n: int) -> None:
    """Refuse lengths that are not n integers, zero or more."""
    if lengths.shape != (n,) or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
        raise ValueError(
            f"`PairFeatures({name}=...)` must be {n} non-negative integers, "
            f"got {lengths.dtype} of shape {lengths.shape}; count the characters of each response."
        )
