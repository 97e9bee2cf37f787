"""A full disk as one sentence, wherever in the work it shows."""

from __future__ import annotations

import errno
import pickle
import re
from pathlib import Path

import pytest

from coala_core.full_disk import DiskFull, full_disk_named


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_folder_and_what_to_do_are_named(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "not" / "made" / "yet"
    with pytest.raises(DiskFull) as full, full_disk_named(folder):
        raise OSError(number, "some library's words")
    assert full.value.errno == number
    assert re.fullmatch(
        rf"`{folder}` needs room on its disk, got [\w ]+ with [\d.,]+ MB free; make room there and run the same "
        r"command again, which continues\.",
        str(full.value),
    )


def test_the_folder_of_the_file_comes_before_the_folder_of_the_work(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=f"^`{tmp_path}/cache` needs room"), full_disk_named(tmp_path / "store"):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache" / "shard.parquet"))


def test_who_has_said_it_already_is_not_corrected(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=f"^`{tmp_path}/inner` "),
        full_disk_named(tmp_path / "outer"),
        full_disk_named(tmp_path / "inner"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="^.Errno 13. denied$"), full_disk_named(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_the_sentence_survives_the_way_from_a_worker_process() -> None:
    there = pickle.loads(pickle.dumps(DiskFull(errno.ENOSPC, "`/store` needs room")))
    assert (type(there), there.errno, str(there)) == (DiskFull, errno.ENOSPC, "`/store` needs room")
