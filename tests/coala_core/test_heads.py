"""Heads survive the disk bit by bit, in a format that can run no code."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from coala_core.cvxnn import Head
from coala_core.heads import CARD, WEIGHTS, read_head, write_head
from coala_core.storage import Workspace


def make_head(neurons: int = 4, features: int = 3, seed: int = 0) -> Head:
    """A random head."""
    rng = np.random.default_rng(seed)
    return Head(
        first_weight=rng.normal(size=(neurons, features)).astype(np.float32),
        first_bias=rng.normal(size=neurons).astype(np.float32),
        second_weight=rng.normal(size=neurons).astype(np.float32),
    )


def written(folder: Path, head: Head, card: dict[str, object] | None = None) -> Path:
    """Write a head into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_head(Workspace(folder), head, card or {})
    return folder


@given(neurons=st.integers(0, 6), features=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, neurons: int, features: int, seed: int
) -> None:
    head = make_head(neurons, features, seed)
    again = read_head(written(tmp_path_factory.mktemp("head"), head))
    for name in ("first_weight", "first_bias", "second_weight"):
        stored, original = getattr(again, name), getattr(head, name)
        assert stored.dtype == np.float32
        assert_array_equal(stored, original)
    embeddings = np.random.default_rng(seed + 1).normal(size=(5, features)).astype(np.float32)
    assert_array_equal(again.score(embeddings), head.score(embeddings))


@given(neurons=st.integers(0, 6), features=st.integers(1, 5), seed=st.integers(0, 99))
def test_gates_survive_in_full_precision(
    tmp_path_factory: pytest.TempPathFactory, neurons: int, features: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gates = {"gate_weight": rng.normal(size=(neurons, features)), "gate_bias": rng.normal(size=neurons)}
    head = replace(make_head(neurons, features, seed), **gates)
    again = read_head(written(tmp_path_factory.mktemp("head"), head))
    for name, original in vars(head).items():
        assert_array_equal(getattr(again, name), original)
        assert getattr(again, name).dtype == original.dtype
    assert again.gate_weight is not None
    assert again.gate_weight.dtype == np.float64
    embeddings = rng.normal(size=(5, features)).astype(np.float32)
    assert_array_equal(again.score(embeddings), head.score(embeddings))


def test_a_view_of_a_larger_array_is_written_by_value(tmp_path: Path) -> None:
    head = make_head(8, 6)
    view = Head(head.first_weight[::2, ::3], head.first_bias[::2], head.second_weight[::2])
    assert_array_equal(read_head(written(tmp_path, view)).first_weight, head.first_weight[::2, ::3])


def test_equal_heads_have_equal_bytes_and_a_changed_one_has_not(tmp_path: Path) -> None:
    head = make_head()
    first = (written(tmp_path / "a", head) / WEIGHTS).read_bytes()
    assert (written(tmp_path / "b", make_head()) / WEIGHTS).read_bytes() == first
    head.second_weight[0] = np.nextafter(head.second_weight[0], np.float32(9))
    assert (written(tmp_path / "c", head) / WEIGHTS).read_bytes() != first


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    # The format: eight bytes of header length, a JSON header, then nothing but little-endian numbers.
    content = (written(tmp_path, make_head(4, 3)) / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert {name: entry["shape"] for name, entry in header.items()} == {
        "first_weight": [4, 3],
        "first_bias": [4],
        "second_weight": [4],
    }
    assert len(content) == 8 + length + 4 * (12 + 4 + 4)


def test_the_card_says_the_shape_beside_what_it_is_given(tmp_path: Path) -> None:
    folder = written(tmp_path, make_head(4, 3), {"phase": 1, "embed": {"layer": 2}})
    assert json.loads((folder / CARD).read_text()) == {"neurons": 4, "features": 3, "phase": 1, "embed": {"layer": 2}}


def test_a_folder_without_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold head\.safetensors, got none; give the folder of a solve"):
        read_head(tmp_path)
