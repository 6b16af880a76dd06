"""Points from one CRS into another, on a globe: longitudes go round, and a pole has all of them.

Files count longitudes from -180 to 180, from 0 to 360, or beyond either where a scene crosses the
180th meridian. PROJ answers between -180 and 180. Points that are looked at together are counted on
here without a jump, so that their least and largest longitude say where they lie.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geocyclegan.errors import SceneError
from geocyclegan.raster.gdal_errors import GDAL_ERRORS
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

FULL_TURN = 360.0

Points = npt.NDArray[np.float64]

# Points along each side of a window that stand for it in another CRS, where straight lines bend;
# more where it is so wide that parallels become arcs.
_POINTS = 21
_DEGREES_APART = 2.0
# Points around the whole globe leave no gap in longitude that is wider than this.
_WIDEST_GAP = 40.0
# Of a pixel: how far columns may be off after a turn around the globe, to be the same ones; and a
# pole, seen along two meridians, to be one place.
_SAME_COLUMN = 0.01
_ONE_PLACE = 0.5


def is_geographic(crs: CRS | None) -> bool:
    """Say whether map coordinates are longitudes and latitudes."""
    return crs is not None and bool(crs.is_geographic)


@lru_cache(maxsize=64)
def no_map(crs: CRS) -> str | None:
    """Say what a CRS is whose coordinates are no places on a map, such as heights, else None.

    GDAL transforms to and from them without an error, and gives numbers that mean nothing.
    """
    if crs.is_projected or crs.is_geographic:
        return None
    kind = ProjCRS.from_wkt(crs.to_wkt()).type_name
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind[0].lower()}{kind[1:]}"


def project(
    source: CRS | None, target: CRS | None, xs: Points, ys: Points
) -> tuple[Points, Points]:
    """Transform points from one CRS to another; what has no place there becomes infinite.

    Args:
        source: CRS of the points.
        target: CRS wanted.
        xs: eastings or longitudes, any shape, in units of `source`.
        ys: northings or latitudes of the same shape.

    Returns:
        x and y in units of `target`, each of the shape of `xs`.

    Raises:
        SceneError: one CRS is missing or no map, or there is no way between them.
    """
    if source == target:
        return xs, ys
    if source is None or target is None:
        raise SceneError("one raster has a CRS, the other has none, so neither places the other")
    for crs in (source, target):
        kind = no_map(crs)
        if kind is not None:
            raise SceneError(f"a CRS is {kind}; expected a projected or geographic one")
    try:
        x, y = transform_points(source, target, xs.ravel(), ys.ravel())
    except GDAL_ERRORS:
        # GDAL gives up all points for one that has no place, of a whole disk seen from space, say.
        try:
            x, y = _by_proj(source.to_wkt(), target.to_wkt()).transform(xs.ravel(), ys.ravel())
        except ProjError as error:
            raise SceneError(f"there is no way from one CRS to the other ({error})") from error
    return np.asarray(x).reshape(xs.shape), np.asarray(y).reshape(ys.shape)


@lru_cache(maxsize=16)
def _by_proj(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def sample_points(grid: Grid, window: Window) -> tuple[Points, Points]:
    """Return map coordinates of points spread over a window of a grid, its outline included.

    Returns:
        x and y in map units, each `(rows, columns)` of points: 21 rows and as many columns, or
        more where the window is wide in degrees.
    """
    across = _POINTS
    if is_geographic(grid.crs):
        degrees = window.width * grid.pixel_size[0]
        across = max(across, math.ceil(min(degrees, FULL_TURN) / _DEGREES_APART) + 1)
    rows = np.linspace(window.row, window.row_stop, _POINTS)[:, np.newaxis]
    cols = np.linspace(window.col, window.col_stop, across)[np.newaxis, :]
    t = grid.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def spread(grid: Grid, window: Window, crs: CRS | None) -> tuple[Points, Points, bool]:
    """Return points spread over a window in another CRS, whose hull is that of the window.

    Args:
        grid: where the window lies.
        window: the window, its outline included.
        crs: what the points are wanted in.

    Returns:
        x and y `(n,)` of the points that have a place there, longitudes counted on without a jump;
        and whether they go all around the globe, which then is from -180 to 180 degrees.

    Raises:
        SceneError: one CRS is missing, or there is no way between them.
    """
    here_x, here_y = sample_points(grid, window)
    xs, ys = project(grid.crs, crs, here_x, here_y)
    known = np.isfinite(xs) & np.isfinite(ys)
    here_x, xs, ys = here_x[known], xs[known], ys[known]
    if not is_geographic(crs) or not xs.size:
        return xs, ys, False
    if is_geographic(grid.crs):
        return xs + FULL_TURN * np.round((here_x - xs) / FULL_TURN), ys, False
    poles = [pole for pole in (-90.0, 90.0) if _holds_pole(grid, window, crs, pole)]
    angles = xs % FULL_TURN
    order = np.sort(angles)
    gaps = np.diff(order, append=order[0] + FULL_TURN)
    widest = int(gaps.argmax())
    if poles or gaps[widest] < _WIDEST_GAP:
        south, north = min(ys.min(), *poles, 90.0), max(ys.max(), *poles, -90.0)
        return (
            np.array([-180.0, 180.0, 180.0, -180.0]),
            np.array([south, south, north, north]),
            True,
        )
    first = order[(widest + 1) % len(order)]
    return _nearest(first + (angles - first) % FULL_TURN), ys, False


def _nearest(longitudes: Points) -> Points:
    """Count from another turn, so that the middle is from -180 to 180 degrees."""
    middle = (longitudes.min() + longitudes.max()) / 2
    return np.asarray(longitudes - FULL_TURN * math.floor((middle + 180.0) / FULL_TURN))


def _holds_pole(grid: Grid, window: Window, crs: CRS | None, latitude: float) -> bool:
    """Say whether a pole lies in a window, or so near that the points around it may miss it."""
    try:
        found = pole_pixel(grid, crs, latitude)
    except SceneError:
        return False
    if found is None:
        return False
    row, col = found
    near_row, near_col = (max(side / (_POINTS - 1), 1.0) for side in window.shape)
    return (
        window.row - near_row <= row <= window.row_stop + near_row
        and window.col - near_col <= col <= window.col_stop + near_col
    )


def pole_pixel(grid: Grid, crs: CRS | None, latitude: float) -> tuple[float, float] | None:
    """Return row and column of a pole in pixels of a grid; None where it has no place.

    Args:
        grid: the grid.
        crs: the geographic CRS whose pole it is.
        latitude: -90 or 90.

    Raises:
        SceneError: one CRS is missing, or there is no way between them.
    """
    x, y = project(crs, grid.crs, np.array([0.0, 90.0]), np.array([latitude, latitude]))
    # Where a pole is drawn as a line, it is at no one pixel.
    if not np.isfinite([*x, *y]).all():
        return None
    t = ~grid.transform
    cols, rows = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    if max(np.ptp(cols), np.ptp(rows)) > _ONE_PLACE:
        return None
    return float(rows[0]), float(cols[0])


def columns_per_turn(grid: Grid) -> int | None:
    """Return how many columns are once around the globe; None where that is no whole number."""
    t = grid.transform
    if not is_geographic(grid.crs) or t.b or t.d or not t.a:
        return None
    columns = FULL_TURN / abs(t.a)
    return round(columns) if abs(columns - round(columns)) < _SAME_COLUMN else None


def turned_by(grid: Grid, turns: int) -> Grid:
    """Return a geographic grid with its longitudes counted from another turn."""
    t = grid.transform
    moved = type(t)(t.a, t.b, t.c + FULL_TURN * turns, t.d, t.e, t.f)
    return Grid(grid.crs, moved, grid.height, grid.width)


def near_greenwich(grid: Grid) -> Grid:
    """Count the longitudes of a geographic grid so that its middle is from -180 to 180 degrees."""
    if not is_geographic(grid.crs):
        return grid
    middle = grid.xy(grid.height / 2, grid.width / 2)[0]
    # A hair of tolerance, or rounding sends one of two grids of one place around the globe.
    return turned_by(grid, -math.floor((middle + 180.0) / FULL_TURN + 1e-9))
