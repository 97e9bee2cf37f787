"""Members of zip and tar archives, read where they lie: nothing is ever unpacked to disk."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

from coala_core.sources.files import ARCHIVES, SUFFIXES, is_passed_over, shown, suffix_of
from coala_core.sources.records import Fault, Reject, Row

MemberReader = Callable[[BinaryIO, str, str], Iterator[Row | Reject]]
"""Reads a stream, given the path and the name of its file."""

_BUFFER = 1 << 20
_MAX_HEADER_BYTES = 1 << 20
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Member(NamedTuple):
    """A member that is no folder: its path, why it must not be read, and how it is opened."""

    path: str
    refusal: str
    open: Callable[[], BinaryIO]


def archive_rows(stream: BinaryIO, suffix: str, source: str, read: MemberReader) -> Iterator[Row | Reject]:
    """Stream the rows of every readable member, in the archive's order.

    Parameters
    ----------
    stream : binary file
        A tar archive without its compression, or a zip archive that can seek.
    suffix : str
        ".zip", or anything for tar.
    source : str
        Name of the archive. Rows and rejects bear it with the path of the member, from which everything absolute or
        climbing is taken out: ``corpus.zip/train/a.jsonl``.
    read : callable
        Reads one member.

    Yields
    ------
    Row or Reject
        Row numbers are per member, from 1. A link, a device, a sparse or encrypted member, an archive in the archive
        and a second member of one name is one reject; folders and what a folder of files would pass over hold no rows.

    Raises
    ------
    ValueError
        If no member is readable.
    tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error
        If the archive is damaged.
    """
    others = 0
    seen: set[int] = set()  # digests of names, for an archive may have millions of members
    for member in _zip_members(stream) if suffix == ".zip" else _tar_members(stream):
        name = f"{source}/{shown(member.path)}"
        if not member.refusal and is_passed_over(member.path):
            others += 1
            continue
        refusal = member.refusal or _refusal(member.path, hash(name) in seen)
        seen.add(hash(name))
        if refusal:
            yield Reject(name, 1, Fault.NOT_OBJECT, f"{refusal} and is not read", "")
        else:
            with member.open() as content:
                yield from read(content, member.path, name)
    if not seen:
        raise ValueError(
            f"`read_rows({source!r})` needs a member that ends in one of {', '.join(SUFFIXES)}, "
            f"got {others} of other kinds; put the files into the archive."
        )


def _refusal(path: str, is_repeated: bool) -> str:
    """Say why a plain member must not be read; nothing if it may."""
    if is_repeated:
        return "the member bears the name of an earlier one"
    return "the member is an archive itself" if suffix_of(path) in ARCHIVES else ""


def _zip_members(stream: BinaryIO) -> Iterator[_Member]:
    """Yield the members of a zip archive."""
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        if sum(info.compress_size for info in infos) > stream.seek(0, io.SEEK_END):
            raise zipfile.BadZipFile("members overlap")
        for info in infos:
            if not info.is_dir():
                yield _Member(info.filename, _zip_refusal(info), partial(_open_zipped, archive, info))


def _zip_refusal(info: zipfile.ZipInfo) -> str:
    """Say why a member must not be read; nothing if it may."""
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "the member is a link or device"
    if info.flag_bits & 1:
        return "the member is encrypted"
    return "" if info.compress_type in _ZIP_METHODS else "the member is compressed in an uncommon way"


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    """Open a member in blocks, since its own way of finding lines is slow."""
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, archive.open(info)), _BUFFER))


def _tar_members(stream: BinaryIO) -> Iterator[_Member]:
    """Yield the members of a tar archive, each of which must be read before the next."""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER, tarinfo=_Header) as archive:
        while (header := _next_header(archive)) is not None:
            cast(Any, archive).members.clear()  # so that a million members take no memory
            if not header.isdir():
                plain = header.isfile() and not header.issparse()
                refusal = "" if plain else "the member is a link, a device or sparse"
                yield _Member(header.name, refusal, partial(_open_tarred, archive, header))


def _next_header(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Read a header, whose errors of other types tarfile lets through."""
    try:
        return archive.next()
    except (ValueError, LookupError, OverflowError, AttributeError) as error:
        raise tarfile.ReadError(f"bad header: {error}") from error


def _open_tarred(archive: tarfile.TarFile, header: tarfile.TarInfo) -> BinaryIO:
    """Open a plain member."""
    return cast(BinaryIO, archive.extractfile(header))


class _Header(tarfile.TarInfo):
    """A header that is refused where tarfile would take a damaged archive for a finished one, or hold it whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        ends = bytes(buf) == bytes(tarfile.BLOCKSIZE)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if ends:
                raise
            raise tarfile.ReadError(f"{error or 'bad header'}") from error
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header longer than 1 MiB")
        return header
