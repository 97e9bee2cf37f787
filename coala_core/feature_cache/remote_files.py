"""Folders behind a URL: the only place that imports fsspec.

A file appears whole or not at all: on an object store it arrives in one request, and on a server that can
rename it arrives under a temporary name.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.core import url_to_fs

from coala_core.feature_cache.local_files import Folder, Listing, LocalFolder, Written, fill


def open_folder(url: str | Path, setting: str) -> Folder:
    """Open a folder; it need not exist yet.

    Parameters
    ----------
    url : str or Path
        Folder of this machine, also with ``~``, or any fsspec URL such as ``s3://bucket/features``.
    setting : str
        What the address is called where people write it, for messages; they never show credentials.

    Raises
    ------
    ValueError
        If the address is empty, a file, of an unknown protocol, chained, or cannot be reached.
    ModuleNotFoundError
        If the package for the protocol is not installed.
    """
    text, label = str(url), hide_credentials(str(url))
    call = f"`{setting}={label}`"
    if "://" not in text:
        return LocalFolder(_local_path(text, call))
    if "::" in text or "?" in text:
        raise ValueError(f"{call} must be one plain URL, got {'::' if '::' in text else '?'!r} in it; leave that out")
    protocol = text.split("://")[0]
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise ValueError(
            f"{call} must be a folder or a URL that fsspec opens, got protocol {protocol!r}; "
            "use s3://, gs:// or a folder"
        ) from None
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{call} needs a package that is not installed, got {str(error)!r}; install it or use a local folder"
        ) from None
    try:
        filesystem, path = url_to_fs(text)
    except Exception as error:  # noqa: BLE001 - every filesystem has error types of its own
        raise ValueError(
            f"{call} must be within reach, got {_masked(f'{type(error).__name__}: {error}', text)}; "
            "check address and credentials"
        ) from None
    if getattr(filesystem, "local_file", False):
        return LocalFolder(_local_path(path, call))
    return RemoteFolder(text, filesystem, path)


def hide_credentials(url: str) -> str:
    """Replace user, password and query of a URL by asterisks.

    >>> hide_credentials("sftp://ann:pa/ss@host/features"), hide_credentials("s3://bucket/a@b")
    ('sftp://***@host/features', 's3://bucket/a@b')
    """
    protocol, mark, rest = url.partition("://")
    if not mark:
        return url
    credentials = _credentials(url)
    rest = rest.removeprefix(f"{credentials}@") if credentials else rest
    rest = re.sub(r"\?.*", "?***", rest, flags=re.DOTALL)
    return f"{protocol}://{'***@' if credentials else ''}{rest}"


class RemoteFolder:
    """A folder behind an fsspec filesystem.

    Parameters
    ----------
    url : str
        Address that opens it.
    filesystem : fsspec.AbstractFileSystem
    path : str
        The folder as the filesystem calls it.
    """

    def __init__(self, url: str, filesystem: AbstractFileSystem, path: str) -> None:
        self.url = url.rstrip("/")
        self.label = hide_credentials(self.url)
        self._filesystem = filesystem
        self._root = path.rstrip("/")
        # Object stores publish whole objects and have no rename; servers with one show a file while it grows.
        self._renames = type(filesystem).mv is not AbstractFileSystem.mv

    def list(self, folder: str = "") -> Listing:
        """List the folder as it is now, past any listing that the filesystem remembers."""
        path = self._path(folder)
        self._call("invalidate_cache", path)
        try:
            entries = self._call("ls", path, detail=True)
        except FileNotFoundError:
            return Listing({})
        named = [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry) for entry in entries]
        files = {name: int(entry["size"] or 0) for name, entry in named if entry["type"] == "file"}
        return Listing(files, tuple(name for name, entry in named if entry["type"] == "directory"))

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read files, at once where the filesystem can; those that do not exist are left out."""
        if not names:
            return {}
        found = self._call("cat", [self._path(name) for name in names], on_error="return")
        contents = {name: found[self._path(name)] for name in names}
        for error in contents.values():
            if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                raise self._refusal(error)
        return {name: content for name, content in contents.items() if isinstance(content, bytes)}

    def write(self, name: str, writer: Callable[[Path], None]) -> Written:
        """Fill a file of this machine, then send it whole."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "content"
            written = fill(local, writer)
            content = local.read_bytes()
        path = self._path(name)
        if not self._renames:
            self._call("pipe_file", path, content)
            return written
        parent, _, leaf = path.rpartition("/")
        temporary = f"{parent}/.{leaf}.{uuid4().hex}.tmp"
        self._call("makedirs", parent, exist_ok=True)
        try:
            self._call("pipe_file", temporary, content)
            self._move(temporary, path)
        finally:
            self._delete(temporary)
        return written

    def size(self, name: str) -> int | None:
        """Give a file's bytes; None if it does not exist."""
        folder, _, leaf = name.rpartition("/")
        return self.list(folder).files.get(leaf)

    def age(self, name: str) -> float:
        """Give the seconds since a file was last written; 0 where the filesystem does not tell."""
        try:
            modified: datetime = self._call("modified", self._path(name))
        except (NotImplementedError, FileNotFoundError):
            return 0.0
        return max(0.0, (datetime.now(modified.tzinfo) - modified).total_seconds())

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        self._delete(self._path(name))

    def delete_folder(self, folder: str) -> None:
        """Delete a folder if it exists and is empty; object stores have none to delete."""
        with suppress(OSError):
            self._call("rmdir", self._path(folder))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a path of this machine."""
        target.write_bytes(self._call("cat_file", self._path(name)))

    @contextmanager
    def at_hand(self, name: str) -> Iterator[Path]:
        """Give a copy of the file that lasts as long as the context."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "content"
            self.fetch(name, target)
            yield target

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/") or self._root

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._call("rm_file", path)

    def _move(self, source: str, target: str) -> None:
        try:
            self._call("mv", source, target)
        except OSError:  # some servers do not rename onto an existing file
            self._delete(target)
            self._call("mv", source, target)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call the filesystem; whatever it raises becomes an OSError that shows no credentials."""
        try:
            return getattr(self._filesystem, method)(*arguments, **options)
        except NotImplementedError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(_masked(str(error), self.url)) from None
        except Exception as error:  # noqa: BLE001 - as above
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> OSError:
        return OSError(
            f"`{self.label}` must be within reach and writable, got "
            f"{_masked(f'{type(error).__name__}: {error}', self.url)}; check address, credentials and rights"
        )


def _local_path(text: str, call: str) -> Path:
    try:
        path = Path(text).expanduser().resolve()
    except RuntimeError:
        raise ValueError(f"{call} must be a folder, got a home of nobody; write the folder in full") from None
    if not text.strip() or (path.exists() and not path.is_dir()):
        raise ValueError(f"{call} must be a folder, got {'a file' if text.strip() else 'nothing'}; name a folder")
    return path


def _credentials(url: str) -> str:
    """Give what stands before the host: all up to the last "@", for a password may hold "@" and "/"."""
    head, mark, _ = url.partition("://")[2].rpartition("@")
    return head if mark and (":" in head or "/" not in head) else ""


def _masked(text: str, url: str) -> str:
    credentials = _credentials(url)
    query = url.partition("?")[2]
    secrets = {credentials, credentials.partition(":")[2], query}
    for secret in sorted(secrets | {unquote(secret) for secret in secrets}, key=len, reverse=True):
        text = text.replace(secret, "***") if secret else text
    return text
