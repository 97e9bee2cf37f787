"""Heads on disk: weights as safetensors, what they belong to as JSON; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from coala_core.cvxnn import Head
from coala_core.storage import Workspace

WEIGHTS = "head.safetensors"
CARD = "head.json"


def write_head(workspace: Workspace, head: Head, card: Mapping[str, Any]) -> None:
    """Write ``head.safetensors`` and ``head.json``.

    Parameters
    ----------
    workspace : Workspace
        Receives both files.
    head : Head
        Network on raw embeddings.
    card : mapping
        JSON values that say which embeddings it takes and how it was made.
    """
    tensors = {name: np.ascontiguousarray(part) for name, part in vars(head).items() if part is not None}
    workspace.write(WEIGHTS, lambda path: save_file(tensors, path))
    neurons, features = head.first_weight.shape
    workspace.write_json(CARD, {"neurons": neurons, "features": features, **card})


def read_head(directory: Path) -> Head:
    """Read the head of a ``solve`` or ``finetune`` artifact.

    Raises
    ------
    FileNotFoundError
        If the folder holds no head.
    """
    path = directory / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"`{directory}` must hold {WEIGHTS}, got none; give the folder of a solve or finetune artifact"
        )
    return Head(**load_file(path))
