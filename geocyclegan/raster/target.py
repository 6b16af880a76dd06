"""Grids to put scenes on: another CRS or pixel size, or the ground that two scenes share.

Grids made from a pixel size have their corners at multiples of it, so that scenes which are put on
one each still share a lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.footprint import footprints
from geocyclegan.raster.globe import (
    FULL_TURN,
    Points,
    columns_per_turn,
    is_geographic,
    near_greenwich,
    no_map,
    project,
    sample_points,
    spread,
    turned_by,
)
from geocyclegan.raster.grid import METRES_PER_DEGREE, Grid
from geocyclegan.raster.projdata import check_proj_data
from geocyclegan.raster.windows import Window

_MOST_PIXELS = 1 << 40
_LEAP = 3.0
_BENT = 0.5  # px
_FAR = 1 << 40  # pixels: beyond any raster, and small enough to be added
_TURNS = (-2, -1, 0, 1, 2)


def parse_crs(text: str) -> CRS:
    """Read `--crs`: an EPSG code, a PROJ string or WKT.

    Raises:
        OptionError: it is none of these, or its coordinates are no places on a map.
        SceneError: PROJ lacks its data.
    """
    check_proj_data()
    try:
        # In an environment PROJ's own lines go to the log.
        with rasterio.Env():
            crs = CRS.from_user_input(int(text) if text.isdigit() else text)
            kind = no_map(crs)
    except (CRSError, ValueError) as error:
        raise OptionError(
            f"--crs {text}: not a coordinate reference system; expected something like EPSG:32630"
        ) from error
    if kind is not None:
        raise OptionError(f"--crs {text}: {kind}; expected a projected or geographic one")
    return crs


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


@dataclass(frozen=True)
class Piece:
    """Pixels of a scene that lie under a window of another grid.

    Attributes:
        window: in the scene; to the left and right of one that goes around the globe, it may reach
            beyond, which means its other end.
        grid: where they lie, with longitudes counted as those of the other grid are.
    """

    window: Window
    grid: Grid


def pieces_under(source: Grid, target: Grid, window: Window, margin: float) -> list[Piece]:
    """Return the pixels of `source` that lie under a window of `target`, and a margin.

    There is none where the two are apart, and more than one where longitudes of the scene begin and
    end within the window.

    Raises:
        SceneError: they cannot be brought together.
    """
    xs, ys, is_full = spread(target, window, source.crs)
    if not xs.size:
        return []
    if not is_geographic(source.crs):
        found = _hull(source, xs, ys, margin)
        found = found.clip(*source.shape)
        return [] if 0 in found.shape else [Piece(found, source.window(found))]
    is_same = source.crs == target.crs
    around = columns_per_turn(source)
    pieces = []
    if around is not None and source.width >= around:
        found = _hull(source, xs, ys, margin)
        rows = found.clip(source.height, source.width)
        found = Window(rows.row, found.col, rows.height, found.width)
        if found.height:
            pieces.append(Piece(found, source.window(found)))
    else:
        for turns in _TURNS:
            found = _hull(source, xs + FULL_TURN * turns, ys, margin).clip(*source.shape)
            if 0 not in found.shape:
                pieces.append(Piece(found, turned_by(source.window(found), -turns)))
    if is_same or is_full:
        return pieces
    # GDAL counts longitudes from -180 to 180, or on from there over the 180th meridian.
    return [Piece(piece.window, near_greenwich(piece.grid)) for piece in pieces]


def _hull(source: Grid, xs: Points, ys: Points, margin: float) -> Window:
    """Return the window around points, and a margin."""
    inverse = ~source.transform
    cols = inverse.a * xs + inverse.b * ys + inverse.c
    rows = inverse.d * xs + inverse.e * ys + inverse.f
    top, left = (int(np.clip(np.floor(v.min() - margin), -_FAR, _FAR)) for v in (rows, cols))
    bottom, right = (int(np.clip(np.ceil(v.max() + margin), -_FAR, _FAR)) for v in (rows, cols))
    return Window(top, left, bottom - top, right - left)


def shared_window(source: Grid, target: Grid) -> Window | None:
    """Return the pixels of `source` that lie under `target`; None if the two do not overlap.

    Of a source that goes around the globe, they may reach beyond its sides.

    Raises:
        SceneError: they cannot be brought together.
    """
    pieces = pieces_under(source, target, Window(0, 0, *target.shape), 0.0)
    if not pieces or _are_apart(source, target):
        return None
    windows = [piece.window for piece in pieces]
    top, left = min(w.row for w in windows), min(w.col for w in windows)
    bottom, right = max(w.row_stop for w in windows), max(w.col_stop for w in windows)
    around = columns_per_turn(source)
    if around is not None and source.width >= around:
        if right - left >= source.width:
            left, right = 0, source.width
        else:
            # Counted so that it begins within the source.
            left, right = left % around, left % around + right - left
    return Window(top, left, bottom - top, right - left)


def _are_apart(source: Grid, target: Grid) -> bool:
    """Say whether two grids are apart though the box around one, on the other, is not.

    So it is around the two poles, each of which lies all around the other's map.
    """
    if source.crs == target.crs or source.crs is None or target.crs is None:
        return False
    try:
        (ours,) = footprints(source, [Window(0, 0, *source.shape)])
        (theirs,) = footprints(target, [Window(0, 0, *target.shape)])
    except SceneError:
        return False
    return ours is not None and theirs is not None and not ours.intersects(theirs)


def pixels_under(source: Grid, target: Grid) -> float:
    """Return how many pixels of `source` lie under one of `target`, at the middle of it.

    1.0 where the middle has no place in the CRS of `source`.

    Raises:
        SceneError: they cannot be brought together.
    """
    row, col = target.height // 2, target.width // 2
    xs, ys = project(target.crs, source.crs, *sample_points(target, Window(row, col, 1, 1)))
    if is_geographic(source.crs):
        with np.errstate(invalid="ignore"):
            xs = xs[0, 0] + (xs - xs[0, 0] + FULL_TURN / 2) % FULL_TURN - FULL_TURN / 2
    inverse = ~source.transform
    cols, rows = inverse.a * xs + inverse.b * ys, inverse.d * xs + inverse.e * ys
    across = (cols[0, -1] - cols[0, 0], rows[0, -1] - rows[0, 0])
    down = (cols[-1, 0] - cols[0, 0], rows[-1, 0] - rows[0, 0])
    area = abs(across[0] * down[1] - across[1] * down[0])
    return float(area) if math.isfinite(area) and area > 0 else 1.0


def is_bent(source: Grid, target: Grid) -> bool:
    """Say whether rows of `target` are curves on `source`, by more than a pixel may stray."""
    if source.crs == target.crs:
        return False
    xs, ys = project(target.crs, source.crs, *sample_points(target, Window(0, 0, *target.shape)))
    inverse = ~source.transform
    found = []
    for along in (inverse.a * xs + inverse.b * ys, inverse.d * xs + inverse.e * ys):
        # A quarter of the way: half of it is straight where a row is bent there and back.
        step = (along.shape[1] - 1) // 4
        with np.errstate(invalid="ignore"):
            strays = np.abs(along[:, step] - (along[:, 0] + along[:, 2 * step]) / 2)
        found += [stray for stray in strays.ravel() if math.isfinite(stray)]
    return max(found, default=0.0) > _BENT


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
        xs, ys, is_full = spread(grid, whole, target)
    except SceneError as error:
        raise SceneError(f"{scene}: it cannot be put into the CRS of --crs: {error}") from error
    if not is_full and xs.size < sample_points(grid, whole)[0].size:
        raise SceneError(f"{scene}: parts of it have no place in the CRS of --crs")
    across, down = res or (_own_size(grid, target, is_full),) * 2
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


def _own_size(grid: Grid, target: CRS | None, is_full: bool) -> float:
    """Return the pixel size of a grid in another CRS, at its centre."""
    if is_full and grid.gsd is not None:
        # At a pole, a pixel may have all longitudes.
        return float(f"{grid.gsd / METRES_PER_DEGREE:.3g}")
    sizes = [_size_at(grid, target, share) for share in (0.5, 0.3, 0.7)]
    # Where the CRS has a seam, between 180 degrees east and west, a pixel may span all of it.
    size = sizes[0] if sizes[0] < _LEAP * min(sizes) else min(sizes)
    return float(f"{size:.3g}")


def _size_at(grid: Grid, target: CRS | None, share: float) -> float:
    """Return the pixel size of a grid in another CRS, at a share of its middle row."""
    pixel = Window(grid.height // 2, int(grid.width * share), 1, 1)
    xs, ys = project(grid.crs, target, *sample_points(grid, pixel))
    width = xs[0, -1] - xs[0, 0]
    if is_geographic(target):
        width = (width + FULL_TURN / 2) % FULL_TURN - FULL_TURN / 2
    across = math.hypot(width, ys[0, -1] - ys[0, 0])
    down = math.hypot(xs[-1, 0] - xs[0, 0], ys[-1, 0] - ys[0, 0])
    return math.sqrt(across * down)


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
