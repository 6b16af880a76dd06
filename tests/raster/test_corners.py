"""AREA_OR_POINT: kept where the corners of the grid stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocyclegan.raster.corners import area_or_point
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

MakeRaster = Callable[..., Path]
SRTM = Affine(1 / 3600, 0.0, -5 - 1 / 7200, 0.0, -1 / 3600, 40 + 1 / 7200)
UTM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)
ROTATED = Affine(17.320508075688775, 5.0, 0.1, 10.0, -8.660254037844387, 7.7)


def product_of(tags: str, grid: Grid, out: Path) -> tuple[str, Affine]:
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))),), "uint8")
    with ProductWriter(out, ProductSpec(grid, domain, {"AREA_OR_POINT": tags}, False)) as product:
        shape = grid.shape
        product.write(Window(0, 0, *shape), np.ones((1, *shape), np.uint8), np.ones(shape, bool))
    with rasterio.open(out) as done:
        return done.tags()["AREA_OR_POINT"], done.transform


@pytest.mark.parametrize(
    ("transform", "crs", "kept"),
    [(SRTM, 4326, "Point"), (UTM, 32630, "Point"), (ROTATED, 32630, "Area")],
)
def test_a_product_has_points_where_its_scene_has(
    tmp_path: Path, transform: Affine, crs: int, kept: str
) -> None:
    grid = Grid(CRS.from_epsg(crs), transform, 30, 40)
    tag = area_or_point("Point", grid)
    assert tag == kept
    assert product_of(tag, grid, tmp_path / "p.tif") == (kept, transform)


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(1e-6, 1.0))
def test_corners_stay_to_the_last_bit(west: float, north: float, step: float) -> None:
    """Whatever is chosen, the transform that is read is the one that was written."""
    transform = Affine(step, 0.0, west, 0.0, -step, north)
    grid = Grid(CRS.from_epsg(4326), transform, 1, 1)
    tag = area_or_point("Point", grid)
    with rasterio.MemoryFile() as file:
        profile = {"width": 1, "height": 1, "count": 1, "dtype": "uint8", "driver": "GTiff"}
        with file.open(**profile, crs=grid.crs, transform=transform) as dataset:
            dataset.update_tags(AREA_OR_POINT=tag)
        with file.open() as dataset:
            assert dataset.transform == transform


def test_a_scene_says_what_its_file_does(tmp_path: Path, make_raster: MakeRaster) -> None:
    pixels = np.ones((1, 3601, 3601), np.int16)
    hgt = tmp_path / "N39W005.hgt"
    with rasterio.open(
        hgt,
        "w",
        driver="SRTMHGT",
        width=3601,
        height=3601,
        count=1,
        dtype="int16",
        crs="EPSG:4326",
        transform=SRTM,
    ) as dataset:
        dataset.write(pixels)
    with Scene(hgt) as scene:
        assert scene.area_or_point == "Point"
        grid = Grid(scene.grid.crs, scene.grid.transform, 30, 40)
        assert product_of(area_or_point("Point", grid), grid, tmp_path / "p.tif") == (
            "Point",
            scene.grid.transform,
        )
    with Scene(make_raster("area.tif", pixels[:, :9, :9])) as scene:
        assert area_or_point(scene.area_or_point, scene.grid) == "Area"
