"""A scene seen on another grid: warped in memory, window by window, with its valid mask.

GDAL's warper is given what `Scene.read` gives, and not the file: a warped VRT of the file would
know nothing of a mask that joins all bands, of NaN without a nodata value, nor of complex pixels
that are read as amplitude. Nothing invalid flows into a valid pixel: smooth resampling leaves
invalid neighbours out, and a pixel is valid where the nearest one of the scene is.

The grid is cut into fixed tiles and these are warped whole, so that a pixel does not depend on the
window through which it is looked at.
"""

from __future__ import annotations

import math
import re
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geocyclegan.errors import SceneError
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.domain import cast_values
from geocyclegan.raster.gdal_errors import GDAL_ERRORS
from geocyclegan.raster.globe import columns_per_turn, is_geographic, near_greenwich
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.target import Piece, is_bent, pieces_under, pixels_under
from geocyclegan.raster.tilecache import Tile, TileCache
from geocyclegan.raster.windows import Window

RESAMPLINGS = (
    "auto",
    *("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "med"),
)
"""What `--resampling` takes; auto is nearest for bands of classes, bilinear for all others."""

# Names of bands that hold classes or flags.
_CLASSES = re.compile(r"\b(scl|qa\w*|f?mask\w*|class\w*|label\w*|category|categories)\b", re.I)
_TILE, _SMALLEST_TILE = 256, 16
_SAMPLES_UNDER_TILE = 1 << 24
_SAME_PLACE = 0.01  # of a pixel
# The warper may stray this far (in pixels) where it interpolates between exact positions.
_TOLERANCE = 0.02
_SHORT = 16  # px
# A window may have neighbours that share its tiles: those of some rows of chips.
_tiles = TileCache(128 * 2**20)


class Raster(Protocol):
    """What scenes have in common, on whatever grid they are seen."""

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def grid(self) -> Grid: ...  # noqa: D102
    @property
    def bands(self) -> tuple[SourceBand, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def nodata(self) -> float | None: ...  # noqa: D102
    @property
    def block_shape(self) -> tuple[int, int]: ...  # noqa: D102

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read pixels `(bands, height, width)` of `dtype` and the valid mask `(height, width)`.

        Raises:
            SceneError: the pixels cannot be read.
        """
        ...


def shift_between(source: Grid, target: Grid) -> tuple[int, int] | None:
    """Return rows and columns from the source's upper-left corner to the target's.

    None where the two have another CRS or their pixels do not coincide.
    """
    if source.crs != target.crs:
        return None
    if is_geographic(source.crs) and columns_per_turn(source) is None:
        # Longitudes may be counted from another turn, which need not be a whole number of pixels.
        pieces = pieces_under(source, target, Window(0, 0, *target.shape), 0.0)
        if len(pieces) > 1:
            return None
        if pieces:
            window, grid = pieces[0].window, pieces[0].grid
            source = grid.window(Window(-window.row, -window.col, *source.shape))
    step = ~source.transform * target.transform
    drift = max(abs(step.a - 1), abs(step.b), abs(step.d), abs(step.e - 1))
    row, col = round(step.f), round(step.c)
    off = max(abs(step.f - row), abs(step.c - col)) + drift * max(target.shape)
    return (row, col) if off < _SAME_PLACE else None


class AlignedScene:
    """An open scene on another grid; a context manager that closes the scene.

    Args:
        scene: the scene.
        grid: where it is to be seen.
        resampling: one of `RESAMPLINGS`.

    Raises:
        SceneError: the two grids cannot be brought together.
    """

    def __init__(self, scene: Scene, grid: Grid, resampling: str = "auto") -> None:
        self._scene, self.grid = scene, grid
        self.path, self.bands = scene.path, scene.bands
        self.dtype, self.nodata = scene.dtype, scene.nodata
        self._shift = shift_between(scene.grid, grid)
        self._around = columns_per_turn(scene.grid)
        self._methods = [_method(band, resampling) for band in scene.bands]
        self._owner = _tiles.owner(self)
        if self._shift is None:
            try:
                under = pixels_under(scene.grid, grid)
            except SceneError as error:
                raise SceneError(f"{scene.path}: {error}") from error
            # Lanczos looks three pixels around, wider where the target's pixels are wider.
            self._margin = 3.0 * max(1.0, math.sqrt(under)) + 2.0
            side = _TILE
            while side > _SMALLEST_TILE and side * side * under * len(self.bands) > (
                _SAMPLES_UNDER_TILE
            ):
                side //= 2
            self._side = side

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
        """Close the scene."""
        self._scene.close()
        _tiles.drop(self._owner)

    def leave_out(self, value: float | None) -> None:
        """Declare a further nodata value, see `Scene.leave_out`; none of it is interpolated."""
        self._scene.leave_out(value)
        _tiles.drop(self._owner)

    @property
    def scene(self) -> Scene:
        """The scene, on its own grid."""
        return self._scene

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are best read together."""
        return self._scene.block_shape if self._shift is not None else (self._side, self._side)

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of the grid, which may reach beyond it.

        Returns:
            Pixels `(bands, height, width)` of `dtype` and the valid mask `(height, width)`, False
            beyond the grid and the scene. Invalid pixels hold anything.

        Raises:
            SceneError: the pixels cannot be read.
        """
        if self._shift is not None:
            row, col = self._shift
            moved = Window(window.row + row, window.col + col, window.height, window.width)
            pixels, valid = self._read_around(moved)
            inside = window.clip(*self.grid.shape)
            if inside != window:
                outside = np.ones(window.shape, np.bool_)
                outside[inside.slices_in(window)] = False
                valid = valid & ~outside
            return pixels, valid
        pixels = np.zeros((len(self.bands), *window.shape), self.dtype)
        valid = np.zeros(window.shape, np.bool_)
        inside = window.clip(*self.grid.shape)
        if 0 in inside.shape:
            return pixels, valid
        side = self._side
        for row in range(inside.row // side * side, inside.row_stop, side):
            for col in range(inside.col // side * side, inside.col_stop, side):
                tile = Window(row, col, side, side).clip(*self.grid.shape)
                top, left = max(tile.row, inside.row), max(tile.col, inside.col)
                bottom = min(tile.row_stop, inside.row_stop)
                right = min(tile.col_stop, inside.col_stop)
                part = Window(top, left, bottom - top, right - left)
                values, mask = self._tile(tile)
                here, there = part.slices_in(window), part.slices_in(tile)
                pixels[(slice(None), *here)] = values[(slice(None), *there)]
                valid[here] = mask[there]
        return pixels, valid

    def _tile(self, tile: Window) -> Tile:
        found = _tiles.get(self._owner, tile)
        if found is None:
            found = self._warp(tile)
            _tiles.put(self._owner, tile, found)
        return found

    def _read_around(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of the scene; what lies beyond its sides is looked for once around."""
        height, width = self._scene.grid.shape
        around = self._around
        if around is None:
            return self._scene.read(window)
        turns = range(-window.col_stop // around + 1, -((window.col - width) // around))
        if turns in (range(0), range(1)):
            return self._scene.read(window)
        pixels = np.zeros((len(self.bands), *window.shape), self.dtype)
        valid = np.zeros(window.shape, np.bool_)
        free = np.ones(window.width, np.bool_)  # a scene may hold its first columns twice
        for turn in turns:
            by = turn * around
            part = Window(window.row, window.col + by, *window.shape).clip(height, width)
            if 0 in part.shape:
                continue
            values, mask = self._scene.read(part)
            here = Window(part.row, part.col - by, *part.shape)
            rows, cols = here.slices_in(window)
            fresh = free[cols]
            pixels[:, rows, cols][:, :, fresh] = values[:, :, fresh]
            valid[rows, cols][:, fresh] = mask[:, fresh]
            free[cols] = False
        return pixels, valid

    def _warp(self, tile: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        pixels = np.zeros((len(self.bands), *tile.shape), self.dtype)
        valid = np.zeros(tile.shape, np.bool_)
        for piece in pieces_under(self._scene.grid, self.grid, tile, self._margin):
            values, mask = self._warp_piece(piece, self.grid.window(tile))
            fresh = mask & ~valid
            pixels[:, fresh] = values[:, fresh]
            valid |= mask
        return pixels, valid

    def _warp_piece(
        self, piece: Piece, target: Grid
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        pixels = np.zeros((len(self.bands), *target.shape), self.dtype)
        values, mask = self._read_around(piece.window)
        if target.crs != piece.grid.crs:
            target = near_greenwich(target)
        places = _Places(piece.grid, target)
        try:
            valid = places.warp(mask.astype(np.uint8)[np.newaxis], "nearest", 0)[0] > 0
            for method in sorted(set(self._methods)):
                chosen = [i for i, m in enumerate(self._methods) if m == method]
                if method == "nearest":
                    pixels[chosen] = places.warp(values[chosen], method, None)
                    continue
                smooth = values[chosen].astype(_smooth_dtype(values.dtype))
                smooth[:, ~mask] = np.nan
                smooth = places.warp(smooth, method, math.nan)
                valid &= np.isfinite(smooth).all(axis=0)
                np.nan_to_num(smooth, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                for i, band in zip(chosen, smooth, strict=True):
                    pixels[i] = cast_values(band, pixels.dtype, self.bands[i].nodata)
        except GDAL_ERRORS as error:
            raise SceneError(f"{self.path}: it cannot be warped ({error})") from error
        return pixels, valid


class _Places:
    """From one grid to another, for arrays."""

    def __init__(self, source: Grid, target: Grid) -> None:
        self._source, self._target = source, target
        # GDAL takes a row for straight whose middle lies on the line between its ends, as it does
        # where a row is bent there and back; so bent rows are warped in short pieces.
        self._step = _SHORT if is_bent(source, target) else target.width

    def warp(self, values: npt.NDArray[Any], method: str, nodata: float | None) -> npt.NDArray[Any]:
        height, width = self._target.shape
        values = np.ascontiguousarray(values)
        parts = [
            self._warp_part(
                values, Window(0, col, height, min(self._step, width - col)), method, nodata
            )
            for col in range(0, width, self._step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _warp_part(
        self, values: npt.NDArray[Any], part: Window, method: str, nodata: float | None
    ) -> npt.NDArray[Any]:
        out = np.zeros((len(values), *part.shape), values.dtype)
        # Two rasters without a CRS share whatever plane they are in.
        crs = "EPSG:3857"
        scale = self._turned_scale()
        reproject(
            values,
            out,
            src_transform=self._source.transform,
            dst_transform=self._target.window(part).transform,
            src_crs=self._source.crs or crs,
            dst_crs=self._target.crs or crs,
            src_nodata=nodata,
            dst_nodata=nodata,
            init_dest_nodata=True,
            resampling=Resampling[method],
            tolerance=_TOLERANCE,
            **({} if scale is None else {"XSCALE": scale, "YSCALE": scale}),
        )
        return out

    def _turned_scale(self) -> float | None:
        """Return pixels of the target per pixel of the source, where one grid is turned.

        GDAL would take it from the boxes around both, and blur as if the source were finer.
        """
        if self._source.crs != self._target.crs:
            return None
        step = ~self._source.transform * self._target.transform
        if abs(step.b) + abs(step.d) < 1e-9:
            return None
        return min(1.0, 1.0 / math.sqrt(abs(step.determinant)))


def is_class(band: SourceBand) -> bool:
    """Say whether a band holds classes or flags, by its colour table or its name."""
    words = (band.name or "").replace("_", " ")
    return band.color == "palette" or bool(_CLASSES.search(words))


def _method(band: SourceBand, asked: str) -> str:
    if asked != "auto":
        return asked
    return "nearest" if is_class(band) else "bilinear"


def _smooth_dtype(dtype: np.dtype[Any]) -> npt.DTypeLike:
    is_small = dtype.itemsize <= 2 or dtype == np.float32
    return np.float32 if is_small else np.float64
