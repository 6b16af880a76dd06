"""Outlines of windows in longitude and latitude, as GeoJSON wants them (RFC 7946, section 3.1.9).

Straight edges on a grid are curves on the globe, so points are added until the chords stray no
more than a small share of a side. An outline that crosses the 180th meridian is cut in two, and one
around a pole, or with a pole on its edge, reaches to it with all its longitudes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.polygon import orient

from geocyclegan.raster.globe import FULL_TURN, Points, is_geographic, pole_pixel, project
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.projdata import wgs84
from geocyclegan.raster.windows import Window

_STRAY = 1 / 500  # of a side
_MOST_POINTS = 64  # along a side
_SAME_DEGREE = 1e-9
_ON_EDGE = 1e-3  # px: a pole this near to an edge lies on it
_SQUARE = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float64)  # rows and columns of corners


def footprints(grid: Grid, windows: Sequence[Window]) -> list[Any | None]:
    """Return the outline of each window in WGS 84; None where it has no place on the globe.

    Args:
        grid: what the windows lie in.
        windows: the windows.

    Returns:
        A polygon or multipolygon for each, longitudes from -180 to 180 degrees.

    Raises:
        SceneError: the grid has no CRS, or there is no way from it to WGS 84.
    """
    if not windows:
        return []
    poles = {}
    for pole in (-90.0, 90.0):
        place = pole_pixel(grid, wgs84(), pole)
        if place is not None and not is_geographic(grid.crs):
            poles[pole] = place
    outlines: list[Any | None] = []
    for ring, window in zip(_rings(grid, windows), windows, strict=True):
        outlines.append(None if ring is None else _polygon(grid, window, ring, poles))
    return outlines


def bounds_on_globe(grid: Grid) -> tuple[float, float, float, float] | None:
    """Return west, south, east and north of a grid in WGS 84; None where it has no place.

    West is greater than east where it crosses the 180th meridian (RFC 7946, section 5.2).

    Raises:
        SceneError: see `footprints`.
    """
    (outline,) = footprints(grid, [Window(0, 0, *grid.shape)])
    if outline is None:
        return None
    west, south, east, north = (float(number) for number in outline.bounds)
    sides = [part.bounds[::2] for part in shapely.get_parts(outline)]
    if (west, east) == (-180.0, 180.0) and (-180.0, 180.0) not in sides:
        west = min(side[0] for side in sides if side[1] == east)
        east = max(side[1] for side in sides if side[0] == -180.0)
    return west, south, east, north


@dataclass(frozen=True, eq=False)
class _Ring:
    """The outline of a window: rows and columns `(n, 2)`, longitudes and latitudes `(n,)`."""

    pixels: npt.NDArray[np.float64]
    x: Points
    y: Points

    def unrolled(self, grid: Grid) -> tuple[Points, Points]:
        """Return longitudes, counted on without a jump, and latitudes."""
        if is_geographic(grid.crs):
            return self.x, self.y
        steps = np.cumsum(_shortest(np.diff(self.x)))
        return np.concatenate([self.x[:1], self.x[0] + steps]), self.y


def _ring(grid: Grid, pixels: npt.NDArray[np.float64]) -> _Ring:
    return _Ring(pixels, *_to_globe(grid, pixels[:, 0], pixels[:, 1]))


def _rings(grid: Grid, windows: Sequence[Window]) -> list[_Ring | None]:
    """Return the outline of each window, fine enough for the globe; None where it has no place."""
    found: list[_Ring | None] = [None] * len(windows)
    corners = np.array([[w.row, w.col] for w in windows], np.float64)[:, np.newaxis]
    sides = np.array([w.shape for w in windows], np.float64)[:, np.newaxis]
    short = np.asarray if is_geographic(grid.crs) else _shortest
    left = np.arange(len(windows))
    points = 1
    while left.size:
        fine = corners[left] + _outline(2 * points) * sides[left]
        x, y = _to_globe(grid, fine[..., 0], fine[..., 1])
        known = (np.isfinite(x) & np.isfinite(y)).all(axis=1)
        ends = x[:, ::2], y[:, ::2]
        middles = x[:, 1::2], y[:, 1::2]
        with np.errstate(invalid="ignore"):
            across = short(np.roll(ends[0], -1, axis=1) - ends[0])
            down = np.roll(ends[1], -1, axis=1) - ends[1]
            squeeze = np.cos(np.radians(middles[1]))
            stray = np.hypot(
                short(middles[0] - ends[0] - across / 2) * squeeze,
                middles[1] - ends[1] - down / 2,
            )
            chord = np.hypot(across * squeeze, down)
        is_straight = (stray <= _STRAY * chord * points).all(axis=1) | (2 * points > _MOST_POINTS)
        for at in np.flatnonzero(is_straight & known):
            found[left[at]] = _Ring(fine[at, ::2], ends[0][at], ends[1][at])
        left = left[~is_straight & known]
        points *= 2
    return found


def _outline(points: int) -> npt.NDArray[np.float64]:
    """Return the outline of a unit square `(4 points, 2)`, its corners among them."""
    share = np.arange(points)[:, np.newaxis] / points
    following = np.roll(_SQUARE, -1, axis=0)
    return np.concatenate([a + (b - a) * share for a, b in zip(_SQUARE, following, strict=True)])


def _to_globe(grid: Grid, rows: Points, cols: Points) -> tuple[Points, Points]:
    t = grid.transform
    xs, ys = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    if not is_geographic(grid.crs):
        return project(grid.crs, wgs84(), xs, ys)
    # Rows of global grids may be centred on a pole, and reach beyond it by half a pixel.
    x, y = project(grid.crs, wgs84(), xs, np.clip(ys, -90.0, 90.0))
    return x + FULL_TURN * np.round((xs - x) / FULL_TURN), y


def _shortest(degrees: Points) -> Points:
    """Return differences of longitudes the short way round."""
    return np.asarray((degrees + FULL_TURN / 2) % FULL_TURN - FULL_TURN / 2)


def _polygon(
    grid: Grid,
    window: Window,
    ring: _Ring,
    poles: dict[float, tuple[float, float]],
) -> Any:
    """Return the polygon of an outline, cut at the 180th meridian."""
    for pole, place in poles.items():
        row, col = place
        inside = min(
            *(row - window.row, window.row_stop - row),
            *(col - window.col, window.col_stop - col),
        )
        if inside < -max(window.shape):
            continue
        ring = _ring(grid, _with_fans(ring.pixels, window, place))
        if inside > _ON_EDGE:
            return _cut(*_around_pole(*ring.unrolled(grid), pole))
        if inside >= -_ON_EDGE:
            x, y = _ring(grid, _from_place(ring.pixels, window, place)).unrolled(grid)
            ends = np.array([pole])
            return _cut(np.concatenate([x[:1], x, x[-1:]]), np.concatenate([ends, y, ends]))
    return _cut(*ring.unrolled(grid))


def _along(points: npt.NDArray[np.float64], window: Window) -> npt.NDArray[np.float64]:
    """Return how far points `(n, 2)` of an outline lie along it, from 0 to 4 sides."""
    rows = (points[:, 0] - window.row) / window.height
    cols = (points[:, 1] - window.col) / window.width
    side = np.stack([np.abs(rows), np.abs(cols - 1), np.abs(rows - 1), np.abs(cols)]).argmin(axis=0)
    return np.asarray(side + np.choose(side, [cols, rows, 1 - cols, 1 - rows])) % 4.0


def _with_fans(
    ring: npt.NDArray[np.float64], window: Window, place: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Add points to the sides, ten degrees apart as seen from a pole nearby."""
    tangents = np.tan(np.radians(np.arange(-80.0, 81.0, 10.0)))
    added = [ring]
    for axis in (0, 1):
        begin, length = (window.row, window.col)[1 - axis], window.shape[1 - axis]
        for edge in ((window.row, window.col)[axis], (window.row_stop, window.col_stop)[axis]):
            distance = abs(place[axis] - edge)
            at = place[1 - axis] + distance * tangents
            at = at[(at > begin + _ON_EDGE) & (at < begin + length - _ON_EDGE)]
            fan = np.empty((len(at) if distance > _ON_EDGE else 0, 2))
            fan[:, axis], fan[:, 1 - axis] = edge, at[: len(fan)]
            added.append(fan)
    points = np.concatenate(added)
    along, first = np.unique(np.round(_along(points, window), 9), return_index=True)
    return points[first[along < 4.0]]


