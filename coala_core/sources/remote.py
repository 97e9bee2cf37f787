"""Files behind a URL, read only: the only place of the sources that imports fsspec."""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO, cast

from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.core import url_to_fs

from coala_core.config.base import CREDENTIALS

_BUFFER = 4 << 20
_SECRET_KEYS = re.compile(r"[?&][^=&]*(sig|token|key|secret|passw|credential|auth)[^=&]*=", re.IGNORECASE)


def is_url(address: str) -> bool:
    """Tell a URL from a path of this machine."""
    return "://" in address


def without_query(address: str) -> str:
    """Return a URL without query and fragment; a path of this machine as it is.

    >>> without_query("https://host/rows.jsonl?download=true"), without_query("s3://bucket/a?.jsonl")
    ('https://host/rows.jsonl', 's3://bucket/a?.jsonl')
    """
    return re.split(r"[?#]", address, maxsplit=1)[0] if address.startswith(("http://", "https://")) else address


def without_secrets(text: str) -> str:
    """Take user, password and query of every URL out of a text.

    >>> without_secrets("GET https://ann:pass@host/rows.csv?token=1 failed")
    'GET https://***@host/rows.csv?*** failed'
    """
    text = CREDENTIALS.sub("***@", text)
    return re.sub(r"(https?://[^\s?'\"]*)[?#][^\s'\"]*", r"\1?***", text)


def list_files(url: str, is_file: bool) -> list[str]:
    """List the files that a URL names.

    Parameters
    ----------
    url : str
        Of one file, of a folder, or a pattern where the file system lists.
    is_file : bool
        Whether the end of the URL tells that it is a file and not a folder.

    Returns
    -------
    list of str
        URLs, sorted; none where a pattern or folder holds none.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the URL.
    ValueError
        If it holds credentials, is chained, of an unknown protocol or out of reach.
    ModuleNotFoundError
        If the package for the protocol is not installed.
    """
    filesystem, path = _open(url)
    if re.search(r"[*\[]", without_query(url)):
        found = _call(url, filesystem.glob, path)
    elif is_file:
        if not _call(url, filesystem.exists, path):
            raise _missing(url)
        return [url]
    else:
        found = _call(url, filesystem.find, path)
        if not found:
            raise _missing(url)
    return sorted(filesystem.unstrip_protocol(entry) for entry in found if not entry.endswith("/"))


def open_stream(url: str) -> BinaryIO:
    """Open a file for reading from its beginning to its end.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    ValueError
        If it is out of reach, also later while it is read.
    """
    filesystem, path = _open(url)
    options = {"block_size": 0} if url.startswith(("http://", "https://")) else {}  # not every server sends ranges
    stream = _call(url, filesystem.open, path, "rb", **options)
    return cast(BinaryIO, io.BufferedReader(_Checked(url, stream), _BUFFER))


class _Checked(io.RawIOBase):
    """Bytes of a remote file, whose every error becomes one sentence."""

    def __init__(self, url: str, stream: Any) -> None:
        super().__init__()
        self._url, self._stream = url, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = _call(self._url, self._stream.read, len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    """Open the file system of a URL that may be read."""
    call = _call_of(url)
    if CREDENTIALS.search(url) or _SECRET_KEYS.search(url):
        raise ValueError(
            f"{call} must not hold credentials, for settings are kept with the results, got some; leave them to the "
            "environment of the protocol's client, or fetch the file first."
        )
    if "::" in url:
        raise ValueError(f"{call} must be one plain URL, got '::' in it; fetch the file and name its path.")
    protocol = url.split("://")[0]
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise ValueError(
            f"{call} must be a URL that fsspec opens, got protocol {protocol!r}; use s3://, https:// or a path."
        ) from None
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{call} needs a package that is not installed, got {str(error)!r}; install it or fetch the file."
        ) from None
    filesystem, path = _call(url, url_to_fs, url)
    return filesystem, path


def _call(url: str, method: Any, *arguments: Any, **options: Any) -> Any:
    """Call a file system; whatever it raises becomes one sentence that shows no credentials."""
    try:
        return method(*arguments, **options)
    except FileNotFoundError:
        raise _missing(url) from None
    except Exception as error:  # noqa: BLE001 - every file system has error types of its own
        words = without_secrets(" ".join(str(error).split())[:300])
        raise ValueError(
            f"{_call_of(url)} must be within reach, got {type(error).__name__}: {words}; "
            "check the address, the connection and the rights."
        ) from None


def _call_of(url: str) -> str:
    return f"`triplets.conversations={without_secrets(url)!r}`"


def _missing(url: str) -> FileNotFoundError:
    return FileNotFoundError(f"{_call_of(url)} must name a file or folder that exists, got nothing there; correct it.")
