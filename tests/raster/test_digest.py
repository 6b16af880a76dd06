from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geocyclegan.errors import SceneError
from geocyclegan.raster.digest import TAG, check_product, pixel_digest
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

MakeRaster = Callable[..., Path]


def test_layout_does_not_matter_but_pixels_and_mask_do(make_raster: MakeRaster) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (2, 600, 530), np.uint8)
    mask = np.ones((600, 530), np.bool_)
    mask[5, 5] = False
    plain = make_raster("a.tif", pixels)
    tiled = make_raster("b.tif", pixels, tiled=True, blockxsize=64, blockysize=32, compress="lzw")
    masked = make_raster("c.tif", pixels, mask=mask)
    pixels[1, 599, 529] += 1
    other = make_raster("d.tif", pixels)
    digests = [pixel_digest(path) for path in (plain, tiled, masked, other)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_product_carries_the_hash_of_its_pixels(make_raster: MakeRaster, tmp_path: Path) -> None:
    scene = make_raster("scene.tif", np.ones((1, 300, 300), np.uint8))
    with Scene(scene) as opened:
        grid: Grid = opened.grid
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 1.0), (-1.0, 1.0))),), "float32")
    path = tmp_path / "product.tif"
    pixels = np.random.default_rng(0).random((1, 300, 300)).astype(np.float32)
    valid = np.ones((300, 300), np.bool_)
    valid[100:120, 50:60] = False
    with ProductWriter(path, ProductSpec(grid, domain, {}, masked=True)) as product:
        product.write(Window(0, 0, 300, 300), pixels, valid)
    assert check_product(path) is None
    with rasterio.open(path) as dataset:
        assert len(dataset.tags()[TAG]) == 64
    sound = path.read_bytes()
    found = 0
    for at in range(len(sound) // 2, len(sound), len(sound) // 9):
        data = bytearray(sound)
        data[at] ^= 16
        path.write_bytes(data)
        found += check_product(path) is not None
    assert found >= 3  # a flip in an overview changes no pixel
    with pytest.raises(SceneError, match="carries no hash"):
        check_product(scene)
