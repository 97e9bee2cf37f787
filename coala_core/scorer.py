"""Score pairs of texts with a stored head and the frozen language model that it was fitted on."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from coala_core.config import EmbedConfig, Pooling
from coala_core.cvxnn.network import Head
from coala_core.embed.embed_pairs import TextPair, embed_pairs
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.model_source import locate_model, materialise
from coala_core.embed.rendering import Message
from coala_core.feature_table import column_name
from coala_core.heads import read_head
from coala_core.storage import Store

EMBEDDING = "embedding.json"
ROLES = ("system", "user", "assistant")

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


class HeadEmbedding(BaseModel):
    """Which features a head takes: language model and what is read of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Folder or hub name of the language model, or "builtin"."""
    revision: str | None
    """Branch, tag or commit of a hub model."""
    fingerprint: str
    """Identifies weights, configuration, tokenizer and chat template."""
    layer: int
    """Hidden layer."""
    pooling: Pooling
    """How a response's states become one vector."""
    max_tokens: int
    """Longest sequence."""
    dtype: str
    """Precision of the language model."""

    def same_features(self, other: HeadEmbedding) -> bool:
        """Tell whether equal texts have equal features under both, wherever the language model lies."""
        place = {"model", "revision"}
        return self.model_dump(exclude=place) == other.model_dump(exclude=place)


class PairScorer:
    """A head with its language model, which is loaded when the first text comes.

    Parameters
    ----------
    head : Head
        Network on raw embeddings.
    embedding : HeadEmbedding
        The features that it takes.
    store : Path
        Where the built-in model's converted folder is kept.
    """

    def __init__(self, head: Head, embedding: HeadEmbedding, store: Path) -> None:
        self.head = head
        self.embedding = embedding
        self._store = Store(store)
        self._guard = threading.Lock()
        self._model: LanguageModel | None = None

    @classmethod
    def read(cls, directory: Path, store: Path, model: str | None = None) -> PairScorer:
        """Read ``head.safetensors`` and ``embedding.json``.

        Parameters
        ----------
        directory : Path
            Folder that holds both.
        store : Path
            As for the class.
        model : str, optional
            Where the language model lies on this machine, if not where it lay when the head was made.

        Raises
        ------
        FileNotFoundError
            If the folder holds no head or does not say which features it takes.
        """
        embedding = HeadEmbedding.model_validate(json.loads((directory / EMBEDDING).read_text(encoding="utf-8")))
        if model is not None:
            embedding = embedding.model_copy(update={"model": model, "revision": None})
        return cls(read_head(directory), embedding, store)

    def score_texts(self, pairs: Sequence[TextPair]) -> Scores:
        """Score both responses of pairs of texts.

        Parameters
        ----------
        pairs : sequence of TextPair, n

        Returns
        -------
        chosen, rejected : (n,) float64

        Raises
        ------
        ValueError
            If the language model is not to be had or is another one, or a text cannot be embedded.
        """
        if not pairs:
            return np.empty(0), np.empty(0)
        with self._guard:  # one forward pass at a time, and the model is loaded once
            features = embed_pairs(pairs, self._language_model(), self._settings()).features
        parts = [column_name(self.embedding.layer, part) for part in self.embedding.pooling.split("+")]
        chosen, rejected = (
            np.concatenate([features[f"{side}_{part}"] for part in parts], axis=1) for side in ("chosen", "rejected")
        )
        return self.head.score(chosen), self.head.score(rejected)

    def _settings(self) -> EmbedConfig:
        wanted = self.embedding
        return EmbedConfig.model_validate(
            {
                "model": wanted.model,
                "revision": wanted.revision,
                "layers": (wanted.layer,),
                "poolings": tuple(wanted.pooling.split("+")),
                "max_tokens": wanted.max_tokens,
                "dtype": wanted.dtype,
            }
        )

    def _language_model(self) -> LanguageModel:
        if self._model is None:
            settings = self._settings()
            source = locate_model(settings, self._store)
            if source.fingerprint != self.embedding.fingerprint:
                raise ValueError(
                    f"`PairScorer(embedding=...)` needs the language model that the head was fitted on, "
                    f"{self.embedding.fingerprint[:24]}, got {source.fingerprint[:24]} in {self.embedding.model}; "
                    "name its folder or revision"
                )
            self._model = load_language_model(materialise(source, self._store), settings)
        return self._model


def text_pair(row: Mapping[str, Any], name: str) -> TextPair:
    """Read a pair in one of TRL's layouts: prompt, chosen and rejected, each as text or as messages.

    Parameters
    ----------
    row : mapping
        A text as prompt is one turn of the user. Chosen and rejected as messages hold one turn of the assistant.
    name : str
        What to call the pair in error messages.

    Raises
    ------
    ValueError
        If a field is missing or is neither text nor messages.
    """
    return TextPair(
        name, _prompt(row.get("prompt"), name), *(_reply(row.get(side), side, name) for side in ("chosen", "rejected"))
    )


def _prompt(value: Any, name: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": value},) if isinstance(value, str) else _messages(value, "prompt", name)


def _reply(value: Any, side: str, name: str) -> str:
    if isinstance(value, str):
        return value
    messages = _messages(value, side, name)
    if [message["role"] for message in messages] != ["assistant"]:
        raise ValueError(
            f"`score({side}=...)` must be text or one assistant message, got {len(messages)} messages in {name}; "
            "move earlier turns into the prompt."
        )
    return messages[0]["content"]


def _messages(value: Any, field: str, name: str) -> tuple[Message, ...]:
    """Messages of a field; what is not a list of known roles with text is refused."""
    rows = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    sound = [
        {"role": row["role"], "content": row["content"]}
        for row in rows
        if isinstance(row, Mapping) and row.get("role") in ROLES and isinstance(row.get("content"), str)
    ]
    if not sound or len(sound) < len(rows):
        raise ValueError(
            f"`score({field}=...)` must be text or messages of role ({', '.join(ROLES)}) and content, "
            f"got {type(value).__name__} in {name}; send TRL's preference layout."
        )
    return tuple(sound)
