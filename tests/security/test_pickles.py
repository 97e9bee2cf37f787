"""Heads and models whose files are pickles are refused, and nothing in them runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from coala_core.config import EmbedConfig
from coala_core.embed.model_source import locate_model
from coala_core.heads import WEIGHTS, read_head
from coala_core.storage import Store


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path: Path) -> bytes:
    content = pickle.dumps(Bomb(tmp_path / "exploded"))
    pickle.loads(content)
    assert (tmp_path / "exploded").exists()  # else the tests would prove nothing
    (tmp_path / "exploded").unlink()
    return content


def test_a_pickled_head_is_no_head(tmp_path: Path, bomb: bytes) -> None:
    for name in ("head.bin", "head.pt", "head.pkl"):
        (tmp_path / name).write_bytes(bomb)
    with pytest.raises(FileNotFoundError, match=f"must hold {WEIGHTS}, got none"):
        read_head(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_run(tmp_path: Path, bomb: bytes) -> None:
    from safetensors import SafetensorError

    (tmp_path / WEIGHTS).write_bytes(bomb)
    with pytest.raises(SafetensorError, match="header"):
        read_head(tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.pkl"])
def test_pickled_weights_of_a_language_model_are_refused_with_the_reason(
    tmp_path: Path, bomb: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(ValueError, match="must hold .safetensors weights, got none; .*pickled weights are not loaded"):
        locate_model(EmbedConfig(model=str(tmp_path)), Store(tmp_path / "store"))
    assert not (tmp_path / "exploded").exists()


def test_a_model_with_code_of_its_own_is_refused_and_not_run(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    import json
    import shutil

    from coala_core.embed.model_settings import read_depth

    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    content = json.loads((folder / "config.json").read_text())
    content |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Foreign"}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'exploded')!r}).touch()\n")
    with pytest.raises(ValueError, match="brings its own code"):
        read_depth(folder)
    assert not (tmp_path / "exploded").exists()
