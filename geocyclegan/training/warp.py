"""Crops at another scale and angle, whose pixels are interpolated and know where nothing was."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from geocyclegan.ranges import require_in_range
from geocyclegan.training.augment import Augmentation, draw, mirror_and_turn


@dataclass(frozen=True)
class Geometry:
    """What may happen to the place of a crop beside mirrors and quarter turns.

    Attributes:
        zoom: largest factor by which a crop is enlarged or shrunk; 1: never.
        rotate: largest angle in degrees, both ways; 0: never.

    Raises:
        OptionError: a number is out of range.
    """

    zoom: float = 1.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        require_in_range("zoom", self.zoom)
        require_in_range("rotate", self.rotate)

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated at all."""
        return self.zoom != 1.0 or self.rotate != 0.0


@dataclass(frozen=True)
class Warp:
    """A square of a chip, of any size and angle, as the pixels of a crop.

    Attributes:
        row: its centre, in pixels from the upper edge of the chip.
        col: its centre, in pixels from the left edge.
        side: its side in pixels of the chip.
        angle: how far it is turned, counter-clockwise, in degrees.
        mirrored: left and right are swapped, before the turns.
        turns: quarter turns, counter-clockwise.
    """

    row: float
    col: float
    side: float
    angle: float = 0.0
    mirrored: bool = False
    turns: int = 0

    def cut(
        self, levels: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None, crop: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Interpolate a crop, bilinearly, between valid pixels only.

        Args:
            levels: `(bands, height, width)`.
            valid: `(height, width)`; None: all are valid.
            crop: side of the result in pixels.

        Returns:
            Levels `(bands, crop, crop)`, 0 where not valid, and where they are valid
            `(crop, crop)`: where at least half of the weight comes from valid pixels of the chip.
        """
        height, width = levels.shape[-2:]
        weight = np.ones((height, width), np.float32) if valid is None else valid
        weight = weight.astype(np.float32)[np.newaxis]
        source = torch.from_numpy(np.concatenate([levels * weight, weight]))
        at = torch.from_numpy(self._grid(height, width, crop))
        sampled = F.grid_sample(source[None], at[None], padding_mode="zeros", align_corners=False)
        share = sampled[0, -1].numpy()
        seen = share >= 0.5
        out = np.where(seen, sampled[0, :-1].numpy() / np.maximum(share, 0.5), np.float32(0.0))
        return mirror_and_turn(out, self.mirrored, self.turns), mirror_and_turn(
            seen, self.mirrored, self.turns
        )

    def _grid(self, height: int, width: int, crop: int) -> npt.NDArray[np.float32]:
        """Where each pixel of the crop lies in the chip, from -1 to 1, as (x, y)."""
        steps = (np.arange(crop) + 0.5 - crop / 2) * (self.side / crop)
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        down, across = np.meshgrid(steps, steps, indexing="ij")
        # Rows go down, so that a square turned counter-clockwise has its right side further up.
        cols = self.col + across * cosine + down * sine
        rows = self.row - across * sine + down * cosine
        return np.stack([2 * cols / width - 1, 2 * rows / height - 1], axis=-1).astype(np.float32)


Placement = Augmentation | Warp
"""Where a crop comes from, and how it is laid down."""


def upright(where: Placement) -> Placement:
    """Return the same crop as it lies in its chip, neither mirrored nor turned."""
    return replace(where, mirrored=False, turns=0)


def place(
    random: np.random.Generator,
    size: int,
    crop: int,
    geometry: Geometry,
    *,
    flip: bool,
    valid: npt.NDArray[np.bool_] | None = None,
) -> Placement:
    """Draw a crop that sees something, where the chip has something to see.

    Args:
        random: where the numbers come from.
        size: side of the chip in pixels.
        crop: side of the crop in pixels.
        geometry: scales and angles; without any, no pixel is interpolated.
        flip: draw mirrors and quarter turns, too.
        valid: `(size, size)`; None: all pixels are valid.
    """
    plain = draw(random, size, crop, flip=flip, valid=valid)
    if not geometry.resamples:
        return plain
    down, across, zoom, angle = (float(number) for number in random.random(4))
    side = crop / geometry.zoom ** (2.0 * zoom - 1.0)
    degrees = geometry.rotate * (2.0 * angle - 1.0)
    # Half of what the turned square takes up; it stays inside the chip where it can.
    turned = math.radians(degrees)
    reach = min(side / 2 * (abs(math.cos(turned)) + abs(math.sin(turned))), size / 2)
    row, col = (reach + place * (size - 2 * reach) for place in (down, across))
    warp = Warp(row, col, side, degrees, plain.mirrored, plain.turns)
    if (
        valid is not None
        and not warp.cut(np.zeros((0, size, size), np.float32), valid, crop)[1].any()
    ):
        # The plain crop has been drawn to see something.
        row, col = plain.row + crop / 2, plain.col + crop / 2
        warp = Warp(row, col, side, degrees, plain.mirrored, plain.turns)
    return warp
