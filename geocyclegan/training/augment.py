"""Random crops, mirrors and quarter turns, as values that are drawn once and applied to anything.

A chip's pixels and its valid mask go through the same `Augmentation`, so they cannot part. Other
scales and angles, which need new pixels, are in `warp`; what changes values is in `radiometric`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(frozen=True)
class Augmentation:
    """A crop and one of the eight ways to lay it down.

    Attributes:
        row: first row of the crop.
        col: first column of the crop.
        mirrored: left and right are swapped, before the turns.
        turns: quarter turns, counter-clockwise.
    """

    row: int
    col: int
    mirrored: bool = False
    turns: int = 0

    def apply(self, image: npt.NDArray[ScalarT], crop: int) -> npt.NDArray[ScalarT]:
        """Return a view `(..., crop, crop)` of an image or mask `(..., height, width)`."""
        view = image[..., self.row : self.row + crop, self.col : self.col + crop]
        return mirror_and_turn(view, self.mirrored, self.turns)

    def cut(
        self, levels: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None, crop: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
        """Cut a crop out of a chip, without copying it.

        Args:
            levels: `(bands, height, width)`.
            valid: `(height, width)`; None: all are valid.
            crop: side of the crop in pixels.

        Returns:
            Views of the levels `(bands, crop, crop)` and of the mask `(crop, crop)`, None if there
            is none.
        """
        return self.apply(levels, crop), None if valid is None else self.apply(valid, crop)


def mirror_and_turn(
    image: npt.NDArray[ScalarT], mirrored: bool, turns: int
) -> npt.NDArray[ScalarT]:
    """Return a view of `image` `(..., side, side)`, mirrored, then turned counter-clockwise."""
    if mirrored:
        image = image[..., ::-1]
    return np.rot90(image, turns, axes=(-2, -1)) if turns else image


def draw(
    random: np.random.Generator,
    size: int,
    crop: int,
    *,
    flip: bool,
    valid: npt.NDArray[np.bool_] | None = None,
) -> Augmentation:
    """Draw a crop that sees something.

    Args:
        random: where the numbers come from.
        size: side of the chip in pixels.
        crop: side of the crop in pixels.
        flip: draw mirrors and turns, too; shadows have a direction.
        valid: `(size, size)`; None: all pixels are valid.

    Returns:
        A crop anywhere, or, where that has no valid pixel, one around a random valid pixel.
    """
    room = size - crop + 1
    row, col = (int(start) for start in random.integers(room, size=2))
    # Drawn whether used or not, so that the same seed gives the same crops either way.
    mirrored, turns = (int(number) for number in random.integers((2, 4)))
    if valid is not None and not valid[row : row + crop, col : col + crop].any():
        seen = np.flatnonzero(valid)
        if seen.size:
            centre = int(seen[random.integers(seen.size)])
            row, col = around(*divmod(centre, size), size, crop)
    if not flip:
        return Augmentation(row, col)
    return Augmentation(row, col, bool(mirrored), turns)


def around(row: int, col: int, size: int, crop: int) -> tuple[int, int]:
    """Return the start of the crop whose centre is nearest to a pixel, inside the chip."""
    last = size - crop
    return min(max(row - crop // 2, 0), last), min(max(col - crop // 2, 0), last)


def centred(size: int, crop: int, valid: npt.NDArray[Any] | None = None) -> Augmentation:
    """Return the one crop for looking at a chip: its middle, or the middle of what is valid.

    Args:
        size: side of the chip in pixels.
        crop: side of the crop in pixels.
        valid: `(size, size)`; None: all pixels are valid.
    """
    row = col = size // 2
    if valid is not None and valid.any():
        row, col = (int(np.median(where)) for where in np.nonzero(valid))
    return Augmentation(*around(row, col, size, crop))
