"""Decoded chips in files that all processes of a machine share, for sets that memory cannot hold.

The files live as long as the run. They are as large as they can become from the start, so that a
full disk is found then and not in the middle of an epoch; what is read often stays in memory, which
the operating system sees to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.files import make_folder

_ABSENT, _WHOLE, _MASKED = 0, 1, 2

Levels = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]


class MappedLevels:
    """The levels of one set, each chip written once by whoever needs it first.

    Two processes may both decode a chip; they write the same bytes.

    Args:
        folder: where the files are.
        chips: the set.

    Raises:
        OutputError: there is no room, or no file can be made there.
    """

    def __init__(self, folder: Path, chips: ChipSet) -> None:
        count, bands, size = len(chips), chips.domain.count, chips.size
        described = [[str(path) for path in chips.paths], size, chips.domain.to_json()]
        name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
        self._levels = _map(folder / f"{name}.levels", (count, bands, size, size), np.float32)
        self._valid = _map(folder / f"{name}.valid", (count, size, size), np.bool_)
        self._state = _map(folder / f"{name}.state", (count,), np.uint8)

    def get(self, index: int) -> tuple[Levels, Valid | None] | None:
        """Return a chip; None if no process has decoded it yet.

        Returns:
            Levels float32 `(bands, size, size)` and the mask `(size, size)`, None where all pixels
            are valid: views of the files, not to be changed.
        """
        state = int(self._state[index])
        if state == _ABSENT:
            return None
        return self._levels[index], self._valid[index] if state == _MASKED else None

    def put(self, index: int, levels: Levels, valid: Valid | None) -> None:
        """Keep a chip.

        Args:
            index: its number in the set.
            levels: `(bands, size, size)` in [-1, 1].
            valid: `(size, size)`; None: all are valid.
        """
        self._levels[index] = levels
        if valid is not None:
            self._valid[index] = valid
        # Last, so that nobody reads what is not all there.
        self._state[index] = _WHOLE if valid is None else _MASKED


def cache_folder(folder: Path, run: Path) -> Path:
    """Return where a run keeps its files on this machine; other machines may see the folder too."""
    key = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]
    return folder / f"geocyclegan-{run.name}-{key}-{socket.gethostname()}"


def _map(path: Path, shape: tuple[int, ...], kind: type[np.generic]) -> npt.NDArray[np.generic]:
    try:
        make_folder(path.parent)
    except (OptionError, OutputError) as error:
        raise OutputError(f"--cache {path.parent.parent}: no folder can be made there") from error
    size = max(int(np.prod(shape)) * np.dtype(kind).itemsize, 1)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # A file with holes would end the process where the disk is full.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                os.ftruncate(handle, size)
        finally:
            os.close(handle)
        if 0 in shape:
            return np.zeros(shape, kind)
        return np.memmap(path, kind, "r+", shape=shape)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise OutputError(
            f"--cache {path.parent.parent}: needs {size / 2**20:.0f} MiB for {path.name},"
            f" {free / 2**20:.0f} MiB are free ({error.strerror or error})"
        ) from error
