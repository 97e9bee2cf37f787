"""The sections of the Markdown report, each from its part of the measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from coala_core.quality.escaping import inert
from coala_core.quality.lengths import CONFIDENCE
from coala_core.quality.numbers import TEXTS

Report = Mapping[str, Any]
Lines = list[str]

_CHARACTERS = {"prompt": 500, "chosen": 500, "rejected": 500}
_SHOWN_LANGUAGES = 8


class Section(NamedTuple):
    """One section: its title, the picture that belongs to it, and what writes it."""

    title: str
    picture: str
    write: Callable[[Report], Lines]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> Lines:
    """Write a Markdown table; cells are taken as they are, so foreign text must be inert.

    Parameters
    ----------
    header : sequence of str
        Titles of the columns.
    rows : iterable of sequences of str
        Cells.
    align : str
        ``l`` or ``r`` for each column.
    """
    rule = [{"l": "---", "r": "---:"}[side] for side in align]
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rule, *rows)]


def _rows(report: Report) -> Lines:
    """Rows in and out, and why rows were not used."""
    rows = report["rows"]
    layouts = ", ".join(f"{inert(name)} {count:,}" for name, count in rows["layouts"].items())
    opening = (
        f"{rows['rows_in']:,} rows read, {rows['rows_used']:,} used ({layouts}), {rows['rows_rejected']:,} rejected "
        f"({rows['rejected_share']:.1%}); of used rows {rows['pairs_rejected']:,} single pairs were left out."
    )
    if not rows["reasons"]:
        return [opening]
    cells = [
        (inert(reason["fault"]), f"{reason['count']:,}", "; ".join(map(_reject, reason["first"])))
        for reason in rows["reasons"]
    ]
    return [opening, "", *table(("reason", "count", "first rows"), cells, "lrl")]


def _reject(reject: Mapping[str, Any]) -> str:
    return f"{inert(reject['file'], 80)} row {reject['row']}: {inert(reject['reason'], 160)}"


def _size(report: Report) -> Lines:
    """Conversations, groups and the lengths of texts."""
    size, dialogues = report["size"], report["dialogues"]
    described = {
        "pairs in a conversation": size["pairs_per_conversation"],
        **({"turns with a chosen reply in a conversation": dialogues["last_turn"]} if dialogues else {}),
        "pairs in a group": size["pairs_per_group"],
        "messages in a prompt": size["messages_per_prompt"],
        **{f"characters, {name}": size["characters"][name] for name in TEXTS},
        **{f"words, {name}": size["words"][name] for name in TEXTS},
    }
    names = ("min", "lower_quartile", "median", "upper_quartile", "max", "mean")
    cells = [
        (title, *(f"{values[name]:,.0f}" for name in names[:5]), f"{values['mean']:,.1f}")
        for title, values in described.items()
    ]
    header = ("", "least", "lower quartile", "median", "upper quartile", "most", "mean")
    closing = (
        f"The largest group holds {size['largest_group_share']:.1%} of the pairs. {size['identical_pairs']:,} pairs "
        f"({size['identical_share']:.1%}) consist of twice the same response."
    )
    return [*table(header, cells, "lrrrrrr"), "", closing]


def _groups(report: Report) -> Lines:
    """Name the largest groups, where a group is more than a conversation."""
    if not report["groups"]:
        return ["Every conversation is a group of its own; triplets.group_by names a field to group by."]
    cells = [(inert(row["group"], 80), f"{row['pairs']:,}", f"{row['share']:.1%}") for row in report["groups"]]
    return table(("largest groups", "pairs", "share"), cells, "lrr")


def _length_bias(report: Report) -> Lines:
    """Tell how far length alone goes."""
    bias = report["length_bias"]
    low, high = bias["wilson"]
    cells = [
        ("chosen longer", f"{bias['longer_share']:.1%}"),
        ("chosen shorter", f"{bias['shorter_share']:.1%}"),
        ("equally long", f"{bias['equal_share']:.1%}"),
        ('accuracy of "the longer one is chosen"', f"{bias['longer_wins']:.1%}, {low:.1%} to {high:.1%}"),
        ('accuracy of "the shorter one is chosen"', f"{bias['shorter_wins']:.1%}"),
        ("typical length of chosen over rejected", f"{bias['typical_ratio']:.2f}"),
    ]
    closing = (
        f"In characters; equal lengths count half. The interval is Wilson's at {CONFIDENCE:.0%} for "
        f"{bias['effective_pairs']:,} pairs: those of one group depend on each other, and together they say as much "
        "as so many independent ones. A head is worth no more than what it adds to the better rule."
    )
    return [*table(("of all pairs", ""), cells, "lr"), "", closing]


def _position(report: Report) -> Lines:
    """Tell what the place of a reply gives away."""
    position = report["position"]
    if position["population"] != "alternating":
        return [
            "The pairs came ready. In which order their judge saw the two responses is not in the data, so nothing "
            "is known of a preference for a place."
        ]
    opening = (
        "Alternating population always chooses the earlier of two replies of a conversation, so whatever changes from "
        "turn to turn tells the chosen one, whether it makes a reply better or not."
    )
    turns = [
        (
            f"{row['turn']}{' and later' if row['and_later'] else ''}",
            f"{row['pairs']:,}",
            f"{row['chosen_characters']:,.0f}",
            f"{row['rejected_characters']:,.0f}",
            f"{row['longer_wins']:.1%}",
        )
        for row in position["turns"]
    ]
    replies = [
        (str(row["position"]), f"{row['chosen_share']:.0%}", f"{row['characters']:,.0f}") for row in position["replies"]
    ]
    return [
        opening,
        "",
        *table(("turn", "pairs", "characters, chosen", "characters, rejected", "longer one chosen"), turns, "rrrrr"),
        "",
        f"Knowing the turn and going by the likelier length is right in {position['length_by_turn']:.1%} of pairs.",
        "",
        *table(("place of a reply", "of its pairs, chosen in", "characters"), replies, "rrr"),
    ]


def _near_duplicates(report: Report) -> Lines:
    """Tell how many responses another conversation repeats."""
    found = report["near_duplicates"]
    whole = found["sampled_pairs"] == report["size"]["pairs"]
    scope = "all pairs" if whole else f"{found['sampled_pairs']:,} pairs drawn at random"
    opening = (
        f"Of {found['responses']:,} different responses of {scope}, {found['near_duplicates']:,} "
        f"({found['share']:.1%}) share at least {found['similarity']:.0%} of their word triples (Jaccard) with a "
        f"response of another conversation; they form {found['clusters']:,} clusters."
    )
    if not whole:
        opening += " In the whole set the share is higher, since most partners of a response are not in the sample."
    if not found["largest"]:
        return [opening]
    cells = [
        (
            f"{cluster['responses']:,}",
            f"{cluster['conversations']:,}",
            f"{cluster['wordings']:,}",
            inert(cluster["example"], 120) or "(empty)",
        )
        for cluster in found["largest"]
    ]
    return [opening, "", *table(("responses", "conversations", "wordings", "one of them"), cells, "rrrl")]


def _leaks(report: Report) -> Lines:
    """Tell what the test split shares with training."""
    leaks = report["leaks"]
    if leaks is None:
        return ["Not measured: there is no split."]
    cells = [(kind, f"{row['test']:,}", f"{row['shared']:,}", f"{row['share']:.1%}") for kind, row in leaks.items()]
    closing = (
        "Different texts, compared without case and spacing; a prompt by its last message. No group is in two splits."
    )
    return [*table(("of the test split", "texts", "also in training", "share"), cells, "lrrr"), "", closing]


def _languages(report: Report) -> Lines:
    """List the languages of chosen responses."""
    mix = report["languages"]
    shown, others = mix["languages"][:_SHOWN_LANGUAGES], mix["languages"][_SHOWN_LANGUAGES:]
    cells = [(inert(row["language"]), f"{row['texts']:,}", f"{row['share']:.1%}") for row in shown]
    rest = {
        f"{len(others)} other languages": sum(row["texts"] for row in others),
        "undetermined": mix["undetermined"],
        "too short to tell": mix["short"],
    }
    cells += [(name, f"{count:,}", f"{count / mix['texts']:.1%}") for name, count in rest.items() if count]
    opening = f"Guessed by a model from {mix['texts']:,} chosen responses; code and formulas mislead it."
    return [opening, "", *table(("language", "responses", "share"), cells, "lrr")]


def _markers(report: Report) -> Lines:
    """List what a model or a page would obey."""
    markers = report["markers"]
    found = [row for row in markers["kinds"] if row["pairs"]]
    cells = [
        (
            f"**{row['kind']}**" if row["limited"] else row["kind"],
            f"{row['pairs']:,}",
            f"{row['share']:.1%}",
            *(f"{row[name]:,}" for name in TEXTS),
            ", ".join(inert(pair_id, 60) for pair_id in row["first"]),
        )
        for row in found
    ]
    limited = " or ".join(row["kind"] for row in markers["kinds"] if row["limited"])
    lines = [f"{markers['pairs']:,} pairs ({markers['share']:.1%}) hold {limited}, which are limited."]
    if found:
        header = ("found", "pairs", "share", *(f"in {name}" for name in TEXTS), "first pairs")
        lines += ["", *table(header, cells, "lrrrrrl")]
    if markers["control_tokens"]:
        tokens = [(inert(row["token"], 60), f"{row['pairs']:,}") for row in markers["control_tokens"]]
        lines += ["", *table(("control token", "pairs"), tokens, "lr")]
    absent = [row["kind"] for row in markers["kinds"] if not row["pairs"]]
    return [*lines, "", f"Nowhere found: {', '.join(absent)}."] if absent else lines


def _samples(report: Report) -> Lines:
    """Show some pairs."""
    lines: Lines = ["Drawn at random. ⏎ is a line end; signs that cannot be seen stand by name in brackets."]
    alternating = report["position"]["population"] == "alternating"
    for sample in report["samples"]:
        turn = f", turn {sample['turn']}" if alternating else ""
        before = f", {sample['messages'] - 1} messages before this prompt" if sample["messages"] > 1 else ""
        header = ("pair", f"{inert(sample['pair_id'], 80)}{turn}{before}")
        cells = [(name, inert(sample[name], limit)) for name, limit in _CHARACTERS.items()]
        lines += ["", *table(header, cells, "ll")]
    return lines


SECTIONS = (
    Section("Rows", "", _rows),
    Section("Sizes", "lengths.png", _size),
    Section("Groups", "groups.png", _groups),
    Section("Length bias", "", _length_bias),
    Section("Position bias", "turns.png", _position),
    Section("Near-duplicates", "", _near_duplicates),
    Section("Leaks between splits", "", _leaks),
    Section("Languages", "", _languages),
    Section("Control tokens and active content", "", _markers),
    Section("Five pairs", "", _samples),
)
"""In the order of the report."""
