from coala_core.cvxnn import halt as module
from coala_core.cvxnn.halt import Halt
from coala_core.cvxnn.outcome import Status


def test_nothing_ends_early_by_default():
    assert Halt().status() is None
    assert Halt(None, lambda: False).status() is None


def test_the_clock_runs_from_the_start(monkeypatch):
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    halt = Halt(2.5)
    now = 102.4
    assert halt.status() is None
    now = 102.5
    assert halt.status() is Status.OUT_OF_TIME


def test_a_word_counts_for_more_than_the_clock(monkeypatch):
    monkeypatch.setattr(module, "monotonic", lambda: 0.0)
    halt = Halt(1.0, lambda: True)
    monkeypatch.setattr(module, "monotonic", lambda: 2.0)
    assert halt.status() is Status.INTERRUPTED
