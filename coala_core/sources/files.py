"""Names of conversations as people write them, turned into files that can be read."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from coala_core.config import BUILTIN_CONVERSATIONS
from coala_core.sources import hub, remote

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Kinds that are text; each may carry one of `COMPRESSIONS` as well."""

COMPRESSIONS = (".gz", ".zst")
PARQUET = ".parquet"

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst")
"""Kinds whose members are read one after the other."""

REVIEW = ".txt"
"""A text below a folder `pos` or `neg`, the layout in which IMDb's reviews came; no other text can be read."""

SUFFIXES = (*TEXT_SUFFIXES, *(text + packed for text in TEXT_SUFFIXES for packed in COMPRESSIONS), PARQUET, *ARCHIVES)
"""Ends of the names of readable files."""

_BOOKKEEPING = frozenset({"manifest.json", "rejects.jsonl", "timing.json"})
_GENERATE = "generate"
_BLOCK = 1 << 20
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes
    ----------
    name : str
        What people see and rejects keep: the path below the folder that the files of one name share, the base name
        where there is one file; printable, without credentials or query.
    address : str
        Path on this machine, or an fsspec URL.
    suffix : str
        One of `SUFFIXES`, or `REVIEW`.
    """

    name: str
    address: str
    suffix: str

    def open(self) -> BinaryIO:
        """Open the stored bytes, compressed as they are.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        ValueError
            If it cannot be opened.
        """
        if remote.is_url(self.address):
            return remote.open_stream(self.address)
        try:
            return Path(self.address).open("rb", buffering=_BLOCK)
        except FileNotFoundError:
            raise _missing(self.address) from None
        except OSError as error:
            raise ValueError(
                f"`read_rows({self.name!r})` needs a file that can be opened, got {error.strerror}; "
                "correct the rights or the path."
            ) from None

    def digest(self) -> str:
        """SHA-256, in hex, of the stored bytes.

        Raises
        ------
        FileNotFoundError, ValueError
            As `open`.
        """
        result = hashlib.sha256()
        with self.open() as stream:
            while block := stream.read(_BLOCK):
                result.update(block)
        return result.hexdigest()


def resolve_conversations(name: str) -> tuple[SourceFile, ...]:
    """Turn the setting `triplets.conversations` into the files that it names.

    Parameters
    ----------
    name : str
        A path; a pattern with ``*``, ``?``, ``[...]`` or ``**``; a folder, which stands for the conversations of a
        ``generate`` artifact if it is one and else for every readable file in and below it; an fsspec URL of one of
        these; ``hub:OWNER/NAME[@REVISION][:SPLIT]`` for a data set of the Hugging Face hub; or "builtin" for the
        conversations shipped with the package. Folders and patterns pass over hidden files, files of other kinds and
        the ``manifest.json``, ``rejects.jsonl`` and ``timing.json`` that stages write.

    Returns
    -------
    tuple of SourceFile
        At least one, sorted by path.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or a pattern or folder holds none that can be read.
    ValueError
        If the file is of no known kind, a URL holds credentials or is out of reach, or a data set cannot be loaded.
    ModuleNotFoundError
        If the package behind the protocol of a URL is not installed.
    """
    if name == BUILTIN_CONVERSATIONS:
        return _named([_builtin_path()])
    if name.startswith(hub.PREFIX):
        return tuple(SourceFile(label, str(path), PARQUET) for label, path in hub.load_shards(name))
    if name.startswith("file://"):
        name = unquote(urlsplit(name).path)
    if remote.is_url(name):
        return _named(_readable(remote.list_files(name, is_file=suffix_of(name) is not None), name))
    return _named(_local_files(name))


def suffix_of(path: str) -> str | None:
    """Return the end of a path or URL that tells its kind, in lower case; None if it is of no readable kind.

    >>> suffix_of("https://host/a/Rows.JSONL.gz?download=true"), suffix_of("train/pos/0_9.txt"), suffix_of("notes.txt")
    ('.jsonl.gz', '.txt', None)
    """
    path = remote.without_query(path).lower()
    folder = path.rpartition("/")[0].rpartition("/")[2]
    if path.endswith(REVIEW) and folder in ("pos", "neg"):
        return REVIEW
    return next((suffix for suffix in SUFFIXES if path.endswith(suffix)), None)


def is_passed_over(path: str, below: int = 0) -> bool:
    """Tell whether a file of a folder or archive is hidden, bookkeeping of a stage, or of no readable kind.

    Parameters
    ----------
    path : str
        Path of the file, its parts divided by ``/``.
    below : int
        Leading parts that may begin with a dot, since they lead to the folder.
    """
    parts = [part for part in path.split("/")[below:] if part not in (".", "..")]
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    bookkeeping = parts[-1] in _BOOKKEEPING or parts[-1].endswith(".rejects.jsonl")
    return hidden or suffix_of(path) is None or bookkeeping


def shown(path: str) -> str:
    r"""Return a path that is safe to print and to join: no control characters, nothing absolute, nothing that climbs.

    >>> shown("/../../etc/x\n.jsonl")
    'etc/x\\n.jsonl'
    """
    text = path.replace("\\", "/").encode("utf-8", errors="replace").decode()
    text = "/".join(part for part in text.split("/") if part not in ("", ".", ".."))
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)[:_LONGEST_NAME]


def _builtin_path() -> str:
    """Locate the shipped conversations."""
    try:
        path = Path(str(resources.files("coala_data").joinpath("conversations.jsonl")))
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f'`triplets.conversations="{BUILTIN_CONVERSATIONS}"` needs the package `coala_data`, '
            "got an installation without it; install the project again or name a file."
        ) from error
    if not path.exists():
        raise _missing(str(path))
    return str(path)


def _local_files(name: str) -> list[str]:
    """Find the files that a path, pattern or folder of this machine names."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise _missing(name) from None
    path = path.absolute()
    if path.is_dir():
        return [_conversations_of(path)] if _is_generated(path) else _readable(sorted(_below(path)), name)
    if path.exists():
        if suffix_of(path.as_posix()) is None:
            raise ValueError(
                f"`triplets.conversations` must end in one of {', '.join(SUFFIXES)}, got {path.name!r}; "
                "convert the file or correct its name."
            )
        return [str(path)]
    if glob.has_magic(name):
        found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - pathlib's does not take absolute patterns
        return _readable([entry for entry in found if not Path(entry).is_dir()], name)
    raise _missing(str(path))


