"""Finished pieces of a product, kept until it is whole, so that interrupted work goes on.

They lie in a hidden folder beside the product, `.NAME.pieces`: one file for each piece, with its
place and its SHA-256 in its name, and `job.json`, which says what they are pieces of. A rerun of
the same job takes those that are sound and translates the rest; any other job starts over.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geocyclegan.files import make_folder, write_json
from geocyclegan.inference.engine import Piece
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

_JOB = "job.json"
_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)_([0-9a-f]{64})\.npz")


class KeptPieces:
    """The finished pieces of one product; the caller holds the product's lock.

    Args:
        product: the file that they will make up.
        job: JSON values on which its pixels depend.
        active: False for work so short that keeping is not worth it.
    """

    def __init__(self, product: Path, job: Mapping[str, Any], *, active: bool = True) -> None:
        self.folder = _folder(product)
        # As JSON has it, to compare with what was read.
        self._job = json.loads(json.dumps(dict(job)))
        self._keeping = active

    def load(self) -> Iterator[Piece]:
        """Yield the sound pieces that an interrupted run of this very job left; drop the others.

        Raises:
            OutputError: the folder cannot be made.
        """
        if not self._keeping or not self._is_same_job():
            self.discard()
            if not self._keeping:
                return
            make_folder(self.folder)
            write_json(self.folder / _JOB, self._job)
            return
        for path in sorted(self.folder.iterdir()):
            piece = read_piece(path)
            if piece is not None:
                yield piece
            elif path.name != _JOB:
                path.unlink(missing_ok=True)

    def keep(self, piece: Piece) -> None:
        """Keep a piece; where the disk will not have it, no more are kept, and work goes on."""
        if not self._keeping:
            return
        try:
            save_piece(self.folder, piece)
        except OSError as error:
            log.warning(
                "%s: finished tiles cannot be kept (%s), so an interrupted run would start over",
                self.folder,
                error.strerror or error,
            )
            self._keeping = False
            self.discard()

    def any(self) -> bool:
        """Say whether a piece is kept."""
        return any(_NAME.fullmatch(path.name) for path in self.folder.glob("*"))

    def discard(self) -> None:
        """Remove all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_same_job(self) -> bool:
        try:
            return bool(json.loads((self.folder / _JOB).read_text("utf-8")) == self._job)
        except (OSError, ValueError):
            return False


def save_piece(folder: Path, piece: Piece) -> None:
    """Write a piece under a name with its place and its SHA-256.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, pixels=piece.pixels, valid=np.packbits(piece.valid))
    data = buffer.getvalue()
    window = piece.window
    place = f"{window.row}_{window.col}_{window.height}_{window.width}"
    final = folder / f"{place}_{hashlib.sha256(data).hexdigest()}.npz"
    # Two machines may come to write the same piece, where one was given up too early.
    part = folder / f"{place}_{socket.gethostname()}_{os.getpid()}.part"
    part.write_bytes(data)
    os.replace(part, final)


def recorded_cut(product: Path, job: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return tile and batch of an interrupted run of a job that differs in nothing else."""
    try:
        recorded = json.loads((_folder(product) / _JOB).read_text("utf-8"))
        old, new = recorded["cut"], json.loads(json.dumps(dict(job)))["cut"]
        tile, batch = int(old["tile"]), int(old["batch"])
        if recorded | {"cut": 0} == json.loads(json.dumps(dict(job))) | {"cut": 0}:
            fixed = {"tile": 0, "batch": 0}
            return (tile, batch) if old | fixed == new | fixed else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _folder(product: Path) -> Path:
    return product.with_name(f".{product.stem}.pieces")


def read_piece(path: Path) -> Piece | None:
    """Read a piece; None if the file is none, or is damaged."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != match[5]:
            return None
        window = Window(*(int(match[i]) for i in range(1, 5)))
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            count = window.height * window.width
            valid = np.unpackbits(arrays["valid"], count=count).reshape(window.shape)
            return Piece(window, arrays["pixels"], valid.astype(np.bool_))
    except (OSError, ValueError, KeyError):
        return None
