from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS

from geocyclegan.errors import SceneError
from geocyclegan.raster.align import AlignedScene, shift_between
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.target import regrid
from geocyclegan.raster.windows import Window

MakeRaster = Callable[..., Path]
UTM = CRS.from_epsg(32630)
CORNER = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)


def whole(grid: Grid) -> Window:
    return Window(0, 0, *grid.shape)


def ramp(grid: Grid, scale: float = 1.0) -> npt.NDArray[np.float64]:
    """A plane over map coordinates, which linear resampling keeps."""
    rows, cols = np.mgrid[: grid.height, : grid.width] + 0.5
    t = grid.transform
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    return np.asarray((x - 500_000.0) * scale + (4_200_000.0 - y) * scale * 2)


def test_a_shift_of_whole_pixels_resamples_nothing(make_raster: MakeRaster) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 50), np.uint8)
    target = Grid(UTM, CORNER * Affine.translation(-5, 7), 60, 60)
    with AlignedScene(Scene(make_raster("a.tif", pixels)), target) as scene:
        got, valid = scene.read(whole(target))
    assert valid.sum() == 33 * 50
    assert np.array_equal(got[:, :33, 5:55], pixels[:, 7:])
    assert not got[:, :, :5].any()


@pytest.mark.parametrize("size", [7.0, 10.0, 25.0])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
def test_a_plane_stays_a_plane(make_raster: MakeRaster, size: float, dtype: str) -> None:
    grid = Grid(UTM, CORNER, 80, 90)
    path = make_raster("a.tif", ramp(grid)[np.newaxis].astype(dtype))
    target = Grid(UTM, Affine(size, 0.0, 500_103.0, 0.0, -size, 4_199_950.0), 16, 20)
    with AlignedScene(Scene(path), target) as scene:
        got, valid = scene.read(whole(target))
    assert valid.all()
    assert got.dtype == dtype
    assert np.abs(got[0] - ramp(target)).max() < 1.5


def test_across_crs_within_a_fraction_of_a_pixel(make_raster: MakeRaster) -> None:
    grid = Grid(UTM, CORNER, 200, 200)
    path = make_raster("a.tif", ramp(grid)[np.newaxis].astype(np.float32))
    there = regrid(grid, CRS.from_epsg(32629), None, "a.tif")
    assert there.pixel_size == (10.0, 10.0)
    with AlignedScene(Scene(path), there) as scene:
        pixels, valid = scene.read(whole(there))
    inside = valid.sum() * 100.0
    assert inside == pytest.approx(2000.0**2, rel=0.02)
    # And back: what was a plane is one again.
    path = make_raster(
        "b.tif",
        np.where(valid, pixels, -1.0).astype(np.float32),
        crs=there.crs,
        transform=there.transform,
        nodata=-1,
    )
    with AlignedScene(Scene(path), grid) as scene:
        pixels, valid = scene.read(Window(20, 20, 160, 160))
    assert valid.all()
    assert np.abs(pixels[0] - ramp(grid)[20:180, 20:180]).max() < 3.0  # a pixel is worth 30


def test_windows_do_not_change_pixels(make_raster: MakeRaster) -> None:
    pixels = np.random.default_rng(0).random((2, 300, 300)).astype(np.float32)
    path = make_raster("a.tif", pixels)
    target = regrid(Grid(UTM, CORNER, 300, 300), CRS.from_epsg(4326), None, "a.tif")
    with AlignedScene(Scene(path), target) as scene:
        every, valid = scene.read(whole(target))
    with AlignedScene(Scene(path), target) as scene:
        for window in (Window(0, 0, 9, 300), Window(250, 130, 40, 140), Window(-3, 255, 20, 99)):
            got, mask = scene.read(window)
            inside = window.clip(*target.shape)
            here, there = inside.slices_in(window), inside.slices_in(whole(target))
            assert np.array_equal(mask[here], valid[there])
            assert np.array_equal(got[(slice(None), *here)], every[(slice(None), *there)])
            assert mask.sum() == mask[here].sum()


