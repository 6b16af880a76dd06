"""One chip as a GeoTIFF that stands for itself: grid, band descriptions, units and valid mask."""

from __future__ import annotations

import hashlib
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
        # A chosen alpha band is data here; called alpha it would be taken for a mask. Colours of
        # classes are not copied.
        return [
            ColorInterp.undefined if band.color in ("alpha", "palette") else ColorInterp[band.color]
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
def chip_env() -> Iterator[None]:
    """What `encode_chip` needs around it: entered once for many chips, since it takes its time.

    Masks go into the files, and files without georeferencing, which are ordinary here, are written
    in silence.
    """
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@cache
def _compression() -> dict[str, Any]:
    """ZSTD where this GDAL has it, DEFLATE elsewhere, both at their fastest.

    Chips are read often and never sent far: after the predictor, higher levels save a few per cent
    of space for several times the work.
    """
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    try:
        with MemoryFile() as memory, memory.open(**profile, compress="zstd") as test:
            test.write(np.zeros((1, 16, 16), np.uint8))
    except RasterioError:
        return {"compress": "deflate", "zlevel": 1}
    return {"compress": "zstd", "zstd_level": 1}


def encode_chip(
    grid: Grid, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], style: ChipStyle
) -> bytes:
    """Return a chip as a GeoTIFF; to be called within `chip_env`.

    Args:
        grid: its own grid.
        pixels: `(bands, height, width)`; invalid ones hold the nodata value or 0.
        valid: `(height, width)`; a mask is written only if some pixel is invalid.
        style: descriptions, type and nodata.
    """
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
        **_compression(),
        "predictor": predictor(style.dtype),
        "interleave": "band",
        "blockysize": grid.height,
        # Said plainly, or GDAL takes the fourth of four bands for alpha.
        "photometric": "RGB" if is_rgb else "MINISBLACK",
        "alpha": "NO",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as chip:
            if chip.colorinterp != tuple(colors):
                chip.colorinterp = colors
            chip.write(pixels)
            if not valid.all():
                chip.write_mask(valid)
            _describe(chip, style.bands)
        return bytes(memory.getbuffer())


def save_chip(path: Path, data: bytes) -> str:
    """Write a chip's file; it is not flushed to the disk, nor is it part of a set yet.

    Returns:
        The SHA-256 of the file.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"{path}: the chip cannot be written ({error.strerror or error})"
        ) from error
    return hashlib.sha256(data).hexdigest()


def _describe(chip: Any, bands: Sequence[SourceBand]) -> None:
    if any(band.name for band in bands):
        chip.descriptions = [band.name for band in bands]
    if any(band.unit for band in bands):
        chip.units = [band.unit or "" for band in bands]
    if any(band.scale != 1.0 or band.offset != 0.0 for band in bands):
        chip.scales = [band.scale for band in bands]
        chip.offsets = [band.offset for band in bands]
