"""What one probe of `coala doctor` found, and how credentials are kept out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "note", "problem"]
"""Fine; worth knowing but nothing is broken; something will not work."""

_URL_CREDENTIALS = re.compile(r"://\S*@")
_BARE_CREDENTIALS = re.compile(r"[^\s:/'\"]+:(?!//)[^\s'\"]+@")
_NAMED_SECRETS = re.compile(r"((?:password|passwd|pwd|token|key|secret)\w*=)[^&\s'\"]+", re.IGNORECASE)


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis.

    Parameters
    ----------
    name : str
        What was looked at.
    status : {"ok", "note", "problem"}
        Whether it is fine, worth knowing, or in the way of a run.
    finding : str
        What was found.
    remedy : str
        Command to type; never empty for a problem.

    Raises
    ------
    ValueError
        If a problem comes without a remedy.
    """

    name: str
    status: Status
    finding: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status == "problem" and not self.remedy:
            raise ValueError(
                f"`Check({self.name!r}, 'problem', ...)` must have a remedy, got an empty one; name the command to type"
            )

    def without_credentials(self) -> Check:
        """Return the same check with user names, passwords, tokens and keys replaced by ``***``."""
        return replace(self, finding=masked(self.finding), remedy=masked(self.remedy))


def masked(text: str) -> str:
    """Replace the credentials of addresses, and the values of secrets given as ``name=value``, by ``***``."""
    text = _URL_CREDENTIALS.sub("://***@", text)
    text = _BARE_CREDENTIALS.sub("***@", text)
    return _NAMED_SECRETS.sub(r"\1***", text)
