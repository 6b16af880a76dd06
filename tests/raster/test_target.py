from __future__ import annotations

from dataclasses import replace

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.align import shift_between
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.target import joint_grid, parse_crs, parse_res, regrid

UTM = CRS.from_epsg(32630)


def grid(x: float = 500_000.0, y: float = 4_200_000.0, size: float = 10.0, n: int = 100) -> Grid:
    return Grid(UTM, Affine(size, 0.0, x, 0.0, -size, y), n, n)


@given(st.floats(-5e3, 5e3), st.floats(-5e3, 5e3), st.floats(3.0, 40.0))
def test_new_sizes_share_a_lattice_and_cover_the_scene(x: float, y: float, size: float) -> None:
    first = regrid(grid(), None, (size, size), "a")
    scene = grid(5e5 + x, 4.2e6 + y)
    second = regrid(scene, None, (size, size), "b")
    assert shift_between(first, second) is not None
    assert second.footprint().buffer(1e-3 * size).contains(scene.footprint())
    assert second.height <= scene.height * 10.0 / size + 2


def test_what_is_there_already_is_kept() -> None:
    assert regrid(grid(), UTM, None, "a") is not None
    assert regrid(grid(), UTM, None, "a") == grid()
    assert regrid(grid(), None, (10.0, 10.0), "a") == grid()


def test_the_ground_that_two_scenes_share() -> None:
    joint = joint_grid(grid(), grid(500_705.0, 4_199_800.0, 7.0), ("a", "b"))
    assert joint.transform == Affine(10.0, 0.0, 500_700.0, 0.0, -10.0, 4_199_800.0)
    assert joint.shape == (70, 30)
    with pytest.raises(SceneError, match="a and b cannot be paired: they do not overlap"):
        joint_grid(grid(), grid(700_000.0), ("a", "b"))
    with pytest.raises(SceneError, match="has none"):
        joint_grid(grid(), Grid(None, Affine.identity(), 5, 5), ("a", "b"))


def test_options() -> None:
    assert parse_res("10") == (10.0, 10.0)
    assert parse_res("0.1,0.2") == (0.1, 0.2)
    assert parse_crs("4326") == parse_crs("EPSG:4326") == CRS.from_epsg(4326)
    for text in ("0", "a", "1,2,3", "nan", "-1"):
        with pytest.raises(OptionError, match="--res"):
            parse_res(text)
    with pytest.raises(OptionError, match="--crs nowhere"):
        parse_crs("nowhere")
    with pytest.raises(OptionError, match="no CRS"):
        regrid(Grid(None, Affine.identity(), 5, 5), UTM, None, "a")
    with pytest.raises(OptionError, match="--res"):
        regrid(grid(), None, (1e-6, 1e-6), "a")
    with pytest.raises(OptionError, match="--res 2000,2000: larger than all of a, 1000 x 1000"):
        regrid(grid(), None, (2000.0, 2000.0), "a")


@pytest.mark.parametrize(
    ("code", "kind"), [("EPSG:5773", "a vertical CRS"), ("EPSG:4978", "a geocentric CRS")]
)
def test_a_crs_that_is_no_map_is_refused(code: str, kind: str) -> None:
    with pytest.raises(OptionError, match=f"--crs {code}: {kind}; expected a projected"):
        parse_crs(code)
    # As that of --like, of a partner, or of the scene itself.
    crs = CRS.from_string(code)
    ours = grid()
    theirs = replace(ours, crs=crs)
    for first, second in ((ours, theirs), (theirs, ours)):
        with pytest.raises(SceneError, match=kind):
            joint_grid(first, second, ("one.tif", "two.tif"))
    with pytest.raises(SceneError, match=kind):
        regrid(theirs, ours.crs, None, "two.tif")
    assert joint_grid(theirs, theirs, ("one.tif", "two.tif")) == theirs


@pytest.mark.parametrize(
    "code",
    [
        "EPSG:4979",
        "EPSG:32630+5773",
        "EPSG:3413",
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39 +lon_0=180",
    ],
)
def test_a_crs_that_has_heights_besides_is_a_map(code: str) -> None:
    assert parse_crs(code) is not None


def test_a_grid_survives_json() -> None:
    for value in (grid(), Grid(None, Affine.identity(), 3, 4)):
        assert Grid.from_json(value.to_json()) == value


def test_a_scene_on_the_180th_meridian_does_not_go_around_the_globe() -> None:
    fiji = Grid(CRS.from_epsg(32760), Affine(100.0, 0.0, 810_000.0, 0.0, -100.0, 8.17e6), 160, 200)
    found = regrid(fiji, CRS.from_epsg(4326), None, "fiji")
    west, _, east, _ = found.footprint().bounds
    assert 179.5 < west < 180.0 < east < 180.5
    assert found.width < 250
