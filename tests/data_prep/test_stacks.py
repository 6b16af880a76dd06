from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data_prep.masks import bit_mask
from data_prep.stacks import Band, write_stack
from geocyclegan.errors import SceneError
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

Write = Callable[..., Path]


def test_nodata_of_a_coarse_band_does_not_bleed(tmp_path: Path, write: Write) -> None:
    fine = write("fine.tif", side=16, res=10.0, values=100)
    values = np.full((8, 8), 100)
    values[:4] = 0
    coarse = write("coarse.tif", side=8, res=20.0, values=values)

    path = write_stack(
        tmp_path / "s.vrt", [Band("f", fine, nodata=0.0), Band("c", coarse, nodata=0.0)]
    )

    with Scene(path) as scene:
        pixels, valid = scene.read(Window(0, 0, 16, 16))
    assert set(np.unique(pixels[:, valid])) == {100}
    assert not valid[:7].any()
    assert valid[9:].all()


def test_shifted_band_lies_where_it_is(tmp_path: Path, write: Write) -> None:
    values = np.arange(64).reshape(8, 8) + 1
    whole = write("whole.tif", side=8, values=values)
    with rasterio.open(whole) as dataset:
        window = rasterio.windows.Window(3, 2, 4, 4)
        moved = dataset.window_transform(window)
    part = write("part.tif", side=4, values=values[2:6, 3:7], transform=moved)

    path = write_stack(tmp_path / "s.vrt", [Band("whole", whole), Band("part", part, nodata=0.0)])

    with rasterio.open(path) as stack:
        first, second = stack.read()
        assert stack.descriptions == ("whole", "part")
    np.testing.assert_array_equal(second[2:6, 3:7], first[2:6, 3:7])
    assert second.sum() == first[2:6, 3:7].sum()


def test_bands_of_two_zones_are_refused(tmp_path: Path, write: Write) -> None:
    one, other = write("one.tif"), write("other.tif", crs="EPSG:32632")

    with pytest.raises(SceneError, match=r"other\.tif: its CRS"):
        write_stack(tmp_path / "s.vrt", [Band("1", one), Band("2", other)])
    assert not (tmp_path / "s.vrt").exists()


def test_bits_are_looked_at_one_by_one(tmp_path: Path, write: Write) -> None:
    values = np.arange(64).reshape(8, 8)
    quality = write("qa.tif", side=8, values=values)

    with rasterio.open(bit_mask(quality, (1, 4), tmp_path / "mask.tif")) as mask:
        drawn = mask.read(1)

    np.testing.assert_array_equal(drawn, ((values >> 1) & 1) | ((values >> 4) & 1))


def test_reals_have_no_bits(tmp_path: Path, write: Write) -> None:
    with pytest.raises(SceneError, match="no bits"):
        bit_mask(write("qa.tif", dtype="float32"), (1,), tmp_path / "mask.tif")
    assert not (tmp_path / "mask.tif").exists()
