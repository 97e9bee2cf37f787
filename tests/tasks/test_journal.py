from pathlib import Path

import pytest

from tasks.journal import Journal

OPEN = {"event": "open", "run": "r"}
LOG = {"event": "log", "run": "r", "metrics": [["gap", 0.5, 1, 0]]}
CLOSE = {"event": "close", "run": "r"}


def written(folder: Path, *events: dict) -> Path:
    journal = Journal.create(folder, "r")
    journal.append(events)
    journal.close()
    return journal.path


def test_an_earlier_journal_is_read_back(tmp_path):
    path = written(tmp_path / "new" / "folder", OPEN, LOG)
    assert Journal.load(path).events == [OPEN, LOG]


def test_a_journal_cut_anywhere_yields_its_whole_lines_and_takes_more(tmp_path):
    path = written(tmp_path, OPEN, LOG)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        journal = Journal.load(path)
        expected = [OPEN, LOG][: (cut >= first) + (cut == len(content))]
        assert journal.events == expected
        journal.append([CLOSE])
        journal.close()
        again = Journal.load(path)
        assert again.events == [*expected, CLOSE]
        again.close()


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    path = written(tmp_path, OPEN, LOG)
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(ValueError, match="must hold one JSON object a line.*move the file away"):
        Journal.load(path)


def test_a_journal_in_use_cannot_be_loaded_until_it_is_closed(tmp_path):
    journal = Journal.create(tmp_path, "r")
    journal.append([OPEN])
    with pytest.raises(BlockingIOError):
        Journal.load(journal.path)
    journal.close()
    assert Journal.load(journal.path).events == [OPEN]


def test_acknowledgements_survive_and_belong_to_a_destination(tmp_path):
    path = written(tmp_path, OPEN, LOG, CLOSE)
    journal = Journal.load(path)
    journal.acknowledge("here", 1, run="r", remote="remote-1")
    journal.acknowledge("here", 2, refused="no")
    journal.close()
    again = Journal.load(path)
    here, there = again.received("here"), again.received("there")
    assert (here.position, here.remotes, here.refused) == (2, {"r": "remote-1"}, ["no"])
    assert (there.position, there.remotes) == (0, {})


def test_position_zero_forgets_what_a_destination_had(tmp_path):
    path = written(tmp_path, OPEN)
    journal = Journal.load(path)
    journal.acknowledge("here", 1, run="r", remote="remote-1")
    journal.acknowledge("here", 0)
    journal.close()
    assert Journal.load(path).received("here").remotes == {}


def test_a_torn_acknowledgement_is_dropped(tmp_path):
    path = written(tmp_path, OPEN, LOG)
    journal = Journal.load(path)
    journal.acknowledge("here", 1, run="r", remote="remote-1")
    journal.acknowledge("here", 2)
    journal.close()
    sent = path.with_suffix(".sent")
    sent.write_bytes(sent.read_bytes()[:-5])
    assert Journal.load(path).received("here").position == 1


def test_complete_means_closed_and_received_whole(tmp_path):
    journal = Journal.create(tmp_path, "r")
    assert not journal.is_complete()
    journal.append([OPEN, {"event": "open", "run": "r-1"}])
    assert journal.open_runs() == ["r-1", "r"]
    journal.append([{"event": "close", "run": "r-1"}])
    journal.acknowledge("here", 3)
    assert not journal.is_complete()
    journal.append([CLOSE])
    assert not journal.is_complete()
    journal.acknowledge("here", 4)
    assert journal.is_complete()
