"""What is known of a stored shard without opening it, and which shards hold the features of given pairs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coala_core.feature_table import SIDES
from coala_core.storage import digest, dump_json

SPACE = "space.json"
PAIRS = ".pairs.parquet"
_SPACE_KEY = re.compile(r"[0-9a-f]{16}")
_SHARD_NAME = re.compile(r"(?!space$)[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Space:
    """Features that may stand in for one another: equal in all that determines them but the texts.

    Parameters
    ----------
    identity : mapping of str to str or int
        Such as model_fingerprint, max_tokens, dtype and revision. The entry ``model`` is a name for people
        and does not count.
    """

    identity: Mapping[str, str | int]

    @property
    def key(self) -> str:
        """Digest of the identity, 16 hex digits; names the space's folder."""
        return digest({name: value for name, value in self.identity.items() if name != "model"})[:16]


@dataclass(frozen=True)
class ShardNote:
    """What the sidecar of a shard says about its Parquet file."""

    name: str
    """File name of the shard, without ending."""
    sha256: str
    bytes: int
    rows: int
    columns: tuple[str, ...]
    """Features that each row holds for both sides, such as ``layer20_mean``."""
    keys: tuple[str, ...]
    """Content key of each row, in order, none twice."""
    counts: Mapping[str, int | float]
    """What computing it took."""


@dataclass(frozen=True)
class BrokenShard:
    """A shard that cannot be used as it lies there."""

    name: str
    reason: str


@dataclass(frozen=True)
class Place:
    """Where the features of a pair lie."""

    shard: str
    row: int


@dataclass(frozen=True)
class Lookup:
    """Answer to which shards hold given pairs; a pair in neither mapping is in no usable shard."""

    places: dict[str, Place]
    """By content key."""
    lacking: dict[str, tuple[str, ...]]
    """Columns that are missing where the pair is stored with other columns only, by content key."""
    notes: dict[str, ShardNote]
    """Notes of the shards that `places` refers to, by name."""
    broken: tuple[BrokenShard, ...]
    """Shards that were passed over."""


def look_up(shards: Iterable[ShardNote | BrokenShard], columns: Sequence[str], keys: Collection[str]) -> Lookup:
    """Find a place for each pair, in as few shards as a greedy choice gives.

    Of several shards that hold a pair with all columns, the one that holds most of the pairs asked for is taken,
    then the first by name, so that equal shards give equal answers in whatever order they come.

    Parameters
    ----------
    shards : iterable of ShardNote or BrokenShard
    columns : sequence of str
        Features that a shard must hold, such as ``layer20_mean``.
    keys : collection of str
        Content keys of the pairs.
    """
    wanted, broken, offers = set(keys), [], []
    for shard in shards:
        if isinstance(shard, BrokenShard):
            broken.append(shard)
        elif rows := {key: row for row, key in enumerate(shard.keys) if key in wanted}:
            offers.append((shard, rows))
    places: dict[str, Place] = {}
    lacking: dict[str, tuple[str, ...]] = {}
    for note, rows in sorted(offers, key=lambda offer: (-len(offer[1]), offer[0].name)):
        missing = tuple(column for column in columns if column not in note.columns)
        for key, row in rows.items():
            if not missing:
                places.setdefault(key, Place(note.name, row))
            elif key not in lacking or len(missing) < len(lacking[key]):
                lacking[key] = missing
    used = {place.shard for place in places.values()}
    return Lookup(
        places,
        {key: missing for key, missing in lacking.items() if key not in places},
        {note.name: note for note, _ in offers if note.name in used},
        tuple(broken),
    )


def pair_key(prompt: Sequence[Mapping[str, str]], chosen: str, rejected: str) -> str:
    """Content key of a pair, 32 hex digits: equal texts have equal keys, whatever their ids."""
    return digest([[dict(message) for message in prompt], chosen, rejected])[:32]


def shard_name(space_key: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    """Name of the shard that holds these pairs with these columns, both in this order."""
    return "shard-" + digest([space_key, list(columns), list(keys)])[:24]


def is_space_key(name: str) -> bool:
    """Tell whether a folder's name can be a space's key."""
    return _SPACE_KEY.fullmatch(name) is not None


def is_sidecar(name: str) -> bool:
    """Tell whether a file's name is that of a sidecar."""
    return name.endswith(".json") and _SHARD_NAME.fullmatch(name.removesuffix(".json")) is not None


def require_space_key(space_key: str) -> str:
    """Return a space's key, or raise ValueError; keys and names become paths, where "../.." must not pass."""
    if not is_space_key(space_key):
        raise ValueError(f"`space_key` must be 16 hex digits, got {space_key!r}; take it from `Space.key`")
    return space_key


def require_name(name: str) -> str:
    """Return a shard's name, or raise ValueError."""
    if not _SHARD_NAME.fullmatch(name):
        raise ValueError(f"`name` must be letters, digits, - and _, got {name!r}; take it from `shard_name`")
    return name


def table_fault(names: Sequence[str], found: Sequence[Any], columns: Sequence[str], keys: Sequence[str]) -> str | None:
    """Say how a table with these column names and keys differs from its description; None if it does not."""
    missing = {"key", *(f"{side}_{column}" for side in SIDES for column in columns)} - set(names)
    if missing or not columns:
        return f"no column {', '.join(sorted(missing)) or 'of features'}"
    if list(found) != list(keys):
        return f"other keys than the {len(keys)} described"
    return None if len(set(keys)) == len(keys) > 0 else f"{len(set(keys))} different keys in {len(keys)} rows"


def dump_note(note: ShardNote) -> str:
    """Text of a sidecar: equal notes, equal bytes."""
    return dump_json(asdict(note) | {"counts": dict(note.counts)})


def parse_note(name: str, content: bytes) -> ShardNote:
    """Read a sidecar.

    Raises
    ------
    ValueError
        If it is no note, or not the note of the shard `name`; the message is a clause that says why.
    """
    try:
        note = _NOTE.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its text"
        raise ValueError(f"its sidecar is no note: {place}: {first['msg']}") from None
    if note.name != name:
        raise ValueError(f"its sidecar is that of {note.name!r}")
    if not len(note.keys) == len(set(note.keys)) == note.rows:
        raise ValueError(f"its sidecar names {len(set(note.keys))} different keys for {note.rows} rows")
    return note


_NOTE = TypeAdapter(ShardNote)
