"""What is measured of a stream does not depend on how it is cut."""

import hashlib
from collections import Counter
from statistics import fmean

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.storage import digest
from coala_core.triplets import TRIPLET_SCHEMA, TextsDigest
from coala_core.triplets.measures import Measures

letters = st.text(st.sampled_from(["a", "B", "é", "字", "🙂", " "]), max_size=4)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "conversation_id": st.sampled_from(["c1", "c2", "c3"]),
            "pair_id": st.sampled_from([f"p{at}" for at in range(5)]) | letters,
            "group": letters,
            "turn": st.integers(1, 9),
            "prompt": st.lists(letters, min_size=1, max_size=3),
            "chosen": letters,
            "rejected": letters,
        }
    ),
    min_size=1,
    max_size=12,
)
cuts = st.lists(st.integers(0, 12), max_size=4)


def table(content):
    def messages(texts):
        return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]

    named = [
        row
        | {name: messages(row[name] if name == "prompt" else [row[name]]) for name in ("prompt", "chosen", "rejected")}
        for row in content
    ]
    return pa.RecordBatch.from_pylist(named, schema=TRIPLET_SCHEMA)


def pieces(batch, places):
    """Cut one batch, by views of the same buffers."""
    ends = [0, *sorted(min(place, batch.num_rows) for place in places), batch.num_rows]
    return [batch.slice(start, end - start) for start, end in zip(ends, ends[1:], strict=False)]


@settings(deadline=None, max_examples=50)
@given(rows, cuts)
def test_counts_and_means_are_those_of_plain_python(content, places):
    measures, batch = Measures(), table(content)
    for piece in pieces(batch, places):
        if piece.num_rows:
            measures.add(piece)
    assert measures.report() == {
        "conversations": len({row["conversation_id"] for row in content}),
        "triplets": len(content),
        "chosen_longer_share": fmean(len(row["chosen"]) > len(row["rejected"]) for row in content),
        "prompt_characters_mean": fmean(sum(map(len, row["prompt"])) for row in content),
        "chosen_characters_mean": fmean(len(row["chosen"]) for row in content),
        "rejected_characters_mean": fmean(len(row["rejected"]) for row in content),
    }
    repeated = {name: count for name, count in Counter(row["pair_id"] for row in content).items() if count > 1}
    assert measures.repeated_pair_ids(pieces(batch, places)) == repeated


def test_ids_are_read_again_only_where_hashes_are_equal():
    def fail():
        raise AssertionError("there was no reason to read")
        yield

    measures = Measures()
    measures.add(table([row("p1"), row("p2")]))
    assert measures.repeated_pair_ids(fail()) == {}
    measures.add(table([row("p2")]))
    with pytest.raises(AssertionError, match="no reason to read"):
        measures.repeated_pair_ids(fail())


def row(pair_id, prompt=("p",), chosen="a", rejected="b", group="g"):
    return {
        "conversation_id": "c",
        "pair_id": pair_id,
        "group": group,
        "turn": 1,
        "prompt": list(prompt),
        "chosen": chosen,
        "rejected": rejected,
    }


def digest_of(*batches):
    texts = TextsDigest()
    for batch in batches:
        texts.update(batch)
    return texts.hexdigest()


@settings(deadline=None, max_examples=50)
@given(rows, cuts)
def test_the_digest_does_not_depend_on_where_rows_are_cut(content, places):
    batch = table(content)
    assert digest_of(*pieces(batch, places)) == digest_of(batch)
    assert digest_of(*(table([row]) for row in content)) == digest_of(batch)


@settings(deadline=None, max_examples=50)
@given(rows, rows)
def test_equal_texts_have_equal_digests_and_others_have_not(one, other):
    def texts(content):
        return [[row[name] for name in ("pair_id", "prompt", "chosen", "rejected")] for row in content]

    assert (digest_of(table(one)) == digest_of(table(other))) == (texts(one) == texts(other))


@pytest.mark.parametrize(
    "other",
    [
        row("p", ["ab", "c"], "de", "f"),  # a letter moves from one message to the next
        row("p", ["a", "bc"], "d", "ef"),
        row("p", ["abc"], "d", "ef"),
        row("pa", ["", "bc"], "de", "f"),
    ],
)
def test_no_letter_can_move(other):
    assert digest_of(table([other])) != digest_of(table([row("p", ["a", "bc"], "de", "f")]))


def test_the_digest_is_one_of_lengths_and_bytes_by_column():
    def sha256(*numbers, text=None):
        content = b"".join(number.to_bytes(8, "little") for number in numbers) if text is None else text.encode()
        return hashlib.sha256(content).hexdigest()

    parts = {"pair_id: lengths": sha256(2), "pair_id: bytes": sha256(text="p1")}
    for name, texts in {"prompt": ["é", "b"], "chosen": ["yes"], "rejected": [""]}.items():
        roles = ["user", "assistant"][: len(texts)]
        parts[f"{name}: lengths"] = sha256(len(texts))
        for field, values in (("role", roles), ("content", texts)):
            parts[f"{name}.{field}: lengths"] = sha256(*(len(value.encode()) for value in values))
            parts[f"{name}.{field}: bytes"] = sha256(text="".join(values))
    assert digest_of(table([row("p1", ["é", "b"], "yes", "")])) == digest(parts)
