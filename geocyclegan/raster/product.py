"""The product: a Cloud-Optimised GeoTIFF on the grid of its scene, written in windows.

Windows go to a tiled working file beside the final one; GDAL's COG driver then lays it out with
overviews, the result is opened again and checked, and only then renamed. Whatever fails on the way,
what existed under the final name stays as it was, and no working file is left.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import OutputError
from geocyclegan.files import fsync_folder, make_folder, publish
from geocyclegan.raster.digest import TAG, overview_fault, pixel_digest
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.gdal_errors import GDAL_ERRORS
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import first_line, predictor
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

BLOCK = 512


@dataclass(frozen=True)
class ProductSpec:
    """What a product is.

    Attributes:
        grid: the grid of its scene, taken over to the last bit.
        domain: bands, pixel type, nodata value and units.
        tags: provenance, written as GeoTIFF metadata.
        masked: True if some pixel may be invalid; the product then carries a mask.
    """

    grid: Grid
    domain: Domain
    tags: Mapping[str, str]
    masked: bool


class ProductWriter:
    """Writes a product in windows; a context manager that publishes it on a clean exit.

    Args:
        final: where the product will be.
        spec: what it is.

    Raises:
        OutputError: the folder is not writable, the disk is full, or the result does not read back.
    """

    def __init__(self, final: Path, spec: ProductSpec) -> None:
        self.final, self.spec = final, spec
        make_folder(final.parent)
        stem = f".{final.stem}.{os.getpid()}"
        self._work = final.with_name(f"{stem}.work.tif")
        self._part = final.with_name(f"{stem}.part.tif")
        self._valid_pixels = 0
        self._env = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
        self._dataset: Any = None

    def __enter__(self) -> Self:
        grid, domain = self.spec.grid, self.spec.domain
        colors = [band.color for band in domain.bands]
        self._remove_leftovers()
        self._env.__enter__()
        try:
            with warnings.catch_warnings():
                # Grids without georeferencing are ordinary here.
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._dataset = rasterio.open(
                    self._work,
                    "w",
                    driver="GTiff",
                    height=grid.height,
                    width=grid.width,
                    count=domain.count,
                    dtype=domain.dtype,
                    crs=grid.crs,
                    transform=grid.transform,
                    nodata=self._nodata(),
                    tiled=True,
                    blockxsize=BLOCK,
                    blockysize=BLOCK,
                    # Left to itself, GDAL takes the fourth of four 8-bit bands for alpha.
                    photometric="RGB" if colors == ["red", "green", "blue"] else "MINISBLACK",
                    interleave="pixel" if domain.count <= 4 else "band",
                    compress="LZW",
                    BIGTIFF="IF_SAFER",
                )
            self._describe(self._dataset)
        except (RasterioError, OSError, ValueError) as error:
            self._clean()
            raise self._failure(error) from error
        return self

    def _remove_leftovers(self) -> None:
        """Remove what a killed run left; the caller holds the lock of the final name."""
        for kind in ("work", "part"):
            for path in self.final.parent.glob(f".{glob.escape(self.final.stem)}.*.{kind}.tif*"):
                path.unlink(missing_ok=True)

    def _nodata(self) -> float | None:
        nodata, dtype = self.spec.domain.nodata, np.dtype(self.spec.domain.dtype)
        if nodata is None and dtype.kind == "f" and self.spec.masked:
            return float("nan")
        return nodata

    def _describe(self, dataset: Any) -> None:
        bands = self.spec.domain.bands
        dataset.update_tags(**self.spec.tags)
        dataset.colorinterp = [
            ColorInterp[band.color] if band.color in ColorInterp.__members__ else ColorInterp.gray
            for band in bands
        ]
        for index, band in enumerate(bands, start=1):
            if band.name:
                dataset.set_band_description(index, band.name)
            if band.unit:
                dataset.set_band_unit(index, band.unit)
        if any(band.scale != 1.0 or band.offset != 0.0 for band in bands):
            dataset.scales = [band.scale for band in bands]
            dataset.offsets = [band.offset for band in bands]

    def write(self, window: Window, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        """Write a window.

        Args:
            window: where, inside the scene.
            pixels: `(bands, height, width)` of the domain's type and stored units. Where the domain
                has no nodata value, invalid pixels of a floating type become NaN.
            valid: `(height, width)`, True where a pixel is valid.

        Raises:
            OutputError: it cannot be written.
        """
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        if self.spec.domain.nodata is None and pixels.dtype.kind == "f" and not valid.all():
            pixels = np.where(valid, pixels, np.array(np.nan, pixels.dtype))
        try:
            # Options hold for a thread, and this may be another than the one that opened the file.
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                self._dataset.write(pixels, window=area)
                if self.spec.masked:
                    self._dataset.write_mask(valid.astype(np.uint8) * 255, window=area)
        except (RasterioError, OSError) as error:
            raise self._failure(error) from error
        self._valid_pixels += int(valid.sum())

    @property
    def valid_pixels(self) -> int:
        """Valid pixels written so far."""
        return self._valid_pixels

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._clean()

    def _finish(self) -> None:
        try:
            self._dataset.close()
            pixels = pixel_digest(self._work)
            with rasterio.open(self._work, "r+") as work:
                work.update_tags(**{TAG: pixels})
            rasterio.shutil.copy(
                str(self._work),
                str(self._part),
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE",
                PREDICTOR="NO" if predictor(self.spec.domain.dtype) == 1 else "YES",
                BIGTIFF="IF_SAFER",
                OVERVIEW_RESAMPLING="AVERAGE",
                NUM_THREADS="ALL_CPUS",
            )
            self._verify(pixels)
        # The COG driver reports a full disk as a bare CPLE error, not as a RasterioError.
        except Exception as error:
            if isinstance(error, OutputError):
                raise
            raise self._failure(error) from error
        publish(self._part, self.final)
        fsync_folder(self.final.parent)

    def _verify(self, pixels: str) -> None:
        """Open the finished file again and compare it with the working file, all of it.

        Args:
            pixels: the hash of the working file's pixels and mask.
        """
        grid = self.spec.grid
        with rasterio.open(self._work) as work, rasterio.open(self._part) as done:
            same = (
                done.shape == grid.shape
                and done.count == work.count
                and done.dtypes == work.dtypes
                and done.transform == grid.transform
            )
            if not same:
                raise OutputError(f"{self.final}: the written file is not on the scene's grid")
            if done.crs != grid.crs:
                log.warning("%s: GeoTIFF keeps the CRS only nearly as it was", self.final)
            # Masks are told apart here too: a nodata value may hide that one was lost.
            mask_lost = done.mask_flag_enums != work.mask_flag_enums
            overviews_lost = max(grid.shape) > BLOCK and not done.overviews(1)
        if mask_lost:
            wrong: str | None = "its valid mask was lost"
        elif overviews_lost:
            wrong = "its overviews were lost"
        else:
            wrong = self._wrong_pixels(pixels)
        if wrong:
            raise OutputError(
                f"{self.final}: it was written, but not as it should be: {wrong}; check the disk"
                " and run again"
            )

    def _wrong_pixels(self, pixels: str) -> str | None:
        try:
            found = pixel_digest(self._part)
        except GDAL_ERRORS as error:
            return f"its pixels cannot be read back ({first_line(error)})"
        if found != pixels:
            return "its pixels or its valid mask do not read back as they were"
        return overview_fault(self._part)

    def _failure(self, error: Exception) -> OutputError:
        domain, grid = self.spec.domain, self.spec.grid
        need = grid.height * grid.width * domain.count * np.dtype(domain.dtype).itemsize
        have = shutil.disk_usage(self.final.parent).free
        if have < max(need, 1 << 26):
            return OutputError(
                f"{self.final}: the disk is full; up to {need * 2 / 1e9:.2f} GB are needed,"
                f" {have / 1e9:.2f} GB are free in {self.final.parent}"
            )
        lines = str(error).strip().splitlines()
        return OutputError(f"{self.final}: cannot be written ({lines[0] if lines else error!r})")

    def _clean(self) -> None:
        try:
            if self._dataset is not None and not self._dataset.closed:
                self._dataset.close()
        except RasterioError:
            log.debug("closing the working file failed", exc_info=True)
        finally:
            self._env.__exit__()
            for path in (self._work, self._part):
                for suffix in ("", ".aux.xml", ".ovr.tmp", ".msk.ovr.tmp"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
