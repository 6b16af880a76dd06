"""Scenes: anything GDAL reads, opened with care, read in windows with a valid mask.

A pixel is valid when it is valid in every chosen band: not the nodata value, not masked, not
transparent, and finite. Reading never trusts a successful open: damaged files open well and fail at
their pixels, and that failure is an error here, never a silent zero.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import NotFoundError, OptionError, SceneError
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

# Rasters without georeferencing are ordinary here; other packages keep their warnings.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"geocyclegan\.")

# Untrusted input is opened by these drivers only: no driver that follows a file's words to other
# files or hosts. VRT joins them when the name says VRT, network drivers when it is a URL.
DRIVERS: list[str] = """
    GTiff JP2OpenJPEG PNG JPEG HFA ENVI netCDF HDF5 HDF5Image GRIB SRTMHGT DTED AAIGrid EHdr NITF
    ERS PCIDSK RRASTER SAGA MRF WEBP BMP GIF KRO LAN COSAR RS2 TSX SENTINEL2 SAFE BAG Zarr FIT
""".split()  # noqa: SIM905 - a list of forty quoted names reads worse

# One block decodes as a whole, whatever window is asked for.
LARGEST_BLOCK_BYTES = 1 << 30

_COLOURS = {"red", "green", "blue"}
_SUBDATASET = re.compile(r"^[A-Za-z0-9_]+:.*[:/].+")


@contextmanager
def gdal_env(cache_bytes: int | None = None) -> Iterator[None]:
    """GDAL's settings for this package: bounded retries and timeouts, an optional block cache."""
    options: dict[str, Any] = {
        "GDAL_HTTP_MAX_RETRY": 3,
        "GDAL_HTTP_RETRY_DELAY": 1,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_TIMEOUT": 60,
        "GDAL_PAM_ENABLED": "YES",
    }
    if cache_bytes is not None:
        options["GDAL_CACHEMAX"] = cache_bytes
    with rasterio.Env(**options):
        yield


@dataclass(frozen=True)
class SourceBand:
    """A band as its file describes it.

    Attributes:
        index: number in the file, from 1.
        name: its description, or its colour for red, green and blue; None where there is none.
        dtype: pixel type.
        nodata: nodata value or None.
        unit: physical unit or None.
        scale: factor of the file's scale tag.
        offset: offset of the file's offset tag.
        color: colour interpretation.
    """

    index: int
    name: str | None
    dtype: str
    nodata: float | None
    unit: str | None
    scale: float
    offset: float
    color: str

    @property
    def label(self) -> str:
        """Something to call the band by."""
        return self.name or f"band {self.index}"


