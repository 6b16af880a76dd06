"""Values that stand for no data though the files do not say so (`--nodata`).

Where a file declares a nodata value, each band of a pixel is judged by itself. An undeclared value
may be data, too, such as zero in one band of a dark pixel, so that a pixel is taken for empty only
where all chosen bands hold it: the rule of GDAL's UNIFIED_SRC_NODATA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.errors import OptionError
from geocyclegan.raster.bands import SourceBand


def parse_nodata(value: float | str, option: str = "nodata") -> float:
    """Read a value such as 0, -9999 or nan.

    Raises:
        OptionError: it is no number.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise OptionError(
            f"--{option} {value}: expected the number that stands for no data, such as 0 or -9999"
        ) from None


def as_pixel(value: float, dtype: npt.DTypeLike) -> np.generic | None:
    """Return a number as a pixel of a type; None where the type cannot hold it."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            pixel = kind.type(value)  # type: ignore[call-overload]
        return pixel if np.isfinite(pixel) or not math.isfinite(value) else None
    if kind.kind not in "iu" or not math.isfinite(value) or not float(value).is_integer():
        return None
    info = np.iinfo(kind)
    return kind.type(int(value)) if info.min <= value <= info.max else None


def undeclared_value(
    value: float | None, bands: Sequence[SourceBand], where: str, option: str = "nodata"
) -> float | None:
    """Check a value against the bands whose pixels shall hold it.

    Args:
        value: as `--nodata` gives it.
        bands: the bands chosen from a scene.
        where: what to call the scene in an error.
        option: the name of the option.

    Returns:
        The value; None for NaN and infinities, which are invalid always.

    Raises:
        OptionError: the pixels of a band cannot hold it.
    """
    if value is None:
        return None
    for band in bands:
        dtype = np.dtype("float32" if "complex" in band.dtype else band.dtype)
        if as_pixel(value, dtype) is None:
            ends = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
            kind = "whole numbers" if dtype.kind in "iu" else "numbers"
            raise OptionError(
                f"--{option} {value:.9g}: no pixel of {where} can hold it, they are {dtype}"
                f" ({kind} from {ends.min} to {ends.max}); name the value that it has without data"
            )
    return value if math.isfinite(value) else None


def filler_advice(value: float, verb: str) -> str:
    """Say what to do about a value that usually stands for no data and counts as data.

    Args:
        value: that was found among the valid pixels.
        verb: the command to give again.
    """
    return (
        f"{value:.9g} is among the valid pixels and is counted as data; if it stands for no data,"
        f" {verb} again with --nodata {value:.9g} --overwrite, or, where single bands of a pixel"
        f" have it, say so in the file: gdal_edit.py -a_nodata {value:.9g} FILE"
    )


def all_hold(pixels: npt.NDArray[Any], value: float) -> npt.NDArray[np.bool_]:
    """Return a mask `(height, width)`: where all bands of `(bands, height, width)` hold a value."""
    wanted = as_pixel(value, pixels.dtype)
    if wanted is None:
        return np.zeros(pixels.shape[1:], np.bool_)
    found: npt.NDArray[np.bool_] = pixels[0] == wanted
    for values in pixels[1:]:
        if not found.any():
            break
        found &= values == wanted
    return found
