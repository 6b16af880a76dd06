"""How a scene is looked at: its bands, on which grid, in which numbers, under which masks.

A `Source` is a value that can be sent to other processes and written down, so that a chip may be
cut by any of them, or read from the scene each time (`--virtual`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.align import AlignedScene, Raster
from geocyclegan.raster.bandfiles import paths_of
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.domain import cast_values
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.remote import state_of
from geocyclegan.raster.stack import open_scene
from geocyclegan.raster.windows import Window


@dataclass(frozen=True)
class ClassMask:
    """A raster of classes that makes pixels invalid: clouds, shadows, sea.

    Pixels that the raster does not reach are invalid, too: nothing is known of them.

    Attributes:
        path: the raster; its first band is looked at, on whatever grid it is.
        values: the classes to leave out; None for all but 0.
    """

    path: str
    values: tuple[int, ...] | None


@dataclass(frozen=True)
class Packing:
    """The stored numbers of a domain, for a scene that stores them otherwise.

    Attributes:
        bands: scale and offset of each band of the domain.
        dtype: pixel type of the domain.
        nodata: nodata value of the domain.
    """

    bands: tuple[tuple[float, float], ...]
    dtype: str
    nodata: float | None


@dataclass(frozen=True)
class Source:
    """A scene and how it is looked at.

    Attributes:
        path: absolute path, URL or sub-dataset name.
        bands: numbers of the bands, from 1.
        amplitude: read complex pixels as their amplitude.
        grid: the grid on which it is seen; None for its own.
        resampling: how it is brought there, see `raster.align.RESAMPLINGS`.
        packing: the numbers wanted, None for its own.
        masks: what else makes pixels invalid.
        partner: a scene on the same grid whose invalid pixels are invalid here, too.
        undeclared: number that stands for no data though the file does not say so, see
            `raster.undeclared`.
        unit: unit of bands whose file states none.
    """

    path: str
    bands: tuple[int, ...]
    amplitude: bool = False
    grid: Grid | None = None
    resampling: str = "auto"
    packing: Packing | None = None
    masks: tuple[ClassMask, ...] = ()
    partner: Source | None = None
    undeclared: float | None = None
    unit: str | None = None

    def open(self) -> OpenSource:
        """Open everything that is looked at.

        Raises:
            NotFoundError: a file is not there.
            SceneError: something cannot be read, or has no place on the grid.
            OptionError: a band does not exist.
        """
        return OpenSource(self)

    def with_partner(self, partner: Source) -> Source:
        """Return the same with a partner, whose own partner is dropped."""
        return replace(self, partner=replace(partner, partner=None))

    def files(self) -> list[str]:
        """Return the paths of all that is read: the scene's files, masks, the partner's files.

        Raises:
            NotFoundError, SceneError: see `raster.bandfiles.band_files`.
        """
        return [
            *paths_of(self.path),
            *(mask.path for mask in self.masks),
            *(self.partner.files() if self.partner else ()),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        packing = self.packing
        return {
            "path": self.path,
            "bands": list(self.bands),
            "amplitude": self.amplitude,
            "grid": None if self.grid is None else self.grid.to_json(),
            "resampling": self.resampling,
            "packing": None
            if packing is None
            else {
                "bands": [list(band) for band in packing.bands],
                "dtype": packing.dtype,
                "nodata": None if packing.nodata is None else str(packing.nodata),
            },
            "masks": [
                {"path": mask.path, "values": None if mask.values is None else list(mask.values)}
                for mask in self.masks
            ],
            "partner": None if self.partner is None else self.partner.to_json(),
            "undeclared_nodata": self.undeclared,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        packing, grid, partner = value["packing"], value["grid"], value["partner"]
        undeclared, unit = value.get("undeclared_nodata"), value.get("unit")
        return cls(
            path=str(value["path"]),
            bands=tuple(int(band) for band in value["bands"]),
            amplitude=bool(value["amplitude"]),
            grid=None if grid is None else Grid.from_json(grid),
            resampling=str(value["resampling"]),
            packing=None
            if packing is None
            else Packing(
                tuple((float(scale), float(offset)) for scale, offset in packing["bands"]),
                str(packing["dtype"]),
                None if packing["nodata"] is None else float(packing["nodata"]),
            ),
            masks=tuple(
                ClassMask(
                    str(mask["path"]),
                    None if mask["values"] is None else tuple(int(v) for v in mask["values"]),
                )
                for mask in value["masks"]
            ),
            partner=None if partner is None else cls.from_json(partner),
            undeclared=None if undeclared is None else float(undeclared),
            unit=None if unit is None else str(unit),
        )


class OpenSource:
    """An open source; a context manager. What it gives is a `Raster`."""

    def __init__(self, source: Source) -> None:
        self._packing, self._unit = source.packing, source.unit
        with ExitStack() as stack:
            scene = open_scene(source.path, source.bands, amplitude=source.amplitude)
            stack.enter_context(scene)
            scene.leave_out(source.undeclared)
            self._raster: Raster = scene
            if source.grid is not None:
                self._raster = AlignedScene(scene, source.grid, source.resampling)
            self._masks = [
                (stack.enter_context(open_classes(mask.path, self.grid)), mask.values)
                for mask in source.masks
            ]
            self._partner = stack.enter_context(source.partner.open()) if source.partner else None
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def path(self) -> str:
        """The scene's path."""
        return self._raster.path

    @property
    def grid(self) -> Grid:
        """The grid on which it is seen."""
        return self._raster.grid

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are best read together."""
        return self._raster.block_shape

    @property
    def dtype(self) -> str:
        """Pixel type of what `read` returns."""
        return self._packing.dtype if self._packing else self._raster.dtype

    @property
    def nodata(self) -> float | None:
        """Nodata value, None if there is none; invalid pixels need not hold it."""
        return self._packing.nodata if self._packing else self._raster.nodata

    @property
    def bands(self) -> tuple[SourceBand, ...]:
        """The bands, as they are seen."""
        bands = self._raster.bands
        if self._unit is not None:
            bands = tuple(replace(band, unit=band.unit or self._unit) for band in bands)
        if self._packing is None:
            return bands
        packing = self._packing
        return tuple(
            replace(band, dtype=packing.dtype, nodata=packing.nodata, scale=scale, offset=offset)
            for band, (scale, offset) in zip(bands, packing.bands, strict=True)
        )

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of the grid, which may reach beyond it.

        Returns:
            Pixels `(bands, height, width)` of `dtype`, in stored units (those of `packing`, where
            there is one), and the valid mask `(height, width)`: valid in the scene, and left by the
            class masks and the partner. Invalid pixels hold anything.

        Raises:
            SceneError: the pixels cannot be read.
        """
        pixels, valid = self._raster.read(window)
        for classes, values in self._masks:
            codes, inside = classes.read(window)
            bad = codes[0] != 0 if values is None else np.isin(codes[0], values)
            valid = valid & inside & ~bad
        if self._partner is not None:
            valid = valid & self._partner.read(window)[1]
        if self._packing is not None:
            pixels = self._repack(pixels, self._packing)
        return pixels, valid

    def _repack(self, pixels: npt.NDArray[Any], packing: Packing) -> npt.NDArray[Any]:
        out = np.empty(pixels.shape, packing.dtype)
        for i, (band, wanted) in enumerate(zip(self._raster.bands, packing.bands, strict=True)):
            gain, shift = band.scale / wanted[0], (band.offset - wanted[1]) / wanted[0]
            values = np.nan_to_num(pixels[i].astype(np.float64) * gain + shift)
            out[i] = cast_values(values, out.dtype, packing.nodata)
        return out


def open_classes(path: str, grid: Grid) -> AlignedScene:
    """Open a raster of classes on a grid; what it reads as valid is where it reaches.

    Raises:
        SceneError: it cannot be used, or has no place on the grid.
    """
    scene = open_scene(path, classes=True)
    try:
        return AlignedScene(scene, grid, "nearest")
    except BaseException:
        scene.close()
        raise


def state_of_files(paths: list[str]) -> dict[str, list[int]]:
    """Return size and time of change of the plain files among paths, to notice when they change.

    Of those on servers what these tell instead, if they do, see `raster.remote.state_of`.
    """
    state = {}
    for path in paths:
        told = state_of(path)
        if told is not None:
            state[path] = told
        elif os.path.isfile(path):
            found = os.stat(path)
            state[path] = [found.st_size, found.st_mtime_ns]
    return state
