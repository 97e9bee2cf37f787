"""What every configuration shares: frozen, closed to unknown names, seeds in range, no credentials inside."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BUILTIN_CONVERSATIONS = "builtin"
BUILTIN_MODEL = "builtin"

CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]+@")
"""User and password of an address."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class StageConfig(BaseModel):
    """Base of all configurations: frozen, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
