"""Which pictures there are, and that the same pairs give the same bytes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coala_core.quality.pictures import CAPTIONS, draw_groups, pictures
from tests.coala_core.quality.test_measure import PAIRS, measure
from tests.hand_pairs import Pair

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(path: Path, colour: tuple[int, int, int]) -> int:
    return int((pixels(path) == colour).all(axis=-1).sum())


def test_pictures_have_captions_and_the_same_bytes_twice(tmp_path: Path) -> None:
    drawn = pictures(measure(tmp_path))
    assert set(drawn) == set(CAPTIONS)
    again = pictures(measure(tmp_path))
    for name in drawn:
        drawn[name](tmp_path / "first.png")
        again[name](tmp_path / "second.png")
        content = (tmp_path / "first.png").read_bytes()
        assert content.startswith(b"\x89PNG") and b"Software" not in content
        assert content == (tmp_path / "second.png").read_bytes()


def test_only_what_says_something_is_drawn(tmp_path: Path) -> None:
    # One turn and a group for each conversation: nothing but lengths.
    assert set(pictures(measure(tmp_path, [PAIRS[0], PAIRS[4]._replace(group="")]))) == {"lengths.png"}


def test_sides_of_the_ratio_are_told_apart(tmp_path: Path) -> None:
    # Three chosen responses are twice as long as the rejected one, and none is shorter: no orange bar below.
    pairs = [Pair(str(at), 1, ["q"], "xx", "x") for at in range(3)]
    pictures(measure(tmp_path, pairs))["lengths.png"](tmp_path / "p.png")
    height, width, _ = pixels(tmp_path / "p.png").shape
    lower = pixels(tmp_path / "p.png")[height * 55 // 100 :]
    assert [bool((lower == colour).all(axis=-1).sum() > 50) for colour in (BLUE, ORANGE)] == [True, False]
    assert width == 1080


@pytest.mark.parametrize(
    "pairs",
    [
        [Pair("a", 1, ["q"], "x", "x")],
        [
            Pair("a", 1, ["q"], "x", "x" * 20_000),
            Pair("a", 12, ["q"], "x" * 20_000, "x"),
            Pair("a", 14, ["q"], "x", "y"),
        ],
    ],
    ids=["one pair of equal ones", "extreme lengths and late turns"],
)
def test_extreme_pairs_are_drawn_without_a_warning(tmp_path: Path, pairs: list[Pair]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, draw in pictures(measure(tmp_path, pairs)).items():
            draw(tmp_path / name)
            assert count(tmp_path / name, (255, 255, 255)) > 1000


def test_names_of_groups_are_text(tmp_path: Path) -> None:
    names = ["$\\frac{1}{0}$", "线性代数", "a\u202eb\n", "x" * 500, "_^{"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_groups([{"group": name, "pairs": 1, "share": 0.2} for name in names], 9, tmp_path / "g.png")
    assert count(tmp_path / "g.png", BLUE) > 1000
