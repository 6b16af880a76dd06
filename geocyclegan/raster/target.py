"""Grids to put scenes on: another CRS or pixel size, or the ground that two scenes share.

Grids made from a pixel size have their corners at multiples of it, so that scenes which are put on
one each still share a lattice.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

# Points along each side of a grid that stand for it in another CRS, where straight lines bend.
_POINTS = 21
_MOST_PIXELS = 1 << 40


def parse_crs(text: str) -> CRS:
    """Read `--crs`: an EPSG code, a PROJ string or WKT.

    Raises:
        OptionError: it is none of these.
    """
    try:
        # In an environment PROJ's own lines go to the log.
        with rasterio.Env():
            return CRS.from_user_input(int(text) if text.isdigit() else text)
    except (CRSError, ValueError) as error:
        raise OptionError(
            f"--crs {text}: not a coordinate reference system; expected something like EPSG:32630"
        ) from error


def parse_res(text: str) -> tuple[float, float]:
    """Read `--res`: one number, or two for x and y.

    Raises:
        OptionError: it is none of these.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0 < n < math.inf for n in numbers):
        raise OptionError(f"--res {text}: expected a size above 0, or two as X,Y")
    return numbers[0], numbers[-1]


def project(
    source: CRS | None, target: CRS | None, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bring points from one CRS into another; what has no place there becomes infinite.

    Raises:
        SceneError: one CRS is missing, or there is no way between them.
    """
    if source == target:
        return xs, ys
    if source is None or target is None:
        raise SceneError("one raster has a CRS, the other has none, so neither places the other")
    try:
        x, y = transform_points(source, target, xs.ravel(), ys.ravel())
    except (RasterioError, CPLE_BaseError) as error:
        raise SceneError(f"there is no way from one CRS to the other ({error})") from error
    return np.asarray(x).reshape(xs.shape), np.asarray(y).reshape(ys.shape)


def sample_points(grid: Grid, window: Window) -> tuple[npt.NDArray[np.float64], ...]:
    """Return map coordinates of points spread over a window of a grid, its outline included."""
    rows = np.linspace(window.row, window.row_stop, _POINTS)[:, np.newaxis]
    cols = np.linspace(window.col, window.col_stop, _POINTS)[np.newaxis, :]
    t = grid.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def window_on(source: Grid, target: Grid, window: Window, margin: float) -> Window:
    """Return the pixels of `source` that lie under a window of `target`, and a margin.

    The window is empty where the two are apart.

    Raises:
        SceneError: they cannot be brought together.
    """
    xs, ys = project(target.crs, source.crs, *sample_points(target, window))
    known = np.isfinite(xs) & np.isfinite(ys)
    if not known.any():
        return Window(0, 0, 0, 0)
    inverse = ~source.transform
    cols = inverse.a * xs[known] + inverse.b * ys[known] + inverse.c
    rows = inverse.d * xs[known] + inverse.e * ys[known] + inverse.f
    height, width = source.shape
    top, left = (int(np.clip(np.floor(v.min() - margin), -1, 2**40)) for v in (rows, cols))
    bottom = int(np.clip(np.ceil(rows.max() + margin), -1, height))
    right = int(np.clip(np.ceil(cols.max() + margin), -1, width))
    return Window(top, left, max(bottom - top, 0), max(right - left, 0)).clip(height, width)


def shared_window(source: Grid, target: Grid) -> Window | None:
    """Return the pixels of `source` that lie under `target`; None if the two do not overlap.

    Raises:
        SceneError: they cannot be brought together.
    """
    window = window_on(source, target, Window(0, 0, *target.shape), 0.0)
    return None if 0 in window.shape else window


def pixels_under(source: Grid, target: Grid) -> float:
    """Return how many pixels of `source` lie under one of `target`, at the middle of it.

    1.0 where the middle has no place in the CRS of `source`.

    Raises:
        SceneError: they cannot be brought together.
    """
    row, col = target.height // 2, target.width // 2
    xs, ys = project(target.crs, source.crs, *sample_points(target, Window(row, col, 1, 1)))
    inverse = ~source.transform
    cols, rows = inverse.a * xs + inverse.b * ys, inverse.d * xs + inverse.e * ys
    across = (cols[0, -1] - cols[0, 0], rows[0, -1] - rows[0, 0])
    down = (cols[-1, 0] - cols[0, 0], rows[-1, 0] - rows[0, 0])
    area = abs(across[0] * down[1] - across[1] * down[0])
    return float(area) if math.isfinite(area) and area > 0 else 1.0


def regrid(grid: Grid, crs: CRS | None, res: tuple[float, float] | None, scene: str) -> Grid:
    """Return the grid of a scene in another CRS or with another pixel size, north up.

    Args:
        grid: the scene's own.
        crs: the CRS wanted; None keeps it.
        res: pixel size wanted in units of that CRS; None keeps it as far as that is possible,
            rounded to three figures so that neighbouring scenes agree.
        scene: what to call it in an error.

    Raises:
        OptionError: the scene has no CRS to start from, or the grid would be absurd.
        SceneError: it has no place in the CRS.
    """
    if grid.crs is None and crs is not None:
        raise OptionError(
            f"--crs: {scene} has no CRS to start from; give it its own with gdal_edit.py -a_srs"
        )
    target = grid.crs if crs is None else crs
    if target == grid.crs and res is None:
        return grid
    whole = Window(0, 0, *grid.shape)
    try:
        xs, ys = project(grid.crs, target, *sample_points(grid, whole))
    except SceneError as error:
        raise SceneError(f"{scene}: it cannot be put into the CRS of --crs: {error}") from error
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise SceneError(f"{scene}: parts of it have no place in the CRS of --crs")
    if target is not None and target.is_geographic and float(np.ptp(xs)) > 180.0:
        # A scene on the 180th meridian goes on beyond it, not around the globe.
        beyond = np.where(xs < 0.0, xs + 360.0, xs)
        xs = beyond if np.ptp(beyond) < 180.0 else xs
    across, down = res or (_own_size(grid, target),) * 2
    if across > float(np.ptp(xs)) or down > float(np.ptp(ys)):
        raise OptionError(
            f"--res {across:g},{down:g}: larger than all of {scene}, {np.ptp(xs):.4g} x"
            f" {np.ptp(ys):.4g} in units of its CRS; the size counts in those"
        )
    # A hair of tolerance, or rounding adds an empty row to a grid that is there already.
    west, north = math.floor(xs.min() / across + 1e-6), math.ceil(ys.max() / down - 1e-6)
    width = max(math.ceil(xs.max() / across - 1e-6) - west, 1)
    height = max(north - math.floor(ys.min() / down + 1e-6), 1)
    if height * width > _MOST_PIXELS:
        raise OptionError(
            f"--res {across:g},{down:g}: makes {height} x {width} px of {scene}; the size counts in"
            " units of the CRS"
        )
    return Grid(target, Affine(across, 0.0, west * across, 0.0, -down, north * down), height, width)


def _own_size(grid: Grid, target: CRS | None) -> float:
    """Return the pixel size of a grid in another CRS, at its centre."""
    middle = Window(grid.height // 2, grid.width // 2, 1, 1)
    xs, ys = project(grid.crs, target, *sample_points(grid, middle))
    across = math.hypot(xs[0, -1] - xs[0, 0], ys[0, -1] - ys[0, 0])
    down = math.hypot(xs[-1, 0] - xs[0, 0], ys[-1, 0] - ys[0, 0])
    return float(f"{math.sqrt(across * down):.3g}")


def joint_grid(first: Grid, second: Grid, names: tuple[str, str]) -> Grid:
    """Return the part of the first grid that lies over the second.

    Raises:
        SceneError: they do not overlap, or cannot be compared.
    """
    try:
        shared = shared_window(first, second)
    except SceneError as error:
        raise SceneError(f"{names[0]} and {names[1]} cannot be paired: {error}") from error
    if shared is None:
        raise SceneError(f"{names[0]} and {names[1]} cannot be paired: they do not overlap")
    return first.window(shared)


def turned(grid: Grid, degrees: float) -> Grid:
    """Return a grid with the same pixels turned clockwise about the middle, large enough for all.

    The turn is one of pixels: on pixels that are not square it is not one of the ground.
    """
    turn = Affine.rotation(degrees)
    half = grid.width / 2, grid.height / 2
    corners = [(sx * half[0], sy * half[1]) for sx in (-1, 1) for sy in (-1, 1)]
    back = [(~turn) * corner for corner in corners]
    # A hair of tolerance, or a quarter turn gets an empty row.
    width = math.ceil(2 * max(x for x, _ in back) - 1e-6)
    height = math.ceil(2 * max(y for _, y in back) - 1e-6)
    transform = (
        grid.transform
        * Affine.translation(*half)
        * turn
        * Affine.translation(-width / 2, -height / 2)
    )
    return Grid(grid.crs, transform, height, width)
