"""Random rows in every layout, laid out here and not by the code under test, and files to keep them in."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

DIALOGUES = ("messages", "sharegpt", "edufeedback", "history")
PAIRS = (
    "preference-conversational",
    "preference-conversational-implicit",
    "preference-standard",
    "preference-standard-implicit",
    "unpaired",
    "unpaired-standard",
)
FORMATS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.zst")
FLAT = ("preference-standard", "preference-standard-implicit", "unpaired-standard")

AWKWARD = ("[1]", "\n\nHuman: x", "=1+1", 'say "no", twice', " a ", "a\r\nb\rc", "\u2028", "𝄞é\x00", "null", "1")
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8"), max_size=8)).filter(str.strip)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS.filter(lambda value: not isinstance(value, str) or value.isascii()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.dictionaries(st.sampled_from(("topic", "score", "tags", "meta", "créé à", "speaker")), VALUES, max_size=3)
EXTRA = st.dictionaries(st.sampled_from(("time", "weight")), VALUES, max_size=2)


@st.composite
def turns(draw, last="any", longest=7):
    """Alternating turns with two replies to the student, perhaps a system turn, either speaker first."""
    said = draw(st.lists(TEXTS, min_size=4, max_size=longest))
    first = draw(st.sampled_from(("user", "assistant")))
    speakers = [("user", "assistant")[(at + (first == "assistant")) % 2] for at in range(len(said))]
    if last == "user" and speakers[-1] == "assistant":
        speakers, said = speakers[:-1], said[:-1]
    dialogue = list(zip(speakers, said, strict=True))
    replies = sum(speaker == "assistant" for speaker in speakers[1:])
    if last == "any" and replies < 2:
        dialogue += [("user", "And?"), ("assistant", "Yes.")] if speakers[-1] == "assistant" else [("assistant", "So.")]
    system = draw(st.none() | TEXTS)
    return [*([] if system is None else [("system", system)]), *dialogue]


def named(rows, key):
    """Give every row an id, of mixed types, under the name of one that readers know."""
    return [{key: at if at % 2 else f"row-{at}", **row} for at, row in enumerate(rows)]


def messages(dialogue, extras=()):
    """TRL's messages."""
    extras = extras or [{}] * len(dialogue)
    return [{"role": role, "content": text, **extra} for (role, text), extra in zip(dialogue, extras, strict=True)]


@st.composite
def dialogue_row(draw, layout):
    """One conversation in a layout, if that can hold it; else without what it cannot hold."""
    dialogue = draw(turns())
    fields = draw(FIELDS)
    if layout == "history":
        while dialogue[0][0] != "user":
            dialogue = dialogue[1:]
        dialogue += [("user", "Why?"), ("assistant", "So."), ("user", "Why?"), ("assistant", "So.")][
            len(dialogue) % 2 :
        ]
        return {**fields, "history": [text for _, text in dialogue]}
    if layout == "edufeedback":
        names = {"system": "system", "user": "agent2", "assistant": "agent1"}
        return {**fields, "utterances": [[names[role], text] for role, text in dialogue]}
    extras = draw(st.just([]) | st.lists(EXTRA, min_size=len(dialogue), max_size=len(dialogue)))
    said = messages(dialogue, extras)
    if layout == "messages":
        return {"messages": said, **fields}
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    keys = {"role": "from", "content": "value"}
    said = [{keys.get(key, key): value for key, value in message.items()} for message in said]
    return {"conversations": [message | {"from": names[message["from"]]} for message in said], **fields}


def unmarked(text):
    """A text that no reader of transcripts takes for another turn."""
    return text.replace("Human", "human")


@st.composite
def pair_rows(draw, layout):
    """The rows of one pair in a layout."""
    single = layout in ("preference-standard", "unpaired-standard")
    prompt = [("user", draw(TEXTS))] if single else draw(turns(last="user", longest=5))
    if layout == "preference-standard-implicit":
        prompt = [(role, text) for role, text in prompt if role != "system"]
        prompt = [(role, unmarked(text)) for role, text in prompt[prompt[0][0] != "user" :]]
        marks = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    chosen, rejected = draw(TEXTS), draw(TEXTS)
    if layout == "preference-standard-implicit":
        chosen, rejected = unmarked(chosen), unmarked(rejected)
    fields = draw(FIELDS)
    said = messages(prompt)
    ours, theirs = messages([("assistant", chosen)]), messages([("assistant", rejected)])
    match layout:
        case "preference-conversational":
            return [{"prompt": said, "chosen": ours, "rejected": theirs, **fields}]
        case "preference-conversational-implicit":
            return [{"chosen": [*said, *ours], "rejected": [*said, *theirs], **fields}]
        case "preference-standard":
            return [{"prompt": prompt[0][1], "chosen": chosen, "rejected": rejected, **fields}]
        case "preference-standard-implicit":
            before = "".join(marks[role] + text for role, text in prompt)
            replies = {"chosen": chosen, "rejected": rejected}
            return [{name: f"{before}{marks['assistant']}{text}" for name, text in replies.items()} | fields]
    texts = layout == "unpaired-standard"
    return [
        {"prompt": prompt[0][1] if texts else said, "completion": reply, "label": label, **fields}
        for reply, label in ((chosen if texts else ours, True), (rejected if texts else theirs, False))
    ]


def write_lines(path: Path, rows) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path):
    """Read JSON lines, one object a line feed."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def exactly(rows):
    """Rows as text, in which 1, 1.0 and true differ; the order of fields is no part of a row."""
    return [json.dumps(row, sort_keys=True) for row in rows]
