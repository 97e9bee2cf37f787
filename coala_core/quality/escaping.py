"""Foreign text made harmless, where it is shown as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata

_LINE_END = re.compile(r"\r\n|\r|\n")
# A dot or a colon inside a word may be part of an address, which GitHub makes a link.
_OBEYED = re.compile(r"""[&<>"\\`*_{}\[\]#|~^$@]|[.:](?=\S)""")
_AFTER_AT = "&#8288;"
"""A word joiner: GitHub looks for mail addresses after it has decoded entities."""
_CONTROL_NAMES = (
    "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
).split()
# Emoji and some scripts need the two joiners; alone they hide and reorder nothing.
_JOINERS = "\u200c\u200d"


def inert(text: str, characters: int | None = None) -> str:
    """Write text so that neither Markdown nor HTML finds anything to obey in it.

    The result is one line: signs with a meaning become numeric entities, a line end the sign ⏎, any other control,
    format, private or separator character its code point and name in brackets. Whoever reads the rendered page sees
    the text. It must not be the beginning of a line of Markdown.

    Parameters
    ----------
    text : str
        Any text.
    characters : int, optional
        Longer texts are cut there and end with an ellipsis.
    """
    shown = text if characters is None or len(text) <= characters else f"{text[:characters]}…"
    named = "".join(_visible(sign) for sign in _LINE_END.sub(" \n ", shown))
    return _OBEYED.sub(_entity, " ".join(named.split()))


def _entity(found: re.Match[str]) -> str:
    sign = found.group()
    return f"&#{ord(sign)};{_AFTER_AT if sign == '@' else ''}"


def _visible(sign: str) -> str:
    """Return a character that can be seen, or the name of one that cannot."""
    if sign.isprintable() or sign in _JOINERS:
        return sign
    if sign == "\n":
        return "⏎"
    if sign == "\t" or unicodedata.category(sign) == "Zs":
        return " "
    code = ord(sign)
    name = _CONTROL_NAMES[code] if code < len(_CONTROL_NAMES) else unicodedata.name(sign, "")
    return f"[U+{code:04X} {name}]" if name else f"[U+{code:04X}]"
