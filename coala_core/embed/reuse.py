"""Why features are reused or not: what the cache has for given texts, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coala_core.embed.shards import Texts
from coala_core.feature_cache import FeatureCache
from coala_core.feature_cache.notes import ShardNote, Space, look_up

NEW = "not embedded before"
UNKNOWN = "not embedded before, or in a damaged shard that does not say what it holds"


@dataclass(frozen=True)
class ShardReuse:
    """A shard that serves some of the texts."""

    shard: str
    served: int
    """Different texts that are taken from it."""
    rows: int
    """Texts that it holds."""


@dataclass(frozen=True)
class Explanation:
    """What would be reused, and why not the rest."""

    cache: str
    space: str
    pairs: int
    """All pairs; pairs of equal texts are embedded once."""
    texts: int
    """Different texts among them."""
    finished: bool
    """Whether the whole artifact is there, so that nothing is to do."""
    reused: tuple[ShardReuse, ...]
    reasons: Mapping[str, int]
    """Number of texts that have to be embedded, by reason."""
    damaged: Mapping[str, str]
    """What is wrong with shards of this space, by name."""

    @property
    def to_embed(self) -> int:
        """Texts that have to be embedded."""
        return sum(self.reasons.values())


def explain_reuse(
    cache: FeatureCache, space: Space, columns: Sequence[str], texts: Texts, finished: bool
) -> Explanation:
    """Look texts up as the stage ``embed`` would, read every shard of the space, and name a reason for each miss.

    Parameters
    ----------
    cache : FeatureCache
        Where to look.
    space : Space
        What determines the features, but for the texts.
    columns : sequence of str
        Features asked for.
    texts : Texts
        All pairs.
    finished : bool
        Whether the artifact is there already.
    """
    wanted = set(texts.keys)
    damaged = {problem.name: problem.reason for problem in cache.verify(space.key)} if _exists(cache, space) else {}
    shards = list(cache.notes(space.key))
    notes = [shard for shard in shards if isinstance(shard, ShardNote)]
    unexplained = NEW if len(notes) == len(shards) else UNKNOWN
    lookup = look_up([note for note in notes if note.name not in damaged], columns, wanted)
    served = Counter(place.shard for place in lookup.places.values())
    reasons = {key: f"stored without {', '.join(missing)}" for key, missing in lookup.lacking.items()}
    for note in notes:
        if note.name in damaged:
            reasons |= {key: f"{note.name} is damaged: {damaged[note.name]}" for key in note.keys}
    left = wanted - lookup.places.keys()
    reasons = {key: reason for key, reason in reasons.items() if key in left}
    reasons |= _elsewhere(cache, space, left - reasons.keys())
    return Explanation(
        cache=cache.label,
        space=space.key,
        pairs=len(texts.pair_ids),
        texts=len(wanted),
        finished=finished,
        reused=tuple(ShardReuse(name, served[name], lookup.notes[name].rows) for name in sorted(served)),
        reasons=dict(Counter(reasons.get(key, unexplained) for key in sorted(left)).most_common()),
        damaged=damaged,
    )


def _exists(cache: FeatureCache, space: Space) -> bool:
    return any(stored.key == space.key for stored in cache.spaces())


def _elsewhere(cache: FeatureCache, space: Space, keys: set[str]) -> dict[str, str]:
    """Say of texts that only other spaces hold how those differ."""
    reasons: dict[str, str] = {}
    for other in cache.spaces():
        if other.key != space.key and keys - reasons.keys():
            found = look_up(cache.notes(other.key), [], keys - reasons.keys()).places
            reasons |= dict.fromkeys(found, _differences(other.identity, space.identity))
    return reasons


def _differences(there: Mapping[str, str | int], here: Mapping[str, str | int]) -> str:
    """Clause that names the settings in which two spaces differ.

    >>> _differences({"dtype": "bfloat16", "max_tokens": 512}, {"dtype": "float32", "max_tokens": 512})
    'stored with dtype bfloat16 in place of float32'
    """
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if "model" in names and "model_fingerprint" in names:
        names.remove("model_fingerprint")  # the model's name says it better
    elif "model" in names:
        names.remove("model")  # the same model in another folder
    parts = [f"{name} {there.get(name, 'unknown')} in place of {here.get(name, 'unknown')}" for name in names]
    return f"stored with {', '.join(parts)}"
