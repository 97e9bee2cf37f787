"""Languages of texts of which one knows the language."""

from __future__ import annotations

import pytest

from coala_core.quality.languages import language_mix

ENGLISH = "The derivative tells how fast the output changes when the input moves a little."
GERMAN = "Die Ableitung sagt, wie schnell sich die Ausgabe ändert, wenn man die Eingabe verschiebt."
FRENCH = "La dérivée indique à quelle vitesse la sortie change lorsque l'entrée se déplace un peu."
CHINESE = "导数表示当输入稍微变化时输出变化的速度有多快。"


def test_a_mix_is_counted_by_language(capfd: pytest.CaptureFixture[str]) -> None:
    mix = language_mix([ENGLISH, ENGLISH, GERMAN, FRENCH, CHINESE, "Oui.", "x = 3y + 2, 12 34 56 78 90 12 34"])
    assert [(row["language"], row["texts"]) for row in mix["languages"]] == [("en", 2), ("de", 1), ("fr", 1), ("zh", 1)]
    assert mix["languages"][0]["share"] == pytest.approx(2 / 7)
    # "Oui." has three letters and the formula two.
    assert (mix["texts"], mix["short"], mix["undetermined"]) == (7, 2, 0)
    assert capfd.readouterr() == ("", "")


def test_nonsense_is_undetermined() -> None:
    mix = language_mix(["qzxv wkjh pqqz vvxw zzkq xjwq", "la la la la la la la la la la la"])
    assert (mix["undetermined"], mix["languages"]) == (2, [])


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs at least one text, got none"):
        language_mix([])