def _below(folder: Path) -> Iterator[str]:
    """Yield every file in and below a folder, hidden folders left out."""
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (str(Path(here) / name) for name in names)


def _is_generated(folder: Path) -> bool:
    """Tell whether a folder is an artifact of the stage that writes conversations."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("stage") == _GENERATE


def _conversations_of(artifact: Path) -> str:
    """Return the file of an artifact's conversations, which must be there."""
    path = artifact / "conversations.jsonl"
    if not path.exists():
        raise _missing(str(path))
    return str(path)


def _readable(found: Sequence[str], name: str) -> list[str]:
    """Keep the readable ones of several files; there must be one."""
    if remote.is_url(name) and suffix_of(name) is not None and len(found) == 1:
        return list(found)
    below = _shared_folder(found)
    kept = [address for address in found if not is_passed_over("/".join(_parts(address)), below)]
    if not kept:
        others = f"{len(found)} of other kinds" if found else "none"
        raise FileNotFoundError(
            f"`triplets.conversations={remote.without_secrets(name)!r}` must lead to at least one file that ends in "
            f"one of {', '.join(SUFFIXES)}, got {others}; correct the path or pattern."
        )
    return kept


def _named(addresses: Sequence[str]) -> tuple[SourceFile, ...]:
    """Name files by their paths below the folder that they share."""
    below = _shared_folder(addresses)
    names = (shown("/".join(_parts(address)[below:])) for address in addresses)
    return tuple(
        SourceFile(name, address, suffix_of(address) or "") for name, address in zip(names, addresses, strict=True)
    )


def _shared_folder(addresses: Sequence[str]) -> int:
    """Count the leading parts that the folders of all addresses share."""
    return len(os.path.commonprefix([_parts(address)[:-1] for address in addresses]))


def _parts(address: str) -> list[str]:
    return remote.without_query(address).replace(os.sep, "/").split("/")


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"`triplets.conversations` must name an existing file, got {path!r}; "
        f'correct the path, or write "{BUILTIN_CONVERSATIONS}" for the shipped conversations.'
    )
