"""One scene out of several files: bands of their own files, also of different pixel sizes.

The finest of the chosen bands gives the grid; the others are seen on it as `raster.align` does it:
bilinear, and nearest for bands of classes. A pixel is valid where it is valid in every chosen band.
An undeclared nodata value is looked for in all files of that grid together, and in each other file
by itself, before it is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.errors import SceneError
from geocyclegan.raster.align import AlignedScene, is_class
from geocyclegan.raster.bandfiles import BandFile, band_files, short_name
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.undeclared import all_hold
from geocyclegan.raster.windows import Window


def open_scene(
    path: str | Path,
    bands: Sequence[str | int] | None = None,
    *,
    amplitude: bool = False,
    classes: bool = False,
) -> Scene:
    """Open a scene of one file or of several; for the arguments see `Scene`.

    Raises:
        NotFoundError, SceneError, OptionError: see `Scene`.
    """
    files = band_files(str(path))
    if files is None:
        return Scene(path, bands, amplitude=amplitude, classes=classes)
    return StackedScene(str(path), files, bands, amplitude=amplitude, classes=classes)


class StackedScene(Scene):
    """An open scene whose bands lie in several files; a context manager.

    Args:
        path: what the scene is called.
        files: its files.
        bands: numbers ("1", "2-4", counted through all files) or names; None takes those that are
            chosen in `files`, alpha and classes left out.
        amplitude: see `Scene`.
        classes: see `Scene`.

    Raises:
        NotFoundError, SceneError, OptionError: see `Scene`.
    """

    def __init__(
        self,
        path: str,
        files: Sequence[BandFile],
        bands: Sequence[str | int] | None = None,
        *,
        amplitude: bool = False,
        classes: bool = False,
    ) -> None:
        self.path = path
        self._files = files
        self.undeclared: float | None = None
        with ExitStack() as stack:
            parts = [
                stack.enter_context(Scene(file.path, amplitude=amplitude, classes=classes))
                for file in files
            ]
            every: list[SourceBand] = []
            self._home: dict[int, tuple[int, int]] = {}
            default: list[int] = []
            for at, (file, part) in enumerate(zip(files, parts, strict=True)):
                part.redescribe([_told(band, file, part) for band in part.all_bands])
                for band in part.all_bands:
                    index = len(every) + 1
                    self._home[index] = at, band.index
                    every.append(replace(band, index=index))
                    if file.chosen and band.color != "alpha" and not is_class(every[-1]):
                        default.append(index)
            self.all_bands = tuple(every)
            self.bands = self._choose(bands if bands is not None or not default else default)
            self._parts = self._view(parts)
            self._stack = stack.pop_all()

    def _view(self, parts: Sequence[Scene]) -> list[tuple[Scene | AlignedScene, list[int]]]:
        """Choose the bands of each file, and put all on the finest grid."""
        wanted: dict[int, list[int]] = {}
        for place, band in enumerate(self.bands):
            wanted.setdefault(self._home[band.index][0], []).append(place)
        for at, places in wanted.items():
            parts[at].select([self._home[self.bands[place].index][1] for place in places])

        def area(at: int) -> float:
            across, down = parts[at].grid.pixel_size
            return across * down

        finest = min(wanted, key=area)
        self.grid = parts[finest].grid
        self._finest = parts[finest]
        views: list[tuple[Scene | AlignedScene, list[int]]] = []
        for at, places in wanted.items():
            part = parts[at]
            try:
                seen = part if part.grid == self.grid else AlignedScene(part, self.grid)
            except SceneError as error:
                raise SceneError(
                    f"{error}; it cannot be stacked with {self._finest.path}, leave one out"
                ) from error
            views.append((seen, places))
        return views

    def leave_out(self, value: float | None) -> None:
        """Declare a further nodata value, see `Scene.leave_out`."""
        self.undeclared = value
        for part, _ in self._parts:
            if isinstance(part, AlignedScene):
                part.leave_out(value)

    def _known(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return where pixels do not hold the undeclared value in all files of the finest grid."""
        if self.undeclared is None:
            return np.ones(pixels.shape[1:], np.bool_)
        finest = [at for part, places in self._parts for at in places if isinstance(part, Scene)]
        return ~all_hold(pixels[finest], self.undeclared)

    @property
    def name(self) -> str:
        """What the names of its files share."""
        return short_name(self.path)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that it is read from."""
        return tuple(file.path for file in self._files)

    @property
    def area_or_point(self) -> str | None:
        """What the finest file says of the coordinates of its pixels."""
        return self._finest.area_or_point

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of the blocks of the finest file."""
        return self._finest.block_shape

    @property
    def may_have_invalid(self) -> bool:
        """False only if all files say that every pixel is valid, and all are of one grid."""
        return self.undeclared is not None or any(
            isinstance(part, AlignedScene) or part.may_have_invalid for part, _ in self._parts
        )

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window, which may reach beyond the scene; see `Scene.read`.

        Returns:
            Pixels `(bands, height, width)` of `dtype` and the valid mask `(height, width)`.

        Raises:
            SceneError: the pixels of a file cannot be read.
        """
        pixels = np.zeros((len(self.bands), *window.shape), self.dtype)
        valid = np.ones(window.shape, np.bool_)
        for part, places in self._parts:
            values, mask = part.read(window)
            pixels[places] = values
            valid &= mask
        return pixels, valid & self._known(pixels)

    def overview(self, most: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read every n-th pixel; see `Scene.overview`. All files are taken to cover the same area.

        Returns:
            Pixels `(bands, rows, columns)` of `dtype` and the valid mask `(rows, columns)`, rows
            and columns as the finest file has them.

        Raises:
            SceneError: the pixels of a file cannot be read.
        """
        pixels: npt.NDArray[Any] | None = None
        valid = self._finest.overview(most)[1]
        shape = valid.shape
        for part, places in self._parts:
            scene = part if isinstance(part, Scene) else part.scene
            values, mask = scene.overview(most)
            rows = np.arange(shape[0]) * mask.shape[0] // shape[0]
            cols = np.arange(shape[1]) * mask.shape[1] // shape[1]
            if pixels is None:
                pixels = np.zeros((len(self.bands), *shape), self.dtype)
            pixels[places] = values[:, rows[:, np.newaxis], cols]
            valid = valid & mask[rows[:, np.newaxis], cols]
        assert pixels is not None  # for mypy: a scene has a band
        return pixels, valid & self._known(pixels)


def _told(band: SourceBand, file: BandFile, part: Scene) -> SourceBand:
    """Return what is known of a band: by its product, by its file, by the name of its file."""
    alone = sum(other.color != "alpha" for other in part.all_bands) == 1
    name = band.name
    if file.name is not None and alone and band.color != "alpha":
        name = file.name
    return replace(
        band,
        name=name,
        scale=band.scale if file.scale is None else file.scale,
        offset=band.offset if file.offset is None else file.offset,
        nodata=band.nodata if file.nodata is None else file.nodata,
        color="undefined" if band.color == "gray" else band.color,
    )
