"""Folders here and behind URLs: files whole or absent, refusals in one sentence, and never a credential in sight."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coala_core.feature_cache.local_files import Folder, LocalFolder, Written
from coala_core.feature_cache.remote_files import RemoteFolder, hide_credentials, open_folder

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # `printf hello | sha256sum`


class RenamingServer(MemoryFileSystem):
    """A server that can rename, though not onto a file that exists, and keeps a list of what it was told to write."""

    protocol = "renaming"
    written: list[str] = []

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).replace("renaming://", "memory://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self.written.append(path)
        super().pipe_file(path, value, mode, **kwargs)

    def mv(self, path1, path2, **kwargs):
        if self.exists(path2):
            raise OSError(errno.EEXIST, "exists")
        self.store[path2] = self.store.pop(path1)


fsspec.register_implementation("renaming", RenamingServer, clobber=True)


@pytest.fixture(params=["folder", "file", "memory", "renaming"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Empty folder of each kind."""
    urls = {"folder": str(tmp_path / "cache"), "file": f"file://{tmp_path}/cache"}
    return open_folder(urls.get(request.param, f"{request.param}://{uuid4().hex}/cache"), "embed.cache")


def say(text: str):
    return lambda path: path.write_text(text)


def test_files_are_written_listed_read_and_deleted(folder: Folder, tmp_path: Path) -> None:
    assert folder.list().files == {}
    assert folder.list("s").folders == ()
    assert folder.write("s/a", say("hello")) == Written(HELLO, 5)
    folder.write("s/b", say(""))
    folder.write("c", say("x"))
    assert folder.list("s").files == {"a": 5, "b": 0}
    assert (folder.list().files, folder.list().folders) == ({"c": 1}, ("s",))
    assert folder.read(["s/a", "s/none", "s/b"]) == {"s/a": b"hello", "s/b": b""}
    assert (folder.size("s/a"), folder.size("s/none"), folder.size("none/a"), folder.size("c")) == (5, None, None, 1)
    assert 0 <= folder.age("s/a") < 60
    assert folder.age("s/none") == 0
    with folder.at_hand("s/a") as path:
        assert path.read_bytes() == b"hello"
    folder.fetch("s/a", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"hello"
    folder.delete_folder("s")  # not empty
    for name in ("s/a", "s/a", "s/b"):
        folder.delete(name)
    folder.delete_folder("s")
    folder.delete_folder("s")
    assert folder.list().folders == ()
    with pytest.raises(FileNotFoundError):
        folder.fetch("s/a", tmp_path / "there")


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(folder: Folder) -> None:
    folder.write("s/a", say("hello"))

    def half(path: Path) -> None:
        path.write_text("hel")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        folder.write("s/a", half)
    assert folder.list("s").files == {"a": 5}
    folder.write("s/a", say("other!"))
    assert folder.list("s").files == {"a": 6}
    assert folder.read(["s/a"]) == {"s/a": b"other!"}


def test_the_url_opens_the_same_folder(folder: Folder) -> None:
    folder.write("s/a", say("hello"))
    assert open_folder(folder.url, "x").read(["s/a"]) == {"s/a": b"hello"}
    assert open_folder(f"{folder.url}/s", "x").read(["a"]) == {"a": b"hello"}


def test_a_server_that_renames_gets_a_temporary_name_and_a_store_gets_the_file() -> None:
    RenamingServer.written.clear()
    open_folder("renaming://box", "x").write("s/a", say("hello"))
    (name,) = RenamingServer.written
    assert name.startswith("/box/s/.a.") and name.endswith(".tmp")
    store = RemoteFolder("memory://box", MemoryFileSystem(), "/box")
    assert not store._renames


def test_a_listing_that_the_filesystem_remembers_is_not_believed() -> None:
    class Remembering(MemoryFileSystem):
        """Lists a folder once, like the clients of object stores."""

        protocol = "remembering"

        def ls(self, path, detail=True, **kwargs):
            if path not in self.dircache:
                self.dircache[path] = super().ls(path, detail=True)
            return self.dircache[path]

        def invalidate_cache(self, path=None):
            self.dircache.clear()

    box = uuid4().hex
    folder = RemoteFolder(f"remembering://{box}", Remembering(), f"/{box}")
    folder.write("a", say("hello"))
    assert folder.list().files == {"a": 5}
    open_folder(f"memory://{box}", "x").write("b", say(""))
    assert folder.list().files == {"a": 5, "b": 0}
    assert folder.size("b") == 0


def test_a_home_and_a_relative_folder_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_folder("~/features", "x").url == str(tmp_path / "features")
    assert open_folder(Path("features"), "x").url == str(tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_link_is_made_where_it_can_be_and_a_copy_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = LocalFolder(tmp_path / "cache")
    folder.write("a", say("hello"))
    folder.fetch("a", tmp_path / "linked")
    assert (tmp_path / "linked").stat().st_ino == (tmp_path / "cache" / "a").stat().st_ino

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    folder.fetch("a", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"hello"
    assert (tmp_path / "copied").stat().st_ino != (tmp_path / "cache" / "a").stat().st_ino


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nosuch://x", ValueError, "got protocol 'nosuch'; use s3://"),
        ("s3://bucket/x", ModuleNotFoundError, "not installed, got 'Install s3fs to access S3'; install it or"),
        ("simplecache::memory://x", ValueError, "must be one plain URL, got '::' in it; leave that out"),
        (
            "memory://x?token=hush",
            ValueError,
            r"`embed.cache=memory://x\?\*\*\*` must be one plain URL, got '\?' in it",
        ),
        ("", ValueError, "must be a folder, got nothing; name a folder"),
        (" ", ValueError, "must be a folder, got nothing; name a folder"),
        ("~nobody-of-this-name/x", ValueError, "got a home of nobody; write the folder in full"),
        ("ftp://ann:hush@127.0.0.1:1/x", ValueError, r"`embed.cache=ftp://\*\*\*@127.0.0.1:1/x` must be within reach"),
    ],
)
def test_a_bad_address_is_refused_at_the_door(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        open_folder(url, "embed.cache")
    assert str(raised.value).startswith("`embed.cache=")
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for url in (tmp_path / "file", f"file://{tmp_path}/file"):
        with pytest.raises(ValueError, match="must be a folder, got a file; name a folder"):
            open_folder(url, "embed.cache")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:se/cr@et@bucket/x", "s3://***@bucket/x"),
        ("sftp://ann@host/x", "sftp://***@host/x"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("https://host/x?sig=a@b", "https://host/x?***"),
        ("/home/ann:x@y/z?", "/home/ann:x@y/z?"),
    ],
)
def test_credentials_are_hidden(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown


class Gate(MemoryFileSystem):
    """A server that refuses everything, and shows in its errors what it was asked with."""

    protocol = "gate"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.error: type[Exception] = PermissionError

    def _refuse(self, *arguments, **kwargs):
        raise self.error(f"refused {arguments} for key with hu%2Fsh alias hu/sh")

    ls = cat_file = pipe_file = rm_file = modified = _refuse


@pytest.mark.parametrize("error", [PermissionError, RuntimeError, KeyError, FileNotFoundError])
def test_errors_of_the_server_become_one_kind_and_show_no_credentials(error, tmp_path: Path) -> None:
    server = Gate()
    server.error = error
    folder = RemoteFolder("gate://key:hu%2Fsh@box/x", server, "/key:hu%2Fsh@box/x")
    calls = [
        lambda: folder.write("a", say("x")),
        lambda: folder.fetch("a", tmp_path / "a"),
    ]
    if error is not FileNotFoundError:
        calls += [
            lambda: folder.read(["a"]),
            lambda: folder.list(),
            lambda: folder.delete("a"),
            lambda: folder.age("a"),
        ]
    for call in calls:
        with pytest.raises(OSError, match=r"refused .*\*\*\*") as raised:
            call()
        assert "hu%2Fsh" not in str(raised.value) and "hu/sh" not in str(raised.value)
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
    if error is not FileNotFoundError:
        with pytest.raises(OSError, match=r"`gate://\*\*\*@box/x` must be within reach and writable, got "):
            folder.list()
