"""Scenes: anything GDAL reads, opened with care, read in windows with a valid mask.

A pixel is valid when it is valid in every chosen band: not the nodata value, not masked, not
transparent, and finite; and when it does not hold an undeclared nodata value in all of them.
Reading never trusts a successful open: damaged files open well and fail at their pixels, and that
failure is an error here, never a silent zero.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import SceneError, ServerError
from geocyclegan.raster.bandfiles import short_name
from geocyclegan.raster.bands import SourceBand, color_names, describe_bands, resolve_bands
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import (
    GDAL_ERRORS,
    HONEST_PNG,
    cause_of,
    first_line,
    open_again,
    open_dataset,
)
from geocyclegan.raster.remote import ONE_THREAD, is_remote, tries
from geocyclegan.raster.undeclared import all_hold
from geocyclegan.raster.ungridded import without_grid
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

# One block decodes as a whole, whatever window is asked for.
LARGEST_BLOCK_BYTES = 1 << 30
_MANY_BANDS = 1000


@lru_cache(1000)  # a worker may see scenes for weeks
def _warn_of_not_finite(path: str) -> None:
    """Say so once, however often the scene is opened."""
    log.warning(
        "%s: some pixels are not finite though no nodata value says so; they are taken as nodata",
        path,
    )


class Scene:
    """An open scene and the bands chosen from it; a context manager.

    Args:
        path: a file, a URL or a sub-dataset's name.
        bands: descriptions or numbers ("1", "2-4") as a user has them, or numbers; None takes all
            but alpha.
        amplitude: read complex pixels as their amplitude; without it they are refused.
        classes: the pixels are classes, not measurements: colour-table indexes are welcome, and
            no value is taken for nodata, since nodata is a class, too.

    Raises:
        NotFoundError: there is no such file.
        SceneError: it is no raster that can be used, with the reason and the remedy.
        OptionError: a band that does not exist was asked for.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[str | int] | None = None,
        *,
        amplitude: bool = False,
        classes: bool = False,
    ) -> None:
        self.path = str(path)
        self._amplitude = amplitude
        self._classes = classes
        self.undeclared: float | None = None
        self._dataset = open_dataset(self.path)
        self._is_remote = is_remote(self.path)
        try:
            if self._dataset.count > _MANY_BANDS:
                # Headers may claim tens of thousands; to describe them all takes its time.
                self._check_block(self._dataset.block_shapes[0])
            # First of all: what GDAL could not make of the CRS, it says at the next call.
            crs = self._read_crs()
            self.all_bands = describe_bands(self._dataset)
            self.bands = self._choose(bands)
            self._check()
            d = self._dataset
            self.grid = Grid(crs, d.transform, d.height, d.width)
        except BaseException:
            self._dataset.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()

    def redescribe(self, bands: Sequence[SourceBand]) -> None:
        """Replace what the file says of all its bands; they keep their numbers."""
        self.all_bands = tuple(bands)
        self.bands = tuple(bands[band.index - 1] for band in self.bands)

    def select(self, indexes: Sequence[int]) -> None:
        """Choose other bands by their numbers, from 1."""
        self.bands = tuple(self.all_bands[index - 1] for index in indexes)

    def leave_out(self, value: float | None) -> None:
        """Treat pixels that hold a value in all chosen bands as invalid, besides what is declared.

        Args:
            value: stored number that stands for no data, see `raster.undeclared`; None for none.
        """
        self.undeclared = value

    @property
    def files(self) -> tuple[str, ...]:
        """All files that it is read from."""
        return (self.path,)

    @property
    def name(self) -> str:
        """File name without folder and extension."""
        return short_name(self.path)

    @property
    def area_or_point(self) -> str | None:
        """What the file says of the coordinates of its pixels: "Area", "Point" or nothing."""
        found: str | None = self._dataset.tags().get("AREA_OR_POINT")
        return found

    @property
    def dtype(self) -> str:
        """Pixel type of what `read` returns."""
        if self._is_complex:
            return "float32"
        return np.result_type(*(band.dtype for band in self.bands)).name

    @property
    def nodata(self) -> float | None:
        """Nodata value of the first chosen band."""
        return self.bands[0].nodata

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of the file's blocks."""
        rows, cols = self._dataset.block_shapes[self.bands[0].index - 1]
        return int(rows), int(cols)

    @property
    def colorinterp(self) -> tuple[str, ...]:
        """Colour interpretation of the chosen bands."""
        return tuple(band.color for band in self.bands)

    @property
    def may_have_invalid(self) -> bool:
        """False only if the file itself declares that every pixel is valid."""
        flags = self._dataset.mask_flag_enums
        chosen = [flags[band.index - 1] for band in self.bands]
        sure = all(f == [MaskFlags.all_valid] for f in chosen)
        has_alpha = any(band.color == "alpha" for band in self.all_bands)
        return (
            not sure or has_alpha or self.undeclared is not None or np.dtype(self.dtype).kind == "f"
        )

    @property
    def _is_complex(self) -> bool:
        return any("complex" in band.dtype for band in self.bands)

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window, which may reach beyond the scene.

        Args:
            window: pixels of the scene; what lies outside is padded and invalid.

        Returns:
            Pixels `(bands, height, width)` in the file's type (the amplitude as float32 for complex
            ones) and the valid mask `(height, width)`. Invalid pixels hold anything.

        Raises:
            SceneError: the pixels cannot be read.
        """
        inside = window.clip(*self.grid.shape)
        pixels, valid = self._read_inside(inside)
        if inside == window:
            return pixels, valid
        padded = np.zeros((len(self.bands), *window.shape), pixels.dtype)
        padded_valid = np.zeros(window.shape, np.bool_)
        rows, cols = inside.slices_in(window)
        padded[:, rows, cols] = pixels
        padded_valid[rows, cols] = valid
        return padded, padded_valid

    def overview(self, most: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read every n-th pixel of the whole scene, from the file's overviews where it has some.

        Args:
            most: rows and columns of the result are no more than this.

        Returns:
            Pixels `(bands, rows, columns)` and the valid mask `(rows, columns)`, else as from
            `read`: n is the scene's longer side over `most`, rounded up, and rows and columns are
            the sides over n, rounded down, but at least 1.

        Raises:
            SceneError: the pixels cannot be read.
        """
        height, width = self.grid.shape
        step = max(-(-max(height, width) // most), 1)
        shape = max(height // step, 1), max(width // step, 1)
        return self._read_inside(Window(0, 0, height, width), shape)

    def _read_inside(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        if 0 in window.shape:
            return (
                np.zeros((len(self.bands), *window.shape), self.dtype),
                np.zeros(window.shape, np.bool_),
            )
        indexes = [band.index for band in self.bands]
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        where = (
            f"{self.path}: pixels in rows {window.row}-{window.row_stop - 1}, columns"
            f" {window.col}-{window.col_stop - 1} cannot be read"
        )
        try:
            pixels, valid = self._read_trying(indexes, area, shape)
        except ServerError:
            raise
        except (*GDAL_ERRORS, MemoryError) as error:
            if self._is_remote:
                raise ServerError(
                    f"{where} ({cause_of(error)}), though it was tried again; its server or the"
                    " network failed, or the file is damaged: run the command again later, or"
                    " fetch the file and name the copy"
                ) from error
            raise SceneError(
                f"{where} ({first_line(error)}); the file is damaged or incomplete, so fetch it"
                " again"
            ) from error
        if self._is_complex:
            pixels = np.abs(pixels).astype(np.float32)
        if pixels.dtype.kind == "f":
            finite = np.isfinite(pixels).all(axis=0)
            if bool((valid & ~finite).any()):
                _warn_of_not_finite(self.path)
            valid &= finite
        if self.undeclared is not None:
            valid &= ~all_hold(pixels, self.undeclared)
        return pixels, valid

    def _read_trying(
        self, indexes: list[int], area: RasterioWindow, shape: tuple[int, int] | None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read pixels and mask; from a server, try again what fails."""
        last: BaseException | None = None
        for number in tries() if self._is_remote else (0,):
            try:
                if number:
                    self._dataset.close()
                    self._dataset = open_again(self.path)
                with rasterio.Env(**HONEST_PNG, **(ONE_THREAD if self._is_remote else {})):
                    pixels = self._read_pixels(indexes, area, shape)
                    return pixels, self._read_mask(pixels, indexes, area)
            except (*GDAL_ERRORS, ServerError) as error:
                last = error
        assert last is not None  # for mypy: there is a first try
        raise last

    def _read_pixels(
        self, indexes: list[int], area: RasterioWindow, shape: tuple[int, int] | None
    ) -> npt.NDArray[Any]:
        kinds = {band.dtype for band in self.bands}
        if len(kinds) == 1:
            out = None if shape is None else (len(indexes), *shape)
            return np.asarray(self._dataset.read(indexes, window=area, out_shape=out))
        # Rasterio reads bands of several types one by one only.
        kind = np.result_type(*kinds)
        bands = [self._dataset.read(i, window=area, out_shape=shape) for i in indexes]
        return np.stack([band.astype(kind) for band in bands])

    def _read_mask(
        self, pixels: npt.NDArray[Any], indexes: list[int], area: RasterioWindow
    ) -> npt.NDArray[np.bool_]:
        flags = self._dataset.mask_flag_enums
        kinds = [flags[index - 1] for index in indexes]
        shape = pixels.shape[1:]
        valid = np.ones(pixels.shape[1:], np.bool_)
        if self._classes:
            return valid
        # GDAL makes a mask of an alpha band only where it is the second or fourth and last.
        for band in self.all_bands:
            if band.color == "alpha" and band.index not in indexes:
                valid &= self._dataset.read(band.index, window=area, out_shape=shape) > 0
        if any(MaskFlags.per_dataset in kind for kind in kinds):
            # Near infrared is often mislabelled as alpha; who names that band wants its values.
            alpha_is_data = any(band.color == "alpha" for band in self.bands)
            if not (alpha_is_data and any(MaskFlags.alpha in kind for kind in kinds)):
                valid &= self._dataset.read_masks(indexes[0], window=area, out_shape=shape) > 0
        elif any(kind != [MaskFlags.all_valid] for kind in kinds):
            masks = self._dataset.read_masks(indexes, window=area, out_shape=pixels.shape)
            valid &= (masks > 0).all(axis=0)
            return valid
        # A file may carry a mask and a nodata value, too; GDAL then looks at the mask alone.
        for band, values in zip(self.bands, pixels, strict=True):
            if band.nodata is not None and np.isfinite(band.nodata):
                valid &= values != band.nodata
        return valid

    def _read_crs(self) -> CRS | None:
        try:
            # A look at the colours draws the error out where the CRS itself gives None.
            color_names(self._dataset)
            crs: CRS | None = self._dataset.crs
        except GDAL_ERRORS as error:
            log.warning(
                "%s: its coordinate reference system cannot be understood (%s); it is read without"
                " one",
                self.path,
                first_line(error),
            )
            return None
        return crs

    def _choose(self, wanted: Sequence[str | int] | None) -> tuple[SourceBand, ...]:
        if wanted is None:
            chosen = tuple(band for band in self.all_bands if band.color != "alpha")
            if not chosen:
                raise SceneError(f"{self.path}: its only band is an alpha band")
            return chosen
        return tuple(
            self.all_bands[index - 1]
            for index in resolve_bands(wanted, [b.name for b in self.all_bands], self.path)
        )

    def _check(self) -> None:
        d = self._dataset
        if not self._classes and any(band.color == "palette" for band in self.bands):
            raise SceneError(
                f"{self.path}: its pixels are colour-table indexes, which cannot be translated;"
                " expand them first:"
                f" gdal_translate -expand rgb {shlex.quote(self.path)} rgb.tif"
            )
        if self._is_complex and not self._amplitude:
            raise SceneError(
                f"{self.path}: its pixels are complex; say how to read them, --scale db for"
                " amplitude in decibel"
            )
        elsewhere = without_grid(d, self.path)
        if elsewhere is not None:
            raise SceneError(f"{self.path}: {elsewhere}")
        if not Grid(None, d.transform, d.height, d.width).is_sound:
            numbers = ", ".join(f"{number:g}" for number in d.transform.to_gdal())
            raise SceneError(
                f"{self.path}: its transform ({numbers}) gives its pixels no place; correct it with"
                " gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM, or take it away: gdal_edit.py"
                f" -unsetgt {shlex.quote(self.path)}"
            )
        self._check_block(self.block_shape)

    def _check_block(self, shape: tuple[int, int]) -> None:
        d = self._dataset
        rows, cols = shape
        interleaved = d.interleaving is not None and d.interleaving.value == "PIXEL"
        bytes_per_pixel = np.dtype(d.dtypes[0] if "complex_int" not in d.dtypes[0] else "c8")
        block = rows * cols * bytes_per_pixel.itemsize * (d.count if interleaved else 1)
        if block > LARGEST_BLOCK_BYTES:
            raise SceneError(
                f"{self.path}: one block of {rows} x {cols} px and {d.count} bands takes"
                f" {block / 1e9:.1f} GB to decode; if the file is sound, rewrite it with tiles:"
                f" gdal_translate -co TILED=YES {shlex.quote(self.path)} tiled.tif"
            )
