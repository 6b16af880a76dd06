from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geocyclegan.raster.footprint import bounds_on_globe, footprints
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

WGS84 = CRS.from_epsg(4326)
ARCTIC, ANTARCTIC = CRS.from_epsg(3413), CRS.from_epsg(3031)


def outline(grid: Grid, window: Window | None = None) -> shapely.Geometry:
    (found,) = footprints(grid, [window or Window(0, 0, *grid.shape)])
    assert found is not None
    assert found.is_valid
    west, south, east, north = found.bounds
    assert -180.0 <= west < east <= 180.0
    assert -90.0 <= south < north <= 90.0
    assert all(part.exterior.is_ccw for part in shapely.get_parts(found))
    return found


def polar(crs: CRS, row: float, col: float, size: float = 5000.0, side: int = 256) -> Grid:
    """A grid with the pole at this pixel."""
    return Grid(crs, Affine(size, 0.0, -col * size, 0.0, -size, row * size), side, side)


def assert_contains_its_pixels(grid: Grid, window: Window, found: shapely.Geometry) -> None:
    """Points a little inside of the window are in the outline, points beyond it are not."""
    random = np.random.default_rng(0)
    rows = window.row + random.uniform(-0.3, 1.3, 500) * window.height
    cols = window.col + random.uniform(-0.3, 1.3, 500) * window.width
    beyond = np.maximum(
        np.maximum(window.row - rows, rows - window.row_stop) / window.height,
        np.maximum(window.col - cols, cols - window.col_stop) / window.width,
    )
    t = grid.transform
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    lon, lat = transform_points(grid.crs, WGS84, x, y)
    lon = (np.asarray(lon) + 180.0) % 360.0 - 180.0
    inside = shapely.contains_xy(found, lon, lat)
    assert inside[beyond < -0.01].all()
    assert not inside[beyond > 0.01].any()


def test_upright_windows_have_four_corners() -> None:
    grid = Grid(CRS.from_epsg(32630), Affine(10, 0, 5e5, 0, -10, 4.2e6), 100, 100)
    assert len(outline(grid).exterior.coords) == 5
    degrees = Grid(WGS84, Affine(0.1, 0, 10, 0, -0.1, 50), 100, 100)
    assert outline(degrees).equals(shapely.box(10, 40, 20, 50))


@pytest.mark.parametrize("crs", [ARCTIC, ANTARCTIC])
@pytest.mark.parametrize(
    ("row", "col"), [(128, 128), (0.3, 128.0), (128, 255.9), (1, 1), (77.7, 203.1), (3.5, 0.02)]
)
def test_a_window_around_a_pole_has_all_longitudes(crs: CRS, row: float, col: float) -> None:
    grid = polar(crs, row, col)
    found = outline(grid)
    pole = 90.0 if crs == ARCTIC else -90.0
    assert (found.bounds[0], found.bounds[2]) == (-180.0, 180.0)
    assert pole in (found.bounds[1], found.bounds[3])
    assert_contains_its_pixels(grid, Window(0, 0, 256, 256), found)


@pytest.mark.parametrize("crs", [ARCTIC, ANTARCTIC])
def test_windows_that_meet_at_a_pole_share_all_longitudes(crs: CRS) -> None:
    grid = polar(crs, 256, 256, 2000.0, 512)
    windows = [Window(r, c, 256, 256) for r in (0, 256) for c in (0, 256)]
    corners = footprints(grid, windows)
    whole = outline(grid)
    assert shapely.union_all(corners).symmetric_difference(whole).area < 1e-3 * whole.area
    for window, corner in zip(windows, corners, strict=True):
        assert corner is not None
        assert corner.is_valid
        assert corner.area == pytest.approx(whole.area / 4, rel=1e-3)
        assert_contains_its_pixels(grid, window, corner)
    halves = [Window(0, 100, 256, 256), Window(256, 100, 256, 256)]
    for window, half in zip(halves, footprints(grid, halves), strict=True):
        assert half is not None
        assert half.is_valid
        assert abs(half.bounds[1 if crs == ANTARCTIC else 3]) == 90.0
        assert_contains_its_pixels(grid, window, half)


@given(
    st.floats(-600, 800),
    st.floats(-600, 800),
    st.sampled_from([100.0, 4000.0, 9000.0]),
    st.sampled_from([ARCTIC, ANTARCTIC]),
)
def test_windows_near_a_pole(row: float, col: float, size: float, crs: CRS) -> None:
    grid = polar(crs, row, col, size)
    assert_contains_its_pixels(grid, Window(0, 0, 256, 256), outline(grid))


@pytest.mark.parametrize("west", [179.0, -181.0, 539.0])
def test_a_window_across_the_180th_meridian_is_cut(west: float) -> None:
    found = outline(Grid(WGS84, Affine(0.02, 0, west, 0, -0.02, -16), 100, 100))
    expected = [shapely.box(179, -18, 180, -16), shapely.box(-180, -18, -179, -16)]
    assert found.equals(shapely.MultiPolygon(expected))


def test_a_utm_window_across_the_180th_meridian_is_cut() -> None:
    grid = Grid(CRS.from_epsg(32760), Affine(500, 0, 800_000, 0, -500, 8.17e6), 100, 100)
    found = outline(grid)
    assert found.geom_type == "MultiPolygon"
    assert_contains_its_pixels(grid, Window(0, 0, 100, 100), found)


@pytest.mark.parametrize("west", [0.0, -180.0, -30.25])
def test_the_whole_globe(west: float) -> None:
    # Rows centred on the poles, as those of weather models are.
    grid = Grid(CRS.from_epsg(4258), Affine(0.5, 0, west, 0, -0.5, 90.25), 361, 720)
    assert outline(grid).equals(shapely.box(-180, -90, 180, 90))
    mercator = 20_037_508.342789244
    web = Grid(
        CRS.from_epsg(3857),
        Affine(mercator / 128, 0, -mercator, 0, -mercator / 128, mercator),
        256,
        256,
    )
    assert outline(web).area == pytest.approx(360 * 2 * 85.05113, rel=1e-4)


def test_bounds() -> None:
    def bounds(grid: Grid) -> list[float]:
        found = bounds_on_globe(grid)
        assert found is not None
        return [round(number, 6) for number in found]

    assert bounds(Grid(WGS84, Affine(0.1, 0, 350, 0, -0.1, 5), 100, 50)) == [-10, -5, -5, 5]
    fiji = Grid(WGS84, Affine(0.02, 0, 179, 0, -0.02, -16), 100, 100)
    assert bounds(fiji) == [179, -18, -179, -16]
    assert bounds(polar(ARCTIC, 100, 100))[::2] == [-180, 180]
    assert bounds(polar(ARCTIC, 100, 100))[3] == 90


def test_longitudes_from_0_to_360() -> None:
    found = outline(Grid(WGS84, Affine(0.1, 0, 350, 0, -0.1, 5), 100, 50))
    assert found.equals(shapely.box(-10, -5, -5, 5))


def test_no_place_is_none() -> None:
    space = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y")
    grid = Grid(space, Affine(3000, 0, -5.57e6, 0, -3000, 5.57e6), 3712, 3712)
    windows = [Window(0, 0, 100, 100), Window(1800, 1800, 100, 100)]
    found = footprints(grid, windows)
    assert found[0] is None
    assert found[1] is not None
    assert math.isclose(found[1].centroid.x, 0, abs_tol=2)