class Scene:
    """An open scene and the bands chosen from it; a context manager.

    Args:
        path: a file, a URL or a sub-dataset's name.
        bands: numbers ("1", "2-4") or descriptions; None takes all but alpha.
        amplitude: read complex pixels as their amplitude; without it they are refused.

    Raises:
        NotFoundError: there is no such file.
        SceneError: it is no raster that can be used, with the reason and the remedy.
        OptionError: a band that does not exist was asked for.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[str] | None = None,
        *,
        amplitude: bool = False,
    ) -> None:
        self.path = str(path)
        self._amplitude = amplitude
        self._dataset = _open(self.path)
        try:
            self.all_bands = _describe(self._dataset)
            self.bands = self._choose(bands)
            self._check()
            d = self._dataset
            self.grid = Grid(d.crs, d.transform, d.height, d.width)
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

    @property
    def name(self) -> str:
        """File name without folder and extension."""
        return Path(self.path).stem

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
        """False only if the file itself says that every pixel is valid."""
        flags = self._dataset.mask_flag_enums
        chosen = [flags[band.index - 1] for band in self.bands]
        sure = all(f == [MaskFlags.all_valid] for f in chosen)
        return not sure or np.dtype(self.dtype).kind == "f"

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

    def _read_inside(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        if 0 in window.shape:
            return (
                np.zeros((len(self.bands), *window.shape), self.dtype),
                np.zeros(window.shape, np.bool_),
            )
        indexes = [band.index for band in self.bands]
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            pixels = self._dataset.read(indexes, window=area)
            valid = self._read_mask(pixels, indexes, area)
        except (RasterioError, OSError, MemoryError) as error:
            raise SceneError(
                f"{self.path}: pixels in rows {window.row}-{window.row_stop - 1}, columns"
                f" {window.col}-{window.col_stop - 1} cannot be read ({_first_line(error)});"
                " the file is damaged or incomplete, so fetch it again"
            ) from error
        if self._is_complex:
            pixels = np.abs(pixels).astype(np.float32)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=0)
        return pixels, valid

    def _read_mask(
        self, pixels: npt.NDArray[Any], indexes: list[int], area: RasterioWindow
    ) -> npt.NDArray[np.bool_]:
        flags = self._dataset.mask_flag_enums
        kinds = [flags[index - 1] for index in indexes]
        valid = np.ones(pixels.shape[1:], np.bool_)
        if any(MaskFlags.per_dataset in kind for kind in kinds):
            # Near infrared is often mislabelled as alpha; who names that band wants its values.
            alpha_is_data = any(band.color == "alpha" for band in self.bands)
            if not (alpha_is_data and any(MaskFlags.alpha in kind for kind in kinds)):
                valid &= self._dataset.read_masks(indexes[0], window=area) > 0
        elif any(kind != [MaskFlags.all_valid] for kind in kinds):
            valid &= (self._dataset.read_masks(indexes, window=area) > 0).all(axis=0)
            return valid
        # A file may carry a mask and a nodata value, too; GDAL then looks at the mask alone.
        for band, values in zip(self.bands, pixels, strict=True):
            if band.nodata is not None and np.isfinite(band.nodata):
                valid &= values != band.nodata
        return valid

    def windows_by_rows(self, rows: int) -> Iterator[Window]:
        """Yield full-width windows of about `rows` rows, aligned to the file's blocks."""
        block = self.block_shape[0]
        step = max(block, rows // block * block)
        for row in range(0, self.grid.height, step):
            yield Window(row, 0, min(step, self.grid.height - row), self.grid.width)

    def _choose(self, wanted: Sequence[str] | None) -> tuple[SourceBand, ...]:
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
        if any(band.color == "palette" for band in self.bands):
            raise SceneError(
                f"{self.path}: its pixels are colour-table indexes, which cannot be translated;"
                f" expand them first: gdal_translate -expand rgb {self.path} rgb.tif"
            )
        if self._is_complex and not self._amplitude:
            raise SceneError(
                f"{self.path}: its pixels are complex; say how to read them, --scale db for"
                " amplitude in decibel"
            )
        if d.transform == Affine.identity():
            gcps, gcps_crs = d.gcps
            if gcps:
                target = f"-t_srs {gcps_crs.to_string()} " if gcps_crs else ""
                raise SceneError(
                    f"{self.path}: it has ground control points and no transform; put it on a"
                    f" grid first: gdalwarp {target}{self.path} warped.tif"
                )
            if d.tags(ns="RPC"):
                raise SceneError(
                    f"{self.path}: it has rational polynomial coefficients and no transform; put"
                    f" it on a grid first: gdalwarp -rpc {self.path} warped.tif"
                )
        rows, cols = self.block_shape
        interleaved = d.profile.get("interleave") == "pixel"
        bytes_per_pixel = np.dtype(d.dtypes[0] if "complex_int" not in d.dtypes[0] else "c8")
        block = rows * cols * bytes_per_pixel.itemsize * (d.count if interleaved else 1)
        if block > LARGEST_BLOCK_BYTES:
            raise SceneError(
                f"{self.path}: one block of {rows} x {cols} px and {d.count} bands takes"
                f" {block / 1e9:.1f} GB to decode; if the file is sound, rewrite it with tiles:"
                f" gdal_translate -co TILED=YES {self.path} tiled.tif"
            )


def _open(path: str) -> Any:
    is_remote = path.startswith(("http://", "https://", "s3://", "gs://", "az://", "/vsi"))
    is_sub = bool(_SUBDATASET.match(path)) and not os.path.exists(path)
    if not is_remote and not is_sub:
        if not os.path.exists(path):
            raise NotFoundError(f"{path}: no such file")
        if os.path.isdir(path) and not path.rstrip("/").endswith((".SAFE", ".zarr")):
            raise SceneError(f"{path}: a folder, where a raster file was expected")
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise SceneError(f"{path}: the file is empty")
    drivers = [*DRIVERS, "VRT"] if path.lower().endswith(".vrt") else DRIVERS
    try:
        dataset = _open_with(path, drivers)
    except (RasterioError, OSError, ValueError) as error:
        raise SceneError(
            f"{path}: not a raster that can be read ({_first_line(error, path)})"
        ) from error
    if dataset.count == 0:
        subdatasets = list(dataset.subdatasets)
        dataset.close()
        if not subdatasets:
            raise SceneError(f"{path}: it holds no raster band")
        shown = ", ".join(subdatasets[:3]) + (" ..." if len(subdatasets) > 3 else "")
        raise SceneError(
            f"{path}: it holds {len(subdatasets)} sub-datasets and no band of its own;"
            f" name one: {shown}"
        )
    return dataset


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_with(path: str, drivers: list[str]) -> Any:
    # `rasterio.open` takes one driver; the class behind it takes several.
    return DatasetReader(path, driver=drivers)


def _first_line(error: BaseException, path: str = "") -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    cause = error.__cause__ or error.__context__
    if cause is not None and "previous exception" in text.lower():
        return _first_line(cause, path)
    if "see previous exception" in text.lower() or "Read failed" in text:
        text = "GDAL cannot decode them"
    return text.replace(f"'{path}' ", "").rstrip(".")


def _describe(dataset: Any) -> tuple[SourceBand, ...]:
    colors = _color_names(dataset)
    return tuple(
        SourceBand(
            index=i + 1,
            name=dataset.descriptions[i] or (colors[i] if colors[i] in _COLOURS else None),
            dtype=dataset.dtypes[i],
            nodata=dataset.nodatavals[i],
            unit=dataset.units[i] or None,
            scale=dataset.scales[i],
            offset=dataset.offsets[i],
            color=colors[i],
        )
        for i in range(dataset.count)
    )


def _color_names(dataset: Any) -> list[str]:
    try:
        return [color.name for color in dataset.colorinterp]
    except ValueError:
        # A colour interpretation that this rasterio does not know yet.
        return [ColorInterp.undefined.name] * int(dataset.count)


def resolve_bands(wanted: Sequence[str], names: Sequence[str | None], where: str) -> list[int]:
    """Turn numbers ("3", "2-4") and descriptions ("B04", any case) into band numbers from 1.

    Args:
        wanted: what was asked for.
        names: the name of each band that there is, or None.
        where: what to call the file in an error.

    Raises:
        OptionError: a band does not exist or is asked for twice.
    """
    by_name = {name.casefold(): i for i, name in enumerate(names, start=1) if name}
    found: list[int] = []
    for item in wanted:
        text = item.strip()
        number = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if text.casefold() in by_name:
            found.append(by_name[text.casefold()])
            continue
        if number is None:
            known = ", ".join(name for name in names if name) or "none is named, use numbers"
            raise OptionError(f"--bands {text}: no such band in {where} (there: {known})")
        first, last = int(number[1]), int(number[2] or number[1])
        if first < 1 or last > len(names) or first > last:
            raise OptionError(
                f"--bands {text}: {where} has bands 1 to {len(names)}, counted from 1"
            )
        found.extend(range(first, last + 1))
    if not found:
        raise OptionError("--bands: no band was named")
    if len(set(found)) < len(found):
        raise OptionError(f"--bands {','.join(wanted)}: a band is named twice")
    return found


def bands_for(domain: Domain, scene: Scene) -> list[str]:
    """Choose the bands of a scene that a model wants, by name, or by order where names are missing.

    Raises:
        SceneError: they are not there; it names what the model wants and what the scene has.
    """
    have = [band for band in scene.all_bands if band.color != "alpha"]
    names = {band.name.casefold(): band.index for band in have if band.name}
    if all(name and name.casefold() in names for name in domain.names):
        return [str(names[name.casefold()]) for name in domain.names if name]
    unnamed = not any(band.name for band in have) or not any(domain.names)
    if len(have) == domain.count and unnamed:
        return [str(band.index) for band in have]
    remedy = "choose them in that order with --bands"
    raise SceneError(
        f"{scene.path}: the model wants {domain.count} band{'s' * (domain.count != 1)}"
        f" ({', '.join(domain.labels)}), the scene has {len(have)}"
        f" ({', '.join(band.label for band in have)}); {remedy}"
    )
