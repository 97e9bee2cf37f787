"""Planted secrets and the search for them, and for pickles, in everything that a run leaves."""

from __future__ import annotations

import io
import secrets
import zipfile
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

READ = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "PGPASSWORD",
    "COALA_POSTGRES_PASSWORD",
    "COALA_PREFECT_DB_PASSWORD",
    "COALA_MLFLOW_DB_PASSWORD",
    "COALA_PREFECT_PASSWORD",
    "COALA_MLFLOW_PASSWORD",
    "COALA_MLFLOW_SECRET_KEY",
)
"""Environment variables with secrets that the project, or a client that it uses, reads."""

PICKLED = (b"gASV", b"gAWV", b"gAJ9", b"gAN9")
"""How base64 of a pickle begins: protocols 4, 5, and dictionaries of 2 and 3."""


def planted() -> dict[str, str]:
    """A secret of its own for each variable, which names where it leaked from."""
    return {name: f"canary-{name.lower().replace('_', '-')}-{secrets.token_hex(8)}" for name in READ}


def disguises(secret: str) -> list[bytes]:
    """How a secret may look where it leaks: as it is, quoted, reversed for a header, or as base64 of any alignment."""
    encoded = [b64encode(b"x" * shift + secret.encode())[4 if shift else 0 : -4] for shift in range(3)]
    return [secret.encode(), quote(secret, safe="").replace("-", "%2D").encode(), *encoded]


def leaks(values: Mapping[str, str], folders: Iterable[Path], texts: Mapping[str, str]) -> list[str]:
    """Where a secret is found: any file below some folders, hidden ones and databases included, or a text."""
    places = {
        str(path): path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()
    }
    places |= {name: text.encode() for name, text in texts.items()}
    return [
        f"{name} in {place}"
        for place, content in places.items()
        for name, secret in values.items()
        if any(look in content for look in disguises(secret))
    ]


def pickles(folder: Path) -> Iterator[str]:
    """Every file that is a pickle, holds one in a zip archive, or has one as base64."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (kind := pickle_kind(path.read_bytes())):
            yield f"{path}: {kind}"


def pickle_kind(content: bytes) -> str | None:
    """Say in which way a file holds a pickle, None if it does not."""
    if _is_pickle(content):
        return "a pickle"
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(name.endswith(".pkl") or _is_pickle(archive.read(name)) for name in archive.namelist()):
                return "a pickle in a zip archive"
    return "a pickle as base64" if any(f'"{mark.decode()}'.encode() in content for mark in PICKLED) else None


def _is_pickle(content: bytes) -> bool:
    """Protocols 2 to 5 begin with their number, and every pickle ends with a full stop."""
    return len(content) > 3 and content[0] == 0x80 and content[1] in range(2, 6) and content.rstrip(b"\n")[-1:] == b"."
