"""How seams are measured: tile invariance error, and the seam z of one product.

The tile invariance error (TIE) compares two products of one scene that were cut differently. Seam z
looks at one product and asks whether steps across tile borders stand out from those elsewhere; on
noisy output it loses power, which TIE does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVELS_PER_UNIT = 127.5
"""8-bit levels in one unit of the generator's range, -1 to 1."""

_SEGMENT = 32
_REACH = 32
_FLOOR = 1e-9

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TileInvarianceError:
    """Difference between two products of one scene, in 8-bit levels.

    Attributes:
        mean: mean absolute difference over valid pixels and bands.
        max: largest one; below 0.01 the tiles do not show.
    """

    mean: float
    max: float


def tile_invariance_error(
    one: Array, other: Array, valid: Mask | None = None, scale: float = LEVELS_PER_UNIT
) -> TileInvarianceError:
    """Compare two products of one scene, made with other tile sizes or shifted tiles.

    Args:
        one: `(bands, height, width)`.
        other: of the same shape and unit.
        valid: `(height, width)`; None: all are valid.
        scale: 8-bit levels in one unit of the values; the default is for levels in [-1, 1].

    Raises:
        ValueError: the shapes differ, or no pixel is valid.
    """
    if one.shape != other.shape:
        raise ValueError(f"products of shapes {one.shape} and {other.shape} cannot be compared")
    difference = np.abs(one.astype(np.float64) - other) * scale
    if valid is not None:
        difference = difference[:, valid]
    if not difference.size:
        raise ValueError("no valid pixel to compare")
    return TileInvarianceError(float(difference.mean()), float(difference.max()))


def seam_z(
    product: Array, tile: int, *, width: int = 1, shift: int = 0, valid: Mask | None = None
) -> float:
    """Say how far the steps at tile borders stand out from the steps everywhere else.

    At each position along an axis the step is the mean over bands and segments of |mean of the
    `width` px after it - mean of the `width` px before|; segments run across, 32 px each. Its
    logarithm, less its own mean within 32 px, is averaged over the positions of equal phase modulo
    `tile`, on both axes. The figure is the phase of the tile borders against the median of all
    phases, in robust standard deviations.

    Args:
        product: `(bands, height, width)`.
        tile: pixels from one tile border to the next.
        width: pixels on either side that a step compares.
        shift: the first tile border.
        valid: `(height, width)`; None: all are valid. Segments with an invalid pixel do not count.

    Returns:
        z; below 3 no seam shows.

    Raises:
        ValueError: no tile border lies within the product, or too little of it is valid.
    """
    sums, counts = np.zeros(tile), np.zeros(tile)
    mask = np.ones(product.shape[1:], np.bool_) if valid is None else valid
    for axis in (0, 1):
        values, inside = product.astype(np.float64), mask
        if axis == 0:
            values, inside = values.transpose(0, 2, 1), inside.T
        positions, steps = _steps(values, inside, width)
        known = np.isfinite(steps)
        positions, rough = positions[known], np.log(np.maximum(steps[known], _FLOOR))
        smooth = _detrended(positions, rough)
        phase = (positions - shift) % tile
        np.add.at(sums, phase, smooth)
        np.add.at(counts, phase, 1)
    seen = counts > 0
    if not seen[0] or seen.sum() < 4:
        raise ValueError(
            f"a product of {product.shape[1]} x {product.shape[2]} px shows too little of the"
            f" borders of tiles of {tile} px"
        )
    means = sums[seen] / counts[seen]
    median = float(np.median(means))
    spread = 1.4826 * float(np.median(np.abs(means - median)))
    return float((means[0] - median) / max(spread, _FLOOR))


def _steps(
    values: npt.NDArray[np.float64], valid: Mask, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Mean absolute step at each column: between the `width` columns before and after it."""
    bands, height, length = values.shape
    segment = min(_SEGMENT, height)
    rows = height // segment * segment
    columns = values[:, :rows].reshape(bands, -1, segment, length).mean(axis=2)
    whole = valid[:rows].reshape(-1, segment, length).all(axis=1)
    columns = np.where(whole, columns, np.nan)
    # Running means of `width` columns.
    padded = np.concatenate([np.zeros((*columns.shape[:2], 1)), np.nancumsum(columns, axis=2)], 2)
    holes = np.concatenate([np.zeros((whole.shape[0], 1)), np.cumsum(~whole, axis=1)], 1)
    means = (padded[..., width:] - padded[..., :-width]) / width
    means = np.where(holes[:, width:] == holes[:, :-width], means, np.nan)
    steps = np.abs(means[..., width:] - means[..., :-width])
    positions = np.arange(width, width + steps.shape[-1])
    counted = np.isfinite(steps).sum(axis=(0, 1))
    mean = np.full(len(positions), np.nan)
    np.divide(np.nansum(steps, axis=(0, 1)), counted, out=mean, where=counted > 0)
    return positions, mean


def _detrended(
    positions: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values less the mean of those within reach."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.searchsorted(positions, positions - _REACH, side="left")
    high = np.searchsorted(positions, positions + _REACH, side="right")
    trend: npt.NDArray[np.float64] = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    return values - trend
