"""Data sets of the Hugging Face hub, written once as Parquet: the only place of the sources that imports datasets."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "hub:"

_NAME = re.compile(r"hub:(?P<data_set>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>[\w.]+))?")
_SPLITS = {"HuggingFaceH4/ultrafeedback_binarized": "train_prefs"}
"""Split to take where none is named and it is not "train"."""

_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_SHARD_ROWS = 100_000
_GROUP_ROWS = 1_000
_NOTE = "source.json"


class _Request(NamedTuple):
    data_set: str
    revision: str | None
    split: str


def load_shards(name: str, cache: Path | None = None) -> list[tuple[str, Path]]:
    """Load one split of a data set and write its rows as Parquet, unless that has been done before.

    Tried with the layouts of miria0/EduFeedback, HuggingFaceH4/ultrafeedback_binarized (split train_prefs),
    trl-lib/ultrafeedback_binarized, stanfordnlp/imdb, nvidia/HelpSteer, nvidia/HelpSteer2 and Anthropic/hh-rlhf. No
    code of a data set is run: `datasets` reads files only.

    Parameters
    ----------
    name : str
        ``hub:OWNER/NAME[@REVISION][:SPLIT]``; the split is "train" unless the data set has another one for
        preferences. Without a revision the newest one is taken, offline the one in the cache of `datasets`.
    cache : Path, optional
        Folder for the Parquet files; by default ``coala`` in the folder where `datasets` keeps its own.

    Returns
    -------
    list of (str, Path)
        What people see of each file, ``OWNER/NAME/SPLIT-00000.parquet``, and where it lies, in the order of the rows.

    Raises
    ------
    ValueError
        If the name is malformed or the data set cannot be loaded; the message says what to download instead.
    """
    request = _parse(name)
    try:
        data = _load(request)
        folder = _written(data, request, cache)
    except Exception as error:  # noqa: BLE001 - datasets lets through whatever network, parsers and disks raise
        raise ValueError(_not_loaded(name, request, error)) from None
    return [(f"{request.data_set}/{path.name}", path) for path in sorted(folder.glob("*.parquet"))]


def _parse(name: str) -> _Request:
    """Take a name apart."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name:
        raise ValueError(
            f"`triplets.conversations={name!r}` must be written hub:OWNER/NAME[@REVISION][:SPLIT], got something else; "
            "copy owner and name from the page of the data set."
        )
    data_set = found["data_set"]
    return _Request(data_set, found["revision"], found["split"] or _SPLITS.get(data_set, "train"))


def _load(request: _Request) -> Any:
    """Load a split; `datasets` is imported here, for it takes seconds."""
    import datasets

    return datasets.load_dataset(request.data_set, split=request.split, revision=request.revision)


def _written(data: Any, request: _Request, cache: Path | None) -> Path:
    """Write a split as Parquet with small row groups; the folder appears whole or not at all."""
    import datasets

    cache = cache or Path(datasets.config.HF_DATASETS_CACHE) / "coala"
    folder = cache / request.data_set.replace("/", "--") / f"{request.split}-{data._fingerprint}"
    if (folder / _NOTE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", ignore_cleanup_errors=True) as temporary:
        partial = Path(temporary) / "whole"
        partial.mkdir()
        _write(data, request, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return folder


def _write(data: Any, request: _Request, folder: Path) -> None:
    """Write the rows, then a note of where they come from."""
    shards = max(1, -(-data.num_rows // _SHARD_ROWS))
    for index in range(shards):
        rows = data.shard(shards, index, contiguous=True)
        path = folder / f"{request.split}-{index:05d}.parquet"
        rows.to_parquet(str(path), batch_size=_GROUP_ROWS)
    downloads = list(data.info.download_checksums or {})
    commits = sorted({commit for url in downloads for commit in _COMMIT.findall(url)})
    note = {**request._asdict(), "fingerprint": data._fingerprint, "commits": commits, "rows": data.num_rows}
    (folder / _NOTE).write_text(json.dumps(note, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _not_loaded(name: str, request: _Request, error: Exception) -> str:
    """Say which data set could not be loaded, why, and what to do instead."""
    page = f"https://huggingface.co/datasets/{request.data_set}/tree/{request.revision or 'main'}"
    words = " ".join(str(error).split())[:300].rstrip(".") or "no reason given"
    return (
        f"`triplets.conversations={name!r}` must be a data set that can be loaded, got {type(error).__name__}: "
        f"{words}; download the files of its split {request.split!r} (.parquet, .jsonl, .json or .csv, "
        f"also packed) from {page} and give their folder instead."
    )
