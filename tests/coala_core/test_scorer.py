from pathlib import Path

import numpy as np
import pytest

from coala_core.config import EmbedConfig
from coala_core.cvxnn.network import Head
from coala_core.embed.embed_pairs import TextPair, embed_pairs
from coala_core.embed.language_model import load_language_model
from coala_core.embed.model_source import locate_model
from coala_core.scorer import HeadEmbedding, PairScorer, text_pair
from coala_core.storage import Store

TURN = {"role": "user", "content": "Why?"}
REPLY = {"role": "assistant", "content": "Because."}


def test_texts_and_messages_are_the_same_pair():
    texts = text_pair({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "row 0")
    messages = text_pair({"prompt": [TURN], "chosen": [REPLY], "rejected": "No."}, "row 0")
    assert texts == messages == TextPair("row 0", (TURN,), "Because.", "No.")


@pytest.mark.parametrize(
    ("field", "value", "came"),
    [
        ("prompt", None, "NoneType"),
        ("prompt", [], "list"),
        ("prompt", [{"role": "tool", "content": "x"}], "list"),
        ("prompt", [{"role": "user", "content": 3}], "list"),
        ("chosen", 3.5, "float"),
        ("rejected", {"role": "assistant", "content": "x"}, "dict"),
        ("rejected", [TURN, REPLY], "2 messages"),
        ("chosen", [TURN], "1 messages"),
    ],
)
def test_what_is_neither_text_nor_messages_is_refused(field, value, came):
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."} | {field: value}
    with pytest.raises(ValueError, match=rf"`score\({field}=...\)` must be text or .*got {came} .*row 7"):
        text_pair(row, "row 7")


def test_where_the_model_lies_does_not_matter_for_the_features():
    here = HeadEmbedding(
        model="/a", revision=None, fingerprint="f", layer=2, pooling="mean", max_tokens=64, dtype="float32"
    )
    assert here.same_features(here.model_copy(update={"model": "/b", "revision": "main"}))
    for change in ({"fingerprint": "g"}, {"layer": 3}, {"pooling": "last"}, {"max_tokens": 32}, {"dtype": "bfloat16"}):
        assert not here.same_features(here.model_copy(update=change))


def scorer(folder: Path, store: Path, fingerprint: str | None = None) -> PairScorer:
    found = fingerprint or locate_model(EmbedConfig(model=str(folder)), Store(store)).fingerprint
    rng = np.random.default_rng(0)
    head = Head(*(rng.normal(size=shape).astype(np.float32) for shape in ((3, 64), (3,), (3,))))
    embedding = HeadEmbedding(
        model=str(folder),
        revision=None,
        fingerprint=found,
        layer=2,
        pooling="mean+last",
        max_tokens=64,
        dtype="float32",
    )
    return PairScorer(head, embedding, store)


def test_scores_are_those_of_the_embedded_features(tiny_models, tmp_path):
    pairs = [TextPair(f"p{i}", (TURN,), f"Because of {i}.", "No idea.") for i in range(3)]
    scored = scorer(tiny_models["llama"], tmp_path)
    config = EmbedConfig(
        model=str(tiny_models["llama"]), layers=(2,), poolings=("mean", "last"), max_tokens=64, dtype="float32"
    )
    found = embed_pairs(pairs, load_language_model(tiny_models["llama"], config), config).features
    for side, scores in zip(("chosen", "rejected"), scored.score_texts(pairs), strict=True):
        features = np.hstack([found[f"{side}_layer2_mean"], found[f"{side}_layer2_last"]])
        np.testing.assert_allclose(scores, scored.head.score(features), rtol=1e-6)
    assert [len(scores) for scores in scored.score_texts([])] == [0, 0]


def test_another_language_model_is_refused(tiny_models, tmp_path):
    other = scorer(tiny_models["llama"], tmp_path, fingerprint="0" * 64)
    with pytest.raises(ValueError, match="needs the language model that the head was fitted on, 000000.*revision"):
        other.score_texts([TextPair("p", (TURN,), "a", "b")])