def _from_place(
    ring: npt.NDArray[np.float64], window: Window, place: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return an outline that begins behind a place on it and ends before it."""
    here = _along(np.array([place]), window)[0]
    away = np.abs(ring - place).max(axis=1) > 2 * _ON_EDGE
    ring = ring[away]
    return ring[np.argsort((_along(ring, window) - here) % 4.0)]


def _around_pole(x: Points, y: Points, pole: float) -> tuple[Points, Points]:
    """Let an outline around a pole begin and end at the 180th meridian, and go back on the pole."""
    turn = FULL_TURN * np.sign(x[-1] + _shortest(x[0] - x[-1]) - x[0])
    if turn == 0.0:
        return x, y
    x, y = np.append(x, x[0] + turn), np.append(y, y[0])
    count = np.floor((x + FULL_TURN / 2) / FULL_TURN)
    at = int(np.flatnonzero(np.diff(count))[0])
    seam = FULL_TURN * max(count[at], count[at + 1]) - FULL_TURN / 2
    latitude = y[at] + (y[at + 1] - y[at]) * (seam - x[at]) / (x[at + 1] - x[at])
    x = np.concatenate(
        [[seam], x[at + 1 : -1], x[: at + 1] + turn, [seam + turn, seam + turn, seam]]
    )
    y = np.concatenate([[latitude], y[at + 1 : -1], y[: at + 1], [latitude, pole, pole]])
    return x - seam - turn / 2, y


def _cut(x: Points, y: Points) -> Any | None:
    """Return the polygon of a closed line whose longitudes are counted on; None for none."""
    half = FULL_TURN / 2
    meridian = FULL_TURN * np.round((x - half) / FULL_TURN) + half
    x = np.where(np.abs(x - meridian) < _SAME_DEGREE, meridian, x)
    outline = shapely.Polygon(np.stack([x, y], axis=1))
    if x.min() >= -half and x.max() <= half and np.abs(y).max() <= 90.0 and outline.is_valid:
        return orient(outline)
    outline = shapely.make_valid(outline)
    first = int(np.floor((x.min() + half) / FULL_TURN))
    last = int(np.ceil((x.max() - half) / FULL_TURN))
    parts = []
    for turn in range(first, last + 1):
        by = FULL_TURN * turn
        piece = shapely.intersection(outline, shapely.box(by - half, -90, by + half, 90))
        parts.append(shapely.transform(piece, lambda xy, by=by: xy - [by, 0.0]))
    whole = shapely.union_all(parts) if len(parts) > 1 else parts[0]
    areas = [part for part in shapely.get_parts(whole) if isinstance(part, shapely.Polygon)]
    areas = [orient(part) for part in areas if part.area > 0]
    if not areas:
        return None
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)
