"""Artifacts on disk: the only place that writes a stage's files.

An artifact is a folder ``<store>/<stage>/<key>/`` whose ``manifest.json`` lists every file with
its SHA-256. The key is a digest of everything that determines the content, so equal work has an
equal folder. A folder is built under ``<key>.partial`` and renamed when its manifest is written:
it is there whole, or it is not there.
"""

from coala_core.storage.artifacts import MANIFEST, TIMING, Artifact, Damaged, open_artifact, reference
from coala_core.storage.digests import digest, dump_json, file_digest, stage_key
from coala_core.storage.store import PROCESS, Stopwatch, Store
from coala_core.storage.workspace import Workspace

__all__ = [
    "MANIFEST",
    "TIMING",
    "PROCESS",
    "Artifact",
    "Damaged",
    "Stopwatch",
    "Store",
    "Workspace",
    "digest",
    "dump_json",
    "file_digest",
    "open_artifact",
    "reference",
    "stage_key",
]
