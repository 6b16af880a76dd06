"""One chip as a GeoTIFF that stands for itself: grid, band descriptions, units and valid mask."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from geocyclegan.chips.npyfile import NpyEncoder, mask_path
from geocyclegan.chips.tiffparts import TiffTemplate
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import predictor
from geocyclegan.raster.undeclared import as_pixel


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
    pixel = as_pixel(value, dtype)
    return float(pixel) if same and pixel is not None else None


@contextmanager
def chip_env() -> Iterator[None]:
    """What `encode_chip` needs around it: entered once for many chips, since it takes its time.

    Masks go into the files, and files without georeferencing, which are ordinary here, are written
    in silence.
    """
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@dataclass(frozen=True)
class Codec:
    """How pixels are compressed.

    Attributes:
        name: "zstd", "deflate", "lerc" or "none".
        max_error: how far a value may be off, in stored units; for "lerc" only, 0 loses nothing.
    """

    name: str = "zstd"
    max_error: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `zstd`, `deflate`, `lerc`, `lerc:0.5` or `none`.

        Raises:
            OptionError: it is none of these.
        """
        name, colon, number = text.strip().lower().partition(":")
        expected = f"--compress {text}: expected {', '.join(CODECS)} or lerc:MAX_ERROR"
        if name not in CODECS or (colon and name != "lerc"):
            raise OptionError(expected)
        try:
            error = float(number) if colon else 0.0
        except ValueError:
            raise OptionError(expected) from None
        if not 0.0 <= error < math.inf:
            raise OptionError(expected)
        return cls(name, error)

    def __str__(self) -> str:
        return f"{self.name}:{self.max_error:g}" if self.max_error else self.name

    def check(self) -> None:
        """Make sure that this GDAL has the codec.

        Raises:
            OptionError: it has not.
        """
        if self.name != "zstd" and not _has(self.name):
            raise OptionError(
                f"--compress {self}: this GDAL was built without it; choose another of"
                f" {', '.join(CODECS)}"
            )

    def profile(self, dtype: str) -> dict[str, Any]:
        """Return GDAL's creation options.

        Chips are read often and never sent far: after the predictor, higher levels save a few per
        cent of space for several times the work. Where GDAL has no ZSTD, DEFLATE takes its place.
        """
        if self.name == "none":
            return {}
        if self.name == "lerc":
            return {"compress": "lerc", "max_z_error": self.max_error}
        levels = {"compress": "zstd", "zstd_level": _LEVEL}
        if self.name == "deflate" or not _has("zstd"):
            levels = {"compress": "deflate", "zlevel": _LEVEL}
        return {**levels, "predictor": predictor(dtype)}


CODECS = ("zstd", "deflate", "lerc", "none")
DEFAULT_CODEC = Codec()
_LEVEL = 1
_TILE = 256


@cache
def _has(codec: str) -> bool:
    """Say whether this GDAL compresses TIFFs that way."""
    if codec == "none":
        return True
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    try:
        with chip_env(), MemoryFile() as memory, memory.open(**profile, compress=codec) as test:
            test.write(np.zeros((1, 16, 16), np.uint8))
    except RasterioError:
        return False
    return True


