"""Values that stand for no data though the files do not say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocyclegan.errors import OptionError
from geocyclegan.raster.align import AlignedScene
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.stack import open_scene
from geocyclegan.raster.undeclared import all_hold, as_pixel, parse_nodata, undeclared_value
from geocyclegan.raster.windows import Window

MakeRaster = Callable[..., Path]
LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture
def photo(make_raster: MakeRaster) -> Path:
    """Three bands with a black collar of ten pixels, and a dark pixel whose red is zero."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 80)).astype(np.uint8)
    pixels[:, :10] = 0
    pixels[:, :, :10] = 0
    pixels[0, 40, 40] = 0
    return make_raster("photo.tif", pixels, photometric="RGB")


def whole(scene: Scene | AlignedScene) -> Window:
    return Window(0, 0, *scene.grid.shape)


def inside_collar() -> np.ndarray:
    expected = np.zeros((64, 80), bool)
    expected[10:, 10:] = True
    return expected


def test_a_pixel_is_empty_where_all_chosen_bands_have_the_value(photo: Path) -> None:
    with open_scene(photo) as scene:
        assert scene.read(whole(scene))[1].all()
        assert not scene.may_have_invalid
        scene.leave_out(0.0)
        assert scene.may_have_invalid
        np.testing.assert_array_equal(scene.read(whole(scene))[1], inside_collar())
        # What lies beyond the scene stays invalid, and a window is a part of the whole.
        window = Window(30, 70, 20, 20)
        expected = np.zeros((20, 20), bool)
        expected[:, :10] = inside_collar()[30:50, 70:]
        np.testing.assert_array_equal(scene.read(window)[1], expected)
        np.testing.assert_array_equal(scene.overview(32)[1].mean() < 1.0, True)
    with open_scene(photo, ["1"]) as scene:
        scene.leave_out(0.0)
        assert not scene.read(whole(scene))[1][40, 40]


def test_it_holds_besides_what_the_file_declares(make_raster: MakeRaster) -> None:
    pixels = np.full((2, 8, 8), 5, np.int16)
    pixels[0, 0] = -1
    pixels[:, 1] = 0
    pixels[1, 2] = 0
    with open_scene(make_raster("declared.tif", pixels, nodata=-1)) as scene:
        scene.leave_out(0.0)
        valid = scene.read(whole(scene))[1]
    assert not valid[:2].any()
    assert valid[2:].all()


def test_nothing_of_a_collar_flows_into_warped_pixels(make_raster: MakeRaster) -> None:
    pixels = np.full((2, 40, 40), 500, np.uint16)
    pixels[:, :, :11] = 0
    path = make_raster("scene.tif", pixels)
    with rasterio.open(path) as file:
        grid = Grid(file.crs, file.transform @ Affine.scale(0.7), 57, 57)
    for value, least in ((0.0, 500), (None, 0)):
        scene = open_scene(path)
        scene.leave_out(value)
        with AlignedScene(scene, grid, "cubic") as seen:
            values, valid = seen.read(whole(seen))
        assert values[:, valid].min() == least
    assert not valid.all() or value is None


def test_files_of_one_grid_are_judged_together(tmp_path: Path, make_raster: MakeRaster) -> None:
    rng = np.random.default_rng(0)
    fine = rng.integers(1, 99, (2, 1, 40, 40)).astype(np.uint16)
    fine[:, :, :, :9] = 0
    fine[0, 0, 30, 30] = 0
    paths = [make_raster(f"x_B0{i + 2}.tif", band) for i, band in enumerate(fine)]
    with open_scene("+".join(map(str, paths))) as scene:
        assert not scene.may_have_invalid
        scene.leave_out(0.0)
        assert scene.may_have_invalid
        expected = np.ones((40, 40), bool)
        expected[:, :9] = False
        np.testing.assert_array_equal(scene.read(whole(scene))[1], expected)
        np.testing.assert_array_equal(scene.overview(40)[1], expected)


def test_a_coarser_file_is_judged_before_it_is_interpolated(make_raster: MakeRaster) -> None:
    fine = np.full((1, 40, 40), 700, np.uint16)
    fine[:, :, :10] = 0
    coarse = np.full((1, 20, 20), 300, np.uint16)
    coarse[:, :, :5] = 0
    wide = Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 4_200_000.0)
    paths = [make_raster("x_B02.tif", fine), make_raster("x_B11.tif", coarse, transform=wide)]
    with open_scene("+".join(map(str, paths))) as scene:
        assert set(np.unique(scene.read(whole(scene))[0][1])) > {0, 300}
        scene.leave_out(0.0)
        pixels, valid = scene.read(whole(scene))
    np.testing.assert_array_equal(valid, fine[0] > 0)
    assert set(np.unique(pixels[1][valid])) == {300}


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [
        (0.0, "uint8", True),
        (-1.0, "uint8", False),
        (256.0, "uint8", False),
        (0.5, "int16", False),
        (math.nan, "uint8", False),
        (math.nan, "float32", True),
        (-9999.1, "float32", True),
        (1e300, "float32", False),
        (1e300, "float64", True),
        (3.4028235e38, "float32", True),
        (2.0**63, "int64", False),
    ],
)
def test_what_a_pixel_can_hold(value: float, dtype: str, held: bool) -> None:
    assert (as_pixel(value, dtype) is not None) == held


def test_values_are_compared_as_pixels() -> None:
    pixels = np.array([[[-9999.1, LARGEST, 1.0]]], np.float32)
    assert all_hold(pixels, -9999.1).tolist() == [[True, False, False]]
    assert all_hold(pixels, 3.4028235e38).tolist() == [[False, True, False]]
    assert not all_hold(pixels, 1e300).any()


def test_a_value_that_no_pixel_can_hold_is_refused(photo: Path) -> None:
    with open_scene(photo) as scene:
        with pytest.raises(OptionError, match=r"--pair-nodata -9999: .*photo.*uint8.*0 to 255"):
            undeclared_value(-9999.0, scene.bands, "photo.tif", "pair-nodata")
        assert undeclared_value(0.0, scene.bands, "photo.tif") == 0.0
        assert undeclared_value(None, scene.bands, "photo.tif") is None
    with pytest.raises(OptionError, match="--nodata black: expected the number"):
        parse_nodata("black")


def test_nan_is_invalid_always(make_raster: MakeRaster) -> None:
    with open_scene(make_raster("float.tif", np.ones((1, 8, 8), np.float32))) as scene:
        assert undeclared_value(parse_nodata("nan"), scene.bands, "float.tif") is None


def test_a_domain_remembers_it() -> None:
    band = BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)))
    told = Domain((band,), "uint8", undeclared=0.0)
    assert Domain.from_json(told.to_json()) == told
    # What was written before there was such a value, and what is written without one.
    plain = Domain((band,), "uint8")
    assert "undeclared_nodata" not in plain.to_json()
    assert Domain.from_json(plain.to_json()).undeclared is None
