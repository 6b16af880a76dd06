"""The SHA-256 of a chip file, as the manifest lists it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from geocyclegan.chips.manifest import MANIFEST
from geocyclegan.chips.npyfile import mask_path
from geocyclegan.errors import ChipsError
from geocyclegan.files import sha256

_State = tuple[int, ...]


def chip_digest(chip: Path) -> str:
    """Return the SHA-256 of a chip, of an npy with the mask beside it.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    mask = mask_path(chip)
    if chip.suffix != ".npy" or not mask.exists():
        return sha256(chip)
    digest = hashlib.sha256(chip.read_bytes())
    digest.update(mask.read_bytes())
    return digest.hexdigest()


class DigestCheck:
    """Compares chips with their hashes when they are first read, and when they have changed since.

    The bytes are read twice, the second time from the memory of the system, since GDAL opens a file
    with what lies beside it. A hash takes a good part of the time of decoding, hence only the first
    time: later a look at size and time of change is enough. No lock is held, so threads go on; safe
    to use from many.
    """

    def __init__(self) -> None:
        self._sound: dict[Path, _State] = {}

    def require(self, chip: Path, expected: str) -> None:
        """Let a chip pass that is what was written.

        Args:
            chip: the file.
            expected: its hash in the manifest; empty: nothing is known of it.

        Raises:
            ChipsError: it is another file than was written, or it cannot be read.
        """
        if not expected:
            return
        try:
            # Before the hash, so that what changes meanwhile is noticed the next time.
            state = _state(chip)
            if self._sound.get(chip) == state:
                return
            found = chip_digest(chip)
        except OSError as error:
            raise ChipsError(f"{chip}: cannot be read ({error.strerror or error})") from error
        if found != expected:
            raise ChipsError(
                f"{chip}: damaged or replaced (its SHA-256 is not the one in {MANIFEST});"
                f" geocyclegan verify {chip.parent.parent} names all such chips; chip their scenes"
                " again"
            )
        self._sound[chip] = state


def _state(chip: Path) -> _State:
    found = os.stat(chip)
    state: _State = (found.st_size, found.st_mtime_ns, found.st_ino)
    if chip.suffix == ".npy" and (mask := mask_path(chip)).exists():
        found = os.stat(mask)
        state += (found.st_size, found.st_mtime_ns, found.st_ino)
    return state
