"""One chip as a NumPy array file, with its valid mask beside it where some pixel is invalid.

The array is `(bands, height, width)` in stored units; what is known of bands and place is in
`domain_*.json` and `chips.parquet`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.grid import Grid

MASK_SUFFIX = ".valid.npy"


def mask_path(chip: Path) -> Path:
    """Return where the valid mask of a chip lies, if it has one of its own."""
    return chip.with_name(chip.stem + MASK_SUFFIX)


def owner_name(name: str) -> str:
    """Return the name of the chip that a file belongs to: its own, or that of its mask's chip."""
    return name.removesuffix(MASK_SUFFIX) + ".npy" if name.endswith(MASK_SUFFIX) else name


class NpyEncoder:
    """Makes npy files of chips; to be used like a `ChipEncoder`.

    Args:
        filler: what invalid pixels hold.
    """

    def __init__(self, filler: float) -> None:
        self.filler = filler

    def encode(self, grid: Grid, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> bytes:
        """Return an npy file of pixels `(bands, height, width)`, in stored units.

        `grid` and the mask `valid` `(height, width)` are not part of it, see `beside`.
        """
        return _bytes(pixels)

    def beside(self, valid: npt.NDArray[np.bool_]) -> bytes:
        """Return an npy file of a mask `(height, width)`; empty where all pixels are valid."""
        return b"" if valid.all() else _bytes(valid)


def _bytes(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def read_mask(chip: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Read the valid mask beside a chip.

    Args:
        chip: the chip's file.
        shape: rows and columns of the chip.

    Returns:
        The mask `(height, width)` of that shape; None if there is none.

    Raises:
        OSError, ValueError, EOFError: it cannot be read, or is no mask of that shape.
    """
    path = mask_path(chip)
    if not path.exists():
        return None
    mask = np.load(path, allow_pickle=False)
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"{path.name} is no valid mask of {shape[0]} x {shape[1]} px")
    return np.asarray(mask)
