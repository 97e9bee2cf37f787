"""What every configuration shares: frozen, closed to unknown names, seeds in range, no credentials inside."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

BUILTIN_CONVERSATIONS = "builtin"
BUILTIN_MODEL = "builtin"

CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]+@")
"""User and password of an address."""

QUERY = re.compile(r"\?[^'\"\s]*")
"""What follows an address, where keys may stand."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


def _state_ranges(schema: dict[str, Any]) -> None:
    """Add to each number's description what it may be, since forms show descriptions and not limits."""
    for field in schema.get("properties", {}).values():
        limits: dict[str, Any] = next(
            (kind for kind in (field, *field.get("anyOf", ())) if _LIMITS.keys() & kind.keys()), {}
        )
        stated = ", ".join(f"{word} {limits[name]:,}" for name, word in _LIMITS.items() if name in limits)
        if stated and "description" in field:
            field["description"] = f"{field['description'].rstrip('.')} ({stated})."


_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


class StageConfig(BaseModel):
    """Base of all configurations: frozen, and closed to names it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may hold a key; `parse_config` shows it without
        json_schema_extra=_state_ranges,
    )
