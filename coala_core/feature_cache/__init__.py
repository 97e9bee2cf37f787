"""Features of all runs by content, as Parquet shards in a folder or behind a URL.

``cache``  what one calls          ``reader``  what is there, without opening shards
``notes``  sidecars and lookup     ``local_files``, ``remote_files``  whole files or none
"""

from coala_core.feature_cache.cache import FeatureCache, Problem, Removed, SpaceUsage
from coala_core.feature_cache.notes import BrokenShard, Lookup, Place, ShardNote, Space, pair_key, shard_name
from coala_core.feature_cache.reader import StoredSpace

__all__ = [
    "BrokenShard",
    "FeatureCache",
    "Lookup",
    "Place",
    "Problem",
    "Removed",
    "ShardNote",
    "Space",
    "SpaceUsage",
    "StoredSpace",
    "pair_key",
    "shard_name",
]
