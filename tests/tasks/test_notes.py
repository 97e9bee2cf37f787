from pathlib import Path

from coala_core.storage import Store
from tasks.notes import PURPOSES, note, stage_note


def sealed(store: Path, stage: str):
    shelf = Store(store)
    return shelf.seal(shelf.workspace(stage, "0123"), stage, "0123", {}, {}, 1.25)


def test_a_stage_says_what_it_does_and_whether_it_was_computed(tmp_path):
    made = sealed(tmp_path, "solve")
    computed, reused = stage_note(made, reused=False), stage_note(made, reused=True)
    assert computed.startswith(PURPOSES["solve"] + " This one was computed in 1.2 s.")
    assert "reused from an earlier run" in reused and "computed" not in reused
    assert f"| artifact | solve/0123 |\n| digest | {made.sha256[:12]} |" in computed


def test_foreign_text_is_inert(tmp_path):
    text = note("Ours.", [("model", "<img src=x onerror=alert(1)> [x](javascript:1) | `a`\n# big")])
    assert not set("<>`[") & set(text.split("| --- | --- |")[1])
    assert text.count("\n") == 5  # sentence, blank, header, rule, one row
