import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coala_core.sources import Row, hub, read_rows, resolve_conversations

ROWS = [{"id": f"c{number}", "history": ["Why?", "Because.", "And?", f"So {number}."]} for number in range(5)]


@pytest.mark.parametrize(
    ("name", "request_of"),
    [
        ("hub:miria0/EduFeedback", ("miria0/EduFeedback", None, "train")),
        ("hub:HuggingFaceH4/ultrafeedback_binarized", ("HuggingFaceH4/ultrafeedback_binarized", None, "train_prefs")),
        ("hub:HuggingFaceH4/ultrafeedback_binarized:test_prefs", (
            "HuggingFaceH4/ultrafeedback_binarized", None, "test_prefs")),
        ("hub:nvidia/HelpSteer2@refs/pr/1:validation", ("nvidia/HelpSteer2", "refs/pr/1", "validation")),
        ("hub:Anthropic/hh-rlhf@main", ("Anthropic/hh-rlhf", "main", "train")),
    ],
)  # fmt: skip
def test_a_name_says_data_set_revision_and_split(name, request_of):
    assert hub._parse(name) == request_of


@pytest.mark.parametrize("name", ["hub:", "hub:imdb", "hub:a/b/c", "hub:a/b:", "hub:a/b@", "hub:../b", "hub:a/b:x y"])
def test_a_malformed_name_is_one_sentence(name):
    with pytest.raises(ValueError, match=r"must be written hub:OWNER/NAME\[@REVISION\]\[:SPLIT\], got something else"):
        resolve_conversations(name)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data set of files that `datasets` finds by the name owner/set, and an empty cache."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/set").mkdir(parents=True)
    (tmp_path / "owner/set/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "owner/set/test.jsonl").write_text(json.dumps(ROWS[4]) + "\n")
    return tmp_path


@pytest.mark.slow
def test_a_data_set_is_written_once_as_parquet_and_read_in_order(home, monkeypatch):
    monkeypatch.setattr(hub, "_SHARD_ROWS", 2)
    monkeypatch.setattr(hub, "_GROUP_ROWS", 1)
    files = resolve_conversations("hub:owner/set")
    assert [file.name for file in files] == [f"owner/set/train-0000{shard}.parquet" for shard in range(3)]
    assert [row.content for file in files for row in read_rows(file)] == ROWS
    assert [row.number for row in read_rows(files[0])] == [1, 2]
    assert pq.ParquetFile(files[0].address).num_row_groups == 2
    digests = [file.digest() for file in files]
    written = {path: path.stat().st_mtime_ns for path in (home / "cache/coala").rglob("*.parquet")}
    assert resolve_conversations("hub:owner/set") == files
    assert {path: path.stat().st_mtime_ns for path in (home / "cache/coala").rglob("*.parquet")} == written
    assert [file.digest() for file in files] == digests
    assert [path.name for path in (home / "cache/coala/owner--set").iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_the_note_keeps_what_identifies_the_rows_and_new_rows_are_new_files(home):
    (before,) = resolve_conversations("hub:owner/set")
    (note,) = (home / "cache/coala").rglob("source.json")
    kept = json.loads(note.read_text())
    assert {name: kept[name] for name in ("data_set", "split", "revision", "rows")} == {
        "data_set": "owner/set", "split": "train", "revision": None, "rows": 5
    }  # fmt: skip
    assert kept["fingerprint"] in before.address
    (home / "owner/set/train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    (after,) = resolve_conversations("hub:owner/set")
    assert (after.name, after.address != before.address) == (before.name, True)
    assert list(read_rows(after)) == [Row(1, ROWS[0], "owner/set/train-00000.parquet")]
    (other,) = resolve_conversations("hub:owner/set:test")
    assert [row.content["id"] for row in read_rows(other)] == ["c4"]


@pytest.mark.slow
def test_an_interrupted_copy_is_made_again(home, monkeypatch):
    write = hub._write

    def stop(data, request, folder):
        write(data, request, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            resolve_conversations("hub:owner/set")
    assert list((home / "cache/coala/owner--set").iterdir()) == []
    (file,) = resolve_conversations("hub:owner/set")
    assert len(list(read_rows(file))) == 5


@pytest.mark.slow
def test_a_split_that_is_not_there_is_one_sentence(home):
    with pytest.raises(ValueError, match=r"hub:owner/set:nothing'` must be a data set .*got ValueError: Unknown split"):
        resolve_conversations("hub:owner/set:nothing")


@pytest.mark.slow
def test_offline_one_sentence_says_what_to_download(tmp_path):
    code = (
        "from coala_core.sources import resolve_conversations\n"
        "try:\n    resolve_conversations('hub:HuggingFaceH4/ultrafeedback_binarized')\n"
        "except ValueError as error:\n    print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    (said,) = done.stdout.splitlines()
    assert said.startswith("`triplets.conversations='hub:HuggingFaceH4/ultrafeedback_binarized'` must be a data set ")
    assert "offline" in said.lower()
    assert "download the files of its split 'train_prefs' (.parquet" in said
    assert "https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized/tree/main and give their fold" in said


@pytest.mark.slow
def test_datasets_is_imported_for_hub_names_only():
    code = "import sys, coala_core.sources.reader; print('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
