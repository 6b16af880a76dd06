"""Grids: resolution on the ground, windows and footprints."""

from __future__ import annotations

import math
import time

import pytest
from affine import Affine
from rasterio.crs import CRS

from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

UTM = CRS.from_epsg(32630)


def test_gsd_in_projected_units() -> None:
    grid = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 4e6), 100, 100)
    assert grid.gsd == pytest.approx(10.0)


def test_gsd_of_a_rotated_grid_is_that_of_the_straight_one() -> None:
    c, s = 10 * math.cos(0.5), 10 * math.sin(0.5)
    grid = Grid(UTM, Affine(c, -s, 5e5, -s, -c, 4e6), 100, 100)
    assert grid.gsd == pytest.approx(10.0)


def test_gsd_in_degrees_is_near_ten_metres_in_spain() -> None:
    # 8.98315e-5 degrees are 10 m along a meridian; across, cos(38.1 degrees) of that.
    grid = Grid(CRS.from_epsg(4326), Affine(8.98315e-5, 0, -0.78, 0, -8.98315e-5, 38.12), 512, 320)
    assert grid.gsd == pytest.approx(10.0 * 0.787**0.5, rel=0.01)


def test_gsd_of_web_mercator_is_corrected_for_latitude() -> None:
    equator = Grid(CRS.from_epsg(3857), Affine(1, 0, 0, 0, -1, 50), 100, 100)
    north = Grid(CRS.from_epsg(3857), Affine(1, 0, 0, 0, -1, 8_399_738 + 50), 100, 100)
    assert equator.gsd == pytest.approx(1.0, rel=1e-3)
    assert north.gsd == pytest.approx(0.5, rel=0.01)  # 60 degrees north


def test_gsd_of_us_feet() -> None:
    grid = Grid(CRS.from_epsg(2263), Affine(1, 0, 0, 0, -1, 0), 10, 10)
    assert grid.gsd == pytest.approx(0.3048006, rel=1e-5)


def test_no_crs_has_no_gsd() -> None:
    grid = Grid(None, Affine.identity(), 10, 10)
    assert grid.gsd is None
    assert not grid.is_georeferenced


@pytest.mark.parametrize(
    "transform",
    [
        Affine(math.nan, 0, 0, 0, -10, 0),
        Affine(math.inf, 0, 0, 0, -1, 0),
        Affine(0, 0, 5e5, 0, 0, 4e6),
        Affine(10, 10, 5e5, 10, 10, 4e6),
        Affine(1, 0, 0, 1 / 3, 0, 0),
        Affine(1e300, 0, 0, 0, -1e300, 0),
        Affine(1e-300, 0, 0, 0, -1e-300, 0),
    ],
)
def test_transforms_that_place_nothing(transform: Affine) -> None:
    assert not Grid(None, transform, 64, 64).is_sound


def test_sound_transforms() -> None:
    for transform in (
        Affine.identity(),
        Affine(10, 0, 5e5, 0, 10, 4e6),
        Affine(-1e-7, 0, 179, 0, -1e-7, 60),
        Affine.rotation(33) @ Affine.scale(3e4, -1e4),
    ):
        assert Grid(None, transform, 64, 64).is_sound


def test_window_and_footprint() -> None:
    grid = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 4e6), 100, 80)
    part = grid.window(Window(10, 20, 5, 6))
    assert part.xy(0, 0) == (5e5 + 200, 4e6 - 100)
    assert part.shape == (5, 6)
    assert grid.footprint().area == pytest.approx(100 * 80 * 100.0)


def test_the_size_of_a_pixel_is_known_quickly_in_a_crs_without_a_name() -> None:
    # PROJ searches its database for such a CRS: half a second, where it was done for each chip.
    crs = CRS.from_string("+proj=laea +lat_0=12.3 +lon_0=45.6 +ellps=bessel +units=m")
    grid = Grid(crs, Affine(7.5, 0, 0, 0, -7.5, 0), 100, 100)
    started = time.process_time()
    sizes = {grid.window(Window(i, i, 8, 8)).gsd for i in range(200)}
    assert sizes == {7.5}
    assert time.process_time() - started < 5
