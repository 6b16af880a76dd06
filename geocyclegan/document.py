"""`model.json`: read and written with the SHA-256 of itself, and of the files beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geocyclegan import __version__
from geocyclegan.errors import BundleError
from geocyclegan.files import sha256, write_json

DOCUMENT = "model.json"
ANEW = "copy the bundle again, or train --resume to write it anew"

_FORMAT = "geocyclegan-bundle"
# Format 1 has no hash of the document itself; otherwise they are the same.
_VERSION, _KNOWN_VERSIONS = 2, (1, 2)
OWN_HASH = "document_sha256"


def write_document(folder: Path, value: Mapping[str, Any]) -> None:
    """Write `model.json`, with what it is and its hash.

    Args:
        folder: the bundle.
        value: what it says of the model.
    """
    document = {"format": _FORMAT, **value, "format_version": _VERSION}
    document[OWN_HASH] = _own_hash(json.dumps(document))
    write_json(folder / DOCUMENT, document)


def read_document(folder: Path) -> tuple[dict[str, Any], str]:
    """Read `model.json`, and compare it with the hash in it.

    Returns:
        The document, and its hash; bundles of format 1 hold none, so theirs says only what it is.

    Raises:
        BundleError: it cannot be read, is damaged or was edited, or is of another format.
    """
    path = folder / DOCUMENT
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise BundleError(f'{path}: not a model bundle ("format" is not "{_FORMAT}")')
    version = document.get("format_version")
    if version not in _KNOWN_VERSIONS:
        raise BundleError(
            f"{path}: bundle format {version}, this geocyclegan {__version__} reads format"
            f" {_VERSION} and older; use the version that wrote it"
            f" ({document.get('geocyclegan')}) or newer"
        )
    own = _own_hash(text)
    if document.get(OWN_HASH, own if version == 1 else None) != own:
        raise BundleError(
            f"{path}: damaged or edited (its SHA-256 is not the {OWN_HASH} in it); {ANEW}"
        )
    return document, own


def check_file(path: Path, expected: str, what: str = "damaged") -> None:
    """Compare a file of a bundle with the hash that its document has of it.

    Raises:
        BundleError: it is missing, cannot be read, or is another.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error}); {ANEW}") from error
    if found != expected:
        raise BundleError(f"{path}: {what} (the SHA-256 is not the one in {DOCUMENT}); {ANEW}")


def _own_hash(text: str) -> str:
    """Hash what a document says, without that hash: not how it is laid out, but every digit."""
    # As text, numbers differ wherever their digits do, though they may be the same in binary.
    document = json.loads(text, parse_float=str)
    document.pop(OWN_HASH, None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
