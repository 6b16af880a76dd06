"""Scenes whose longitudes are counted from elsewhere, or that go around the globe or a pole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geocyclegan.raster.align import AlignedScene, shift_between
from geocyclegan.raster.globe import columns_per_turn, project, spread
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.target import joint_grid, regrid, shared_window
from geocyclegan.raster.windows import Window

MakeRaster = Callable[..., Path]
WEB = CRS.from_epsg(3857)
WGS84, NAD83 = CRS.from_epsg(4326), CRS.from_epsg(4269)


def degrees(west: float, width: float, res: float = 1.0, *, crs: CRS = WGS84) -> Grid:
    """A grid from 80 degrees south to 80 degrees north."""
    return Grid(crs, Affine(res, 0, west, 0, -res, 80), round(160 / res), round(width / res))


def box(west: float, north: float, side: float, res: float = 0.25, crs: CRS = WGS84) -> Grid:
    pixels = round(side / res)
    return Grid(crs, Affine(res, 0, west, 0, -res, north), pixels, pixels)


def metres(epsg: int, x: float, y: float, side: int = 64, res: float = 20_000.0) -> Grid:
    return Grid(CRS.from_epsg(epsg), Affine(res, 0, x, 0, -res, y), side, side)


def places(grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rows, cols = np.mgrid[: grid.height, : grid.width] + 0.5
    t = grid.transform
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    if grid.crs is not None and not grid.crs.is_geographic:
        x, y = transform_points(grid.crs, WGS84, x.ravel(), y.ravel())
        x, y = np.asarray(x).reshape(grid.shape), np.asarray(y).reshape(grid.shape)
    return (np.asarray(x) + 180) % 360 - 180, np.asarray(y)


def field(grid: Grid) -> npt.NDArray[np.float64]:
    """Something smooth over the globe."""
    lon, lat = (np.radians(v) for v in places(grid))
    return np.asarray(100 * np.cos(lat) * np.sin(lon + 0.4) + 50 * np.sin(lat))


def seen(make_raster: MakeRaster, source: Grid, target: Grid) -> npt.NDArray[np.bool_]:
    """Look at a scene on another grid; return where, having checked what."""
    pixels = field(source)[np.newaxis].astype(np.float32)
    path = make_raster("a.tif", pixels, crs=source.crs, transform=source.transform)
    with AlignedScene(Scene(path), target) as scene:
        got, valid = scene.read(Window(0, 0, *target.shape))
    assert np.abs(got[0] - field(target))[valid].max(initial=0.0) < 0.9
    return valid


SOURCES = {
    "from 0 to 360": degrees(0, 360),
    "from -180 to 180": degrees(-180, 360),
    "its first column twice": degrees(-0.5, 361),
    "no whole number of columns": degrees(-180, 360.5, 0.7),
    "other datum": degrees(0, 360, crs=NAD83),
}
TARGETS = {
    "Greenwich": box(-10, 20, 20),
    "Greenwich, from 350": box(350, 20, 20),
    "Fiji": box(170, 0, 20),
    "Fiji, from -190": box(-190, 0, 20),
    "America, from 250": box(250, 40, 20, 1.0),
    "the other way round": degrees(-180, 360, 2.0),
    "from Greenwich": degrees(0, 360, 2.0),
    "UTM at the 180th meridian": metres(32760, 3e5, 8.2e6, 48),
    "Web Mercator at its edge": metres(3857, 1.95e7, 1e6, 54),
    "North Pole nearby": metres(3413, -4e6, 1e6, 60),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_global_scene_has_every_place(make_raster: MakeRaster, source: str, target: str) -> None:
    valid = seen(make_raster, SOURCES[source], TARGETS[target])
    # PROJ may give a few places around the 180th meridian no place on another datum.
    assert valid.mean() > (0.999 if source == "other datum" else 0.99999)


@pytest.mark.parametrize("row", [30, 32, 31.4])
@pytest.mark.parametrize("west", [0.0, -180.0, 33.25])
def test_the_ground_around_a_pole(make_raster: MakeRaster, west: float, row: float) -> None:
    source = Grid(WGS84, Affine(0.5, 0, west, 0, -0.5, 90), 80, 720)
    target = metres(3413, -row * 20_000.0, 32 * 20_000.0)
    assert seen(make_raster, source, target).all()
    # And back: all longitudes, up to the pole.
    back = Grid(WGS84, Affine(1.0, 0, west, 0, -1.0, 90), 5, 360)
    assert seen(make_raster, target, back).all()
    assert seen(make_raster, target, regrid(target, WGS84, (0.5, 0.5), "a")).any(axis=0).all()


def test_regions_are_found_from_any_meridian(make_raster: MakeRaster) -> None:
    for source, target, share in (
        (box(-20, 10, 10), degrees(0, 360), 100),
        (box(-20, 10, 10, 0.3), degrees(0, 360), 100),
        (box(170, 10, 20), degrees(-180, 360), 400),
        (box(170, 10, 20, 0.3), degrees(-180, 360), 400),
        (box(170, 10, 20), degrees(-180, 360, 2.0), 100),
        (box(-190, 10, 20, 0.3), box(179, 5, 20, 1.0), 165),
        (box(175, 10, 10), degrees(-180, 360, crs=NAD83), 100),
        (box(175, 10, 10), metres(3857, -2.0037508e7, 1e6, 20), 400),
    ):
        assert seen(make_raster, source, target).sum() == pytest.approx(share, rel=0.08)


def test_what_is_apart_stays_apart(make_raster: MakeRaster) -> None:
    europe, fiji = box(0, 50, 20), box(175, -10, 10)
    for target in (fiji, box(-185, -10, 10), metres(32760, 3e5, 8.2e6, 20)):
        assert shared_window(europe, target) is None
        assert not seen(make_raster, europe, target).any()
    assert shared_window(box(-170, 50, 340, 0.3), box(171, 50, 18)) is None
    arctic, antarctic = metres(3413, -6e5, 6e5, 60), metres(3031, -6e5, 6e5, 60)
    assert shared_window(arctic, antarctic) is None
    assert shared_window(antarctic, arctic) is None
    assert shared_window(arctic, metres(3413, -6e5, 5e5, 60)) is not None


def test_the_size_of_pixels_on_a_seam() -> None:
    for west in (0.0, -180.0):
        grid = regrid(Grid(WGS84, Affine(1, 0, west, 0, -1, 80), 160, 360), WEB, None, "a")
        assert grid.pixel_size[0] == pytest.approx(111_000, rel=0.02)
        assert grid.width == pytest.approx(361, abs=3)


def test_lattices_agree_after_a_turn() -> None:
    assert shift_between(degrees(0, 360), box(-10, 20, 5, 1.0)) == (60, -10)
    odd = box(-20, 10, 9, 0.3)
    moved = Grid(WGS84, odd.transform, 3, 3).window(Window(2, 3, 4, 5))
    beyond = Grid(WGS84, Affine.translation(360, 0) @ moved.transform, 4, 5)
    assert columns_per_turn(odd) == 1200
    uneven = box(-20, 10, 9.1, 0.7)
    assert columns_per_turn(uneven) is None
    assert shift_between(odd, beyond) == (2, 3 + 1200)
    inner = uneven.window(Window(2, 3, 4, 5))
    turned = Grid(WGS84, Affine.translation(360, 0) @ inner.transform, 4, 5)
    assert shift_between(uneven, turned) == (2, 3)


def test_joint_grids() -> None:
    globe, names = degrees(0, 360), ("a", "b")
    joint = joint_grid(globe, box(-10, 20, 20), names)
    assert joint.footprint().bounds == (350, 0, 370, 20)
    assert joint_grid(globe, degrees(-180, 360), names) == globe
    assert joint_grid(box(-10, 20, 20), globe, names) == box(-10, 20, 20)
    assert joint_grid(box(350, 20, 20), box(-10, 20, 5), names).footprint().bounds == (
        *(350, 15, 355, 20),
    )


def test_one_point_without_a_place_does_not_spoil_the_others() -> None:
    disk = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y")
    x, y = project(disk, WGS84, np.array([0.0, -5.5e6]), np.array([0.0, 5.5e6]))
    assert (x[0], y[0]) == pytest.approx((0.0, 0.0))
    assert not np.isfinite([x[1], y[1]]).any()
    grid = Grid(disk, Affine(1e5, 0, -5.5e6, 0, -1e5, 5.5e6), 110, 110)
    xs, _, is_full = spread(grid, Window(0, 0, 110, 110), WGS84)
    assert not is_full
    assert 60 < xs.max() < 81


def test_a_full_disk_seen_from_space(make_raster: MakeRaster) -> None:
    disk = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84")
    grid = Grid(disk, Affine(5e4, 0, -5.5e6, 0, -5e4, 5.5e6), 220, 220)
    rows, cols = np.mgrid[:220, :220] + 0.5
    x, _ = project(disk, WGS84, cols * 5e4 - 5.5e6, 5.5e6 - rows * 5e4)
    seen_from_there = np.isfinite(x)
    pixels = np.where(seen_from_there, x + 200, np.nan)[np.newaxis].astype(np.float32)
    path = make_raster("disk.tif", pixels, crs=disk, transform=grid.transform, nodata=np.nan)
    target = box(-30, 30, 60, 1.0)
    with AlignedScene(Scene(path), target) as scene:
        got, valid = scene.read(Window(0, 0, *target.shape))
    assert valid.all()
    assert np.abs(got[0] - 200 - places(target)[0]).max() < 0.1
    far = box(100, 30, 60, 1.0)
    assert shared_window(grid, far) is None
    wide = box(-90, 80, 160, 1.0)
    with AlignedScene(Scene(path), wide) as scene:
        valid = scene.read(Window(0, 0, *wide.shape))[1]
    assert 0.4 < valid.mean() < 0.9
