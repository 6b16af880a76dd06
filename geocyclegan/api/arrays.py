"""Arrays as the tile engine sees scenes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.inference.levels import Mask
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.undeclared import all_hold
from geocyclegan.raster.windows import Window

Pixels = npt.NDArray[Any]


class ArrayScene:
    """An array that is read in windows.

    Args:
        pixels: `(bands, height, width)`, in memory or not; what a slice of it gives is passed to
            `compute`.
        valid: `(height, width)`; None: where pixels are finite and neither of the values without
            data, see `valid_in_all_bands`.
        nodata: value of pixels without data, where `valid` is None.
        undeclared: value that all bands of a pixel without data have.
        compute: makes an array in memory of a slice.
    """

    def __init__(
        self,
        pixels: Any,
        valid: Mask | None = None,
        nodata: float | None = None,
        undeclared: float | None = None,
        compute: Callable[[Any], Pixels] = np.asarray,
    ) -> None:
        self._pixels, self._valid = pixels, valid
        self._nodata, self._undeclared, self._compute = nodata, undeclared, compute

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self._pixels.shape[1:]
        return height, width

    def read(self, window: Window) -> tuple[Pixels, Mask]:
        """Return pixels `(bands, height, width)` and mask `(height, width)` of a window inside."""
        rows, cols = window.slices_in(Window(0, 0, *self.shape))
        pixels = self._compute(self._pixels[:, rows, cols])
        if self._valid is not None:
            return pixels, self._valid[rows, cols]
        return pixels, valid_in_all_bands(pixels, self._nodata, self._undeclared)


def valid_in_all_bands(pixels: Pixels, nodata: float | None, undeclared: float | None) -> Mask:
    """Find the valid pixels: all bands are finite, and none has the nodata value.

    Args:
        pixels: `(bands, height, width)`, in stored units.
        nodata: value of pixels without data in any band; None: there is none.
        undeclared: value that all bands of a pixel without data have, see `raster.undeclared`;
            None: there is none.

    Returns:
        The valid mask `(height, width)`.
    """
    known: Any = np.isfinite(pixels) if pixels.dtype.kind in "fc" else np.True_
    if nodata is not None and math.isfinite(nodata):
        known = known & (pixels != nodata)
    mask: Mask = np.asarray(np.broadcast_to(known, pixels.shape).all(axis=0))
    return mask if undeclared is None else mask & ~all_hold(pixels, undeclared)


def pixels_of(data: Any, domain: Domain) -> tuple[Pixels, Mask]:
    """Return an array as pixels `(bands, height, width)`, and where they are valid.

    Of a masked array, as rasterio reads with `masked=True`, a pixel is valid where no band is
    masked.

    Raises:
        SceneError: see `require_bands`.
    """
    pixels = require_bands(np.asarray(data), domain)
    valid = valid_in_all_bands(pixels, domain.nodata, domain.undeclared)
    if isinstance(data, np.ma.MaskedArray):
        valid = valid & ~np.ma.getmaskarray(data).reshape(pixels.shape).any(axis=0)
    return pixels, valid


def mask_of(valid: Any, shape: tuple[int, ...]) -> Mask:
    """Return a mask that somebody gave as one of bool: True where a pixel is valid.

    Args:
        valid: `(height, width)`, bool or whole numbers that are 0 where a pixel is invalid, such as
            0 and 255 of rasterio's masks.
        shape: height and width of the pixels.

    Raises:
        OptionError: it is of another shape or type.
    """
    mask = np.asarray(valid)
    if mask.shape != shape:
        raise OptionError(f"valid: its shape is {mask.shape}; expected {shape}")
    if mask.dtype.kind not in "bui":
        raise OptionError(
            f"valid: an array of {mask.dtype}; expected bool, or whole numbers that are 0 where a"
            " pixel is invalid"
        )
    return np.asarray(mask != 0, np.bool_)


def require_bands(pixels: Pixels, domain: Domain) -> Pixels:
    """Return pixels as `(bands, height, width)`; of one band, the axis may be missing.

    Raises:
        SceneError: they are of another shape, or of other bands than the domain has.
    """
    if pixels.ndim == 2 and domain.count == 1:
        pixels = pixels[None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise SceneError(f"an array of shape {pixels.shape}: expected (bands, height, width)")
    if pixels.shape[0] != domain.count:
        raise SceneError(
            f"an array of {pixels.shape[0]} bands: the model wants {domain.count}"
            f" ({', '.join(domain.labels)}), in that order and first in the shape"
        )
    if pixels.dtype.kind not in "uifb":
        raise SceneError(f"an array of {pixels.dtype}: expected whole or floating numbers")
    return pixels
