import hashlib
import json
import sys

import pytest

from coala_core.sources import Reject, Row, SourceFile, files, read_rows, resolve_conversations
from coala_core.sources.files import shown

ROW = b'{"id": 1}\n'


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROW)


def names_of(name):
    return [file.name for file in resolve_conversations(str(name))]


def test_a_file_is_named_by_its_base_name_and_digested_as_stored(tmp_path, monkeypatch):
    make(tmp_path, "a/rows.jsonl")
    (file,) = resolve_conversations(str(tmp_path / "a/rows.jsonl"))
    assert file == SourceFile("rows.jsonl", str(tmp_path / "a/rows.jsonl"), ".jsonl")
    assert file.digest() == hashlib.sha256(ROW).hexdigest()
    monkeypatch.chdir(tmp_path / "a")
    assert resolve_conversations("rows.jsonl") == (file,)


def test_a_pattern_gives_sorted_files_named_below_the_folder_they_share(tmp_path):
    make(tmp_path, "d/b/2.jsonl", "d/b/1.csv", "d/a/3.json.gz", "d/a/notes.md", "d/a/.hidden.jsonl", "d/0.parquet")
    assert names_of(tmp_path / "d" / "*" / "*") == ["a/3.json.gz", "b/1.csv", "b/2.jsonl"]
    assert names_of(tmp_path / "d" / "**") == ["0.parquet", "a/3.json.gz", "b/1.csv", "b/2.jsonl"]
    assert names_of(tmp_path / "d" / "b" / "[0-9].jsonl") == ["2.jsonl"]


def test_a_name_with_brackets_that_exists_is_a_file(tmp_path):
    make(tmp_path, "rows[1].jsonl", "rows1.jsonl")
    assert names_of(tmp_path / "rows[1].jsonl") == ["rows[1].jsonl"]


def test_a_folder_is_every_readable_file_in_and_below_it(tmp_path):
    make(tmp_path, "b.jsonl", "a/c.tsv.zst", "a/.git/x.jsonl", ".x.jsonl", "notes.txt", "pos.txt", "z/pos/0_9.txt")
    make(tmp_path, "manifest.json", "rejects.jsonl", "a/timing.json")
    assert names_of(tmp_path) == ["a/c.tsv.zst", "b.jsonl", "z/pos/0_9.txt"]


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    make(tmp_path, ".cache/rows.jsonl")
    assert names_of(tmp_path / ".cache") == ["rows.jsonl"]


def test_a_folder_of_reviews_is_read_from_within(tmp_path, monkeypatch):
    make(tmp_path, "train/pos/0_9.txt", "train/pos/1_8.txt", "train/urls_pos.txt")
    for name in (tmp_path / "train/pos", tmp_path):
        found = [row for file in resolve_conversations(str(name)) for row in read_rows(file)]
        assert [row.content["id"] for row in found] == ["train/pos/0_9", "train/pos/1_8"]
    monkeypatch.chdir(tmp_path / "train/pos")
    (file,) = resolve_conversations("0_9.txt")
    (row,) = read_rows(file)
    assert row.content["id"] == "train/pos/0_9"


def test_an_artifact_of_the_generator_is_its_conversations(tmp_path):
    make(tmp_path, "conversations.jsonl", "usage.json")
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "generate"}))
    assert names_of(tmp_path) == ["conversations.jsonl"]
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "triplets"}))
    assert names_of(tmp_path) == ["conversations.jsonl", "usage.json"]
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    assert names_of(tmp_path) == ["conversations.jsonl", "usage.json"]
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "generate"}))
    (tmp_path / "conversations.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"got '.*conversations\.jsonl'"):
        resolve_conversations(str(tmp_path))


def test_a_file_url_is_a_path(tmp_path):
    make(tmp_path, "my rows.jsonl")
    (file,) = resolve_conversations((tmp_path / "my rows.jsonl").as_uri())
    assert file.address == str(tmp_path / "my rows.jsonl")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("absent.jsonl", FileNotFoundError, r"must name an existing file, got '.*absent\.jsonl'; correct the path"),
        ("~nobody-of-that-name/x.jsonl", FileNotFoundError, "must name an existing file"),
        ("rows.xlsx", ValueError, r"must end in one of \.jsonl, .*, got 'rows\.xlsx'; convert the file or correct"),
        ("notes.txt", ValueError, r"must end in one of \.jsonl, .*, got 'notes\.txt'"),
        ("*.absent", FileNotFoundError, r"at least one file that ends in one of \.jsonl, .*, got none; correct the"),
        ("*.txt", FileNotFoundError, r"at least one file that ends in one of \.jsonl, .*, got 1 of other kinds"),
        (".", FileNotFoundError, "got 2 of other kinds; correct the path or pattern"),
        ("hub:owner", ValueError, r"must be written hub:OWNER/NAME\[@REVISION\]\[:SPLIT\], got something else; copy"),
        ("hub:../secret", ValueError, "must be written hub:OWNER/NAME"),
    ],
)
def test_names_that_cannot_be_read_are_refused(tmp_path, monkeypatch, name, kind, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "rows.xlsx", "notes.txt")
    with pytest.raises(kind, match=message) as caught:
        resolve_conversations(name)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()  # as root reads everything, a folder in place of the file
    with pytest.raises(ValueError, match=r"needs a file that can be opened, got Is a directory; correct the rights"):
        list(read_rows(SourceFile("rows.jsonl", str(tmp_path / "rows.jsonl"), ".jsonl")))


def test_names_are_safe_to_print(tmp_path):
    make(tmp_path, "a\n\x1b[31m.jsonl")
    (file,) = resolve_conversations(str(tmp_path))
    assert file.name == "a\\n\\x1b[31m.jsonl"
    assert [type(row) for row in read_rows(file)] == [Row]
    assert shown("C:\\..\\x/./y\u202e.csv") == "C:/x/y\\u202e.csv"
    assert len(shown("x" * 2000)) == 1000


def test_builtin_is_the_packaged_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coala_data", None)  # so that what the test imports is undone after it
    del sys.modules["coala_data"]
    package = tmp_path / "coala_data"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got '.*coala_data.conversations\.jsonl'"):
        resolve_conversations("builtin")
    make(package, "conversations.jsonl")
    path = str(package / "conversations.jsonl")
    assert resolve_conversations("builtin") == (SourceFile("conversations.jsonl", path, ".jsonl"),)


def test_builtin_without_its_package_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "coala_data", None)  # the import system's mark for "not to be found"
    with pytest.raises(FileNotFoundError, match="needs the package `coala_data`, got an installation without it"):
        resolve_conversations("builtin")


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_every_listed_kind_has_a_reader(tmp_path, suffix):
    make(tmp_path, f"rows{suffix}")
    (file,) = resolve_conversations(str(tmp_path / f"rows{suffix}"))
    assert file.suffix == suffix
    try:
        assert all(isinstance(row, Row | Reject) for row in read_rows(file))
    except ValueError as error:
        assert "needs an intact" in str(error)
