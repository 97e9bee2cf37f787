"""The report as Markdown, in which foreign text is inert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coala_core.quality.escaping import inert
from coala_core.quality.markdown_sections import SECTIONS, Lines, table


def quality_markdown(report: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """Write the report of `coala_core.quality.assess` for people.

    Parameters
    ----------
    report : mapping
        Measures and verdicts, with the ``name`` of the data.
    pictures : mapping of str to str, optional
        Captions by file name; a picture is referred to in its section, where it is given.

    Returns
    -------
    str
        Markdown with tables. Nothing of the data is markup in it: no tag, link, picture or code.
    """
    lines: Lines = [f"# Quality of {inert(report['name'])}", "", *_opening(report), ""]
    for section in SECTIONS:
        lines += [f"## {section.title}", ""]
        if pictures and section.picture in pictures:
            lines += [f"![{pictures[section.picture]}]({section.picture})", ""]
        lines += [*section.write(report), ""]
    return "\n".join(lines).rstrip() + "\n"


def _opening(report: Mapping[str, Any]) -> Lines:
    """State the verdict before anything else."""
    limits, size = report["limits"], report["size"]
    exceeded = [limit for limit in limits if limit["kept"] is False]
    unknown = [limit for limit in limits if limit["kept"] is None]
    measured = len(limits) - len(unknown)
    verdict = (
        f"**{len(exceeded)} of {measured} limits exceeded: {_listed(exceeded)}.**"
        if exceeded
        else f"**All {measured} limits that could be measured are kept.**"
        if unknown
        else f"**All {measured} limits are kept.**"
    )
    counts = f"{size['pairs']:,} pairs, {size['conversations']:,} conversations, {size['groups']:,} groups."
    rows = [
        (
            limit["measure"],
            "not measured" if limit["value"] is None else f"{limit['value']:.1%}",
            f"{limit['limit']:.1%}",
            {True: "kept", False: "**exceeded**", None: ""}[limit["kept"]],
        )
        for limit in limits
    ]
    advice = [f"- **{limit['measure']}**: {limit['advice']}" for limit in exceeded]
    return [f"{counts} {verdict}", "", *table(("measure", "value", "limit", ""), rows, "lrrl"), *_after(advice)]


def _listed(limits: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(limit["measure"] for limit in limits)


def _after(lines: Sequence[str]) -> Lines:
    """Put a blank line before a list, where there is one."""
    return ["", *lines] if lines else []