class ChipEncoder:
    """Makes the files of chips that have a style in common; to be used within `chip_env`.

    Args:
        style: descriptions, type and nodata.
        codec: how pixels are compressed.
    """

    def __init__(self, style: ChipStyle, codec: Codec = DEFAULT_CODEC) -> None:
        self._style, self._codec = style, codec
        # With a valid mask, and without.
        self._templates: dict[bool, TiffTemplate | None] = {}
        self._made_for: tuple[Any, ...] = ()

    @property
    def filler(self) -> float:
        """What invalid pixels hold."""
        return 0 if self._style.nodata is None else self._style.nodata

    def beside(self, valid: npt.NDArray[np.bool_]) -> bytes:
        """Return the file that goes beside a chip: empty, its mask `(height, width)` is inside."""
        return b""

    def encode(self, grid: Grid, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> bytes:
        """Return a chip as a GeoTIFF.

        Args:
            grid: its own grid.
            pixels: `(bands, height, width)` of the style's type, in stored units; invalid ones hold
                the nodata value or 0.
            valid: `(height, width)`; a mask is written only if some pixel is invalid.
        """
        data = None
        whole = bool(valid.all())
        template = self._template_for(grid, len(pixels), whole)
        compress = _compressor(self._codec.name)
        if template is not None and compress is not None:
            blocks = [compress(block) for block in template.blocks(pixels)]
            data = template.fill(grid, blocks, None if whole else valid)
        return data or encode_chip(grid, pixels, valid, self._style, self._codec)

    def _template_for(self, grid: Grid, bands: int, is_whole: bool) -> TiffTemplate | None:
        """Return the tags that chips of a scene share; None leaves them to GDAL."""
        t = grid.transform
        # GDAL writes no place where the transform says none.
        if self._codec.name not in ("zstd", "none") or t == Affine.identity():
            return None
        kind = (id(grid.crs), t.a, t.b, t.d, t.e, grid.shape, bands)
        if kind != self._made_for:
            self._templates, self._made_for = {}, kind
        if is_whole not in self._templates:
            blank = np.zeros((bands, *grid.shape), self._style.dtype)
            valid = np.full(grid.shape, is_whole)
            file = encode_chip(grid, blank, valid, self._style, self._codec)
            self._templates[is_whole] = TiffTemplate.parse(file, grid, bands)
        return self._templates[is_whole]


def encoder_for(style: ChipStyle, codec: Codec, is_npy: bool) -> ChipEncoder | NpyEncoder:
    """Return what makes the files of chips in the format that was asked for."""
    encoder = ChipEncoder(style, codec)
    return NpyEncoder(encoder.filler) if is_npy else encoder


@cache
def _compressor(codec: str) -> Callable[[npt.NDArray[Any]], Any] | None:
    """Return what compresses a block as the codec says, where GDAL itself would do it so, too."""
    if codec == "none":
        return lambda block: np.ascontiguousarray(block).tobytes()
    import pyarrow

    if codec != "zstd" or not _has("zstd") or not pyarrow.Codec.is_available("zstd"):
        return None
    zstd = pyarrow.Codec("zstd", compression_level=_LEVEL)
    return lambda block: zstd.compress(np.ascontiguousarray(block))


def encode_chip(
    grid: Grid,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    style: ChipStyle,
    codec: Codec = DEFAULT_CODEC,
) -> bytes:
    """Return a chip as a GeoTIFF, made by GDAL; to be called within `chip_env`.

    Args:
        grid: its own grid.
        pixels: `(bands, height, width)` of the style's type, in stored units; invalid ones hold the
            nodata value or 0.
        valid: `(height, width)`; a mask is written only if some pixel is invalid.
        style: descriptions, type and nodata.
        codec: how pixels are compressed.
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
        **codec.profile(style.dtype),
        "interleave": "band",
        **_blocks(grid),
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


def _blocks(grid: Grid) -> dict[str, Any]:
    """Return how a chip is cut up: in tiles where it is larger than one, else not at all."""
    if max(grid.shape) <= _TILE:
        return {"blockysize": grid.height}
    return {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE}


def save_chip(path: Path, data: bytes, beside: bytes = b"") -> str:
    """Write a chip's file; it is not flushed to the disk, nor is it part of a set yet.

    Args:
        path: where.
        data: the file.
        beside: the valid mask of an npy chip, which goes into a file of its own.

    Returns:
        The SHA-256 of the file, followed by what goes beside it.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        for file, content in ((path, data), (mask_path(path), beside)):
            if not content:
                continue
            try:
                file.write_bytes(content)
            except FileNotFoundError:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"{path}: the chip cannot be written ({error.strerror or error})"
        ) from error
    digest = hashlib.sha256(data)
    digest.update(beside)
    return digest.hexdigest()


def _describe(chip: Any, bands: Sequence[SourceBand]) -> None:
    if any(band.name for band in bands):
        chip.descriptions = [band.name for band in bands]
    if any(band.unit for band in bands):
        chip.units = [band.unit or "" for band in bands]
    if any(band.scale != 1.0 or band.offset != 0.0 for band in bands):
        chip.scales = [band.scale for band in bands]
        chip.offsets = [band.offset for band in bands]
