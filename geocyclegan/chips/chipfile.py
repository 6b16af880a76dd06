"""One chip as a GeoTIFF that stands for itself: grid, band descriptions, units and valid mask."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from geocyclegan.errors import OutputError
from geocyclegan.files import atomic_write, sha256
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import predictor


@dataclass(frozen=True)
class ChipStyle:
    """What all chips of a scene have in common.

    Attributes:
        bands: the scene's bands, as its file describes them.
        dtype: pixel type.
        nodata: value of invalid pixels, or None where the mask alone tells them.
    """

    bands: tuple[SourceBand, ...]
    dtype: str
    nodata: float | None

    @classmethod
    def of(cls, bands: Sequence[SourceBand], dtype: str) -> ChipStyle:
        """Find the style for bands of a scene."""
        return cls(tuple(bands), dtype, _common_nodata(bands, dtype))

    @property
    def colors(self) -> list[ColorInterp]:
        """Colour interpretation of each band."""
        # A chosen alpha band is data here; called alpha it would be taken for a mask.
        return [
            ColorInterp.undefined if band.color == "alpha" else ColorInterp[band.color]
            for band in self.bands
        ]


def _common_nodata(bands: Sequence[SourceBand], dtype: str) -> float | None:
    """Return the nodata value, if all bands share one that the pixel type can hold."""
    value = bands[0].nodata
    if value is None:
        return None
    same = all(
        band.nodata is not None
        and (band.nodata == value or (math.isnan(band.nodata) and math.isnan(value)))
        for band in bands
    )
    kind = np.dtype(dtype)
    if kind.kind == "f":
        limits = np.finfo(kind)
        fits = not math.isfinite(value) or float(limits.min) <= value <= float(limits.max)
    else:
        info = np.iinfo(kind)
        fits = math.isfinite(value) and value.is_integer() and info.min <= value <= info.max
    return value if same and fits else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Let rasterio write files without georeferencing, which are ordinary here, in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@cache
def _compression() -> str:
    """ZSTD where this GDAL has it, DEFLATE elsewhere."""
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    try:
        with _quiet(), MemoryFile() as memory, memory.open(**profile, compress="zstd") as test:
            test.write(np.zeros((1, 16, 16), np.uint8))
    except RasterioError:
        return "deflate"
    return "zstd"


def write_chip(
    path: Path,
    grid: Grid,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    style: ChipStyle,
) -> str:
    """Write a chip, whole or not at all.

    Args:
        path: its final name.
        grid: its own grid.
        pixels: `(bands, height, width)`; changed in place where invalid.
        valid: `(height, width)`; a mask is written only if some pixel is invalid.
        style: descriptions, type and nodata.

    Returns:
        The SHA-256 of the file.

    Raises:
        OutputError: it cannot be written.
    """
    whole = bool(valid.all())
    if not whole:
        pixels[:, ~valid] = 0 if style.nodata is None else style.nodata
    colors = style.colors
    is_rgb = colors[:3] == [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": grid.height,
        "width": grid.width,
        "dtype": style.dtype,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": style.nodata,
        "compress": _compression(),
        "predictor": predictor(style.dtype),
        "interleave": "band",
        "blockysize": grid.height,
        # Said plainly, or GDAL takes the fourth of four bands for alpha.
        "photometric": "RGB" if is_rgb else "MINISBLACK",
        "alpha": "NO",
    }
    with atomic_write(path) as part:
        try:
            with (
                _quiet(),
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(part, "w", **profile) as chip,
            ):
                chip.colorinterp = colors
                chip.write(pixels)
                if not whole:
                    chip.write_mask(valid)
                _describe(chip, style.bands)
            digest = sha256(part)
        except (RasterioError, OSError) as error:
            raise OutputError(f"{path}: the chip cannot be written ({error})") from error
    return digest


def _describe(chip: Any, bands: Sequence[SourceBand]) -> None:
    chip.descriptions = [band.name for band in bands]
    if any(band.unit for band in bands):
        chip.units = [band.unit or "" for band in bands]
    if any(band.scale != 1.0 or band.offset != 0.0 for band in bands):
        chip.scales = [band.scale for band in bands]
        chip.offsets = [band.offset for band in bands]
