import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tasks.doctor_machine import check_hardware, check_store, check_telemetry, writable_folder

GIB = 1 << 30
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def set_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=8 * GIB, used=0, free=free))


@pytest.mark.parametrize(("free", "status"), [(2 * GIB - 1, "problem"), (2 * GIB, "ok"), (5 * GIB, "ok")])
def test_a_full_disk_is_a_problem(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, free)
    check = check_store(tmp_path)
    assert check.status == status
    assert f"{free / GIB:.1f} GiB free" in check.finding


def test_the_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    check = check_store(tmp_path / "deep" / "store")
    assert (check.status, "not made yet" in check.finding) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = check_store(tmp_path / "file" / "store")
    assert (check.status, "is not a folder" in check.finding) == ("problem", True)
    assert check.remedy.startswith("mkdir -p")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, whose folders not even root can write to")
def test_a_folder_without_permission_is_a_problem() -> None:
    check = check_store(Path("/proc/self/store"))
    assert (check.status, "cannot be written" in check.finding) == ("problem", True)


def test_the_nearest_folder_of_a_path_to_come(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path.resolve()


@pytest.mark.parametrize(("available", "status"), [(GIB, "note"), (3 * GIB, "ok")])
def test_little_memory_is_a_note(available: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * GIB, available=available))
    check = check_hardware()
    assert check.status == status
    assert f"{available / GIB:.1f} of 4.0 GiB" in check.finding


def test_cores_are_those_that_this_process_may_use() -> None:
    assert check_hardware().finding.startswith(f"{len(os.sched_getaffinity(0))} processor cores")


def test_telemetry_that_is_off_everywhere_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    assert check_telemetry().status == "ok"


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.parametrize("switch", ["unset", "opposite"])
def test_telemetry_that_may_be_on_is_a_note(name: str, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other, value in QUIET.items():
        monkeypatch.setenv(other, value)
    if switch == "unset":
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, {"false": "true", "1": "0", "true": "false"}[QUIET[name]])
    check = check_telemetry()
    assert (check.status, check.remedy) == ("note", f"export {name}={QUIET[name]}")
