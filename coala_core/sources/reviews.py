"""IMDb's reviews as they came: one text a file, its label the folder, its rating in the name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from coala_core.sources import lines
from coala_core.sources.lines import not_utf8
from coala_core.sources.records import Fault, Reject, Row, excerpt_of

_NAME = re.compile(r"(?P<number>[0-9]+)_(?P<rating>[0-9]{1,2})")


def review_rows(stream: BinaryIO, source: str, path: str) -> Iterator[Row | Reject]:
    """Read the one review of a file.

    Parameters
    ----------
    stream : binary file
        The text, UTF-8.
    source : str
        Name of the file, for rows and rejects.
    path : str
        Its path, which ends like ``train/pos/0_9.txt``: split, label, number and rating.

    Yields
    ------
    Row or Reject
        One, ``{"id": "train/pos/0_9", "label": 1 | 0, "rating": int, "text": str}``.
    """
    parts = PurePosixPath(path.replace("\\", "/")).with_suffix("").parts[-3:]
    raw = stream.read(lines.MAX_LINE_BYTES + 1)
    named = _NAME.fullmatch(parts[-1])
    if len(raw) > lines.MAX_LINE_BYTES:
        yield lines.long_line(source, 1, raw)
    elif named is None:
        reason = "the file is not named after number and rating, as 0_9.txt is"
        yield Reject(source, 1, Fault.UNKNOWN_LAYOUT, reason, excerpt_of(raw[:1024]))
    else:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield not_utf8(raw, error, source, 1)
            return
        label = int(parts[-2].lower() == "pos")
        content = {"id": "/".join(parts), "label": label, "rating": int(named["rating"]), "text": text}
        yield Row(1, content, source)