@pytest.mark.parametrize("how", ["nodata", "nan", "mask"])
@pytest.mark.parametrize("method", ["auto", "nearest", "cubic", "average", "mode"])
def test_the_mask_follows_and_nothing_leaks_from_it(
    make_raster: MakeRaster, how: str, method: str
) -> None:
    pixels = np.full((2, 60, 60), 100.0, np.float32)
    valid = np.ones((60, 60), np.bool_)
    valid[20:40, 20:40] = False
    profile: dict[str, Any] = {}
    if how == "nodata":
        pixels[0, ~valid], profile["nodata"] = -9999.0, -9999.0
    elif how == "nan":
        pixels[1, ~valid] = np.nan
    else:
        pixels[:, ~valid], profile["mask"] = 5000.0, valid
    path = make_raster("a.tif", pixels, **profile)
    target = Grid(UTM, CORNER * Affine.translation(0.3, 0.4) * Affine.scale(1.5), 39, 39)
    with AlignedScene(Scene(path), target, method) as scene:
        got, mask = scene.read(whole(target))
    assert np.allclose(got[:, mask], 100.0)
    assert (~mask).sum() == pytest.approx(20 * 20 / 2.25, rel=0.15)


def test_classes_stay_classes(make_raster: MakeRaster) -> None:
    pixels = np.random.default_rng(0).choice([3, 200], (2, 50, 50)).astype(np.uint8)
    path = make_raster("a.tif", pixels, names=("SCL", "B04"))
    target = Grid(UTM, CORNER * Affine.scale(0.7), 60, 60)
    with AlignedScene(Scene(path), target) as scene:
        got, valid = scene.read(whole(target))
    assert set(np.unique(got[0][valid])) == {3, 200}
    assert len(np.unique(got[1][valid])) > 2


def test_overshoot_is_clipped_and_never_nodata(make_raster: MakeRaster) -> None:
    pixels = np.full((1, 40, 40), 1, np.uint8)
    pixels[:, :, 20:] = 255
    path = make_raster("a.tif", pixels, nodata=0)
    target = Grid(UTM, CORNER * Affine.scale(0.5), 60, 60)
    with AlignedScene(Scene(path), target, "lanczos") as scene:
        got, valid = scene.read(whole(target))
    assert valid.all()
    assert got.min() == 1
    assert got.max() == 255


def test_a_coarse_grid_needs_no_more_memory(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", np.ones((1, 600, 600), np.uint8), crs="EPSG:32630")
    target = Grid(UTM, CORNER * Affine.scale(100.0), 6, 6)
    with AlignedScene(Scene(path), target, "average") as scene:
        got, valid = scene.read(whole(target))
        assert scene.block_shape[0] < 64
    assert valid.all()
    assert (got == 1).all()


def test_apart_is_invalid_and_placeless_is_refused(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", np.ones((1, 20, 20), np.uint8))
    far = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 100.0, 0, -0.1, -40.0), 30, 30)
    with AlignedScene(Scene(path), far) as scene:
        assert not scene.read(whole(far))[1].any()
    bare = make_raster("b.tif", np.ones((1, 20, 20), np.uint8), crs=None)
    with pytest.raises(SceneError, match=r"b\.tif.*has none"):
        AlignedScene(Scene(bare), far)
    same = Grid(None, CORNER * Affine.translation(0.5, 0), 20, 19)
    with AlignedScene(Scene(bare), same) as scene:
        assert scene.read(whole(same))[1].all()


def test_lattices() -> None:
    grid = Grid(UTM, CORNER, 10, 10)
    assert shift_between(grid, Grid(UTM, CORNER * Affine.translation(3, -2), 4, 4)) == (-2, 3)
    assert shift_between(grid, Grid(UTM, CORNER * Affine.translation(3.3, 0), 4, 4)) is None
    assert shift_between(grid, Grid(UTM, CORNER * Affine.scale(2), 4, 4)) is None
    assert shift_between(grid, Grid(None, CORNER, 4, 4)) is None
