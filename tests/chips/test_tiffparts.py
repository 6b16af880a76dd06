"""Chips filled into a template are those that GDAL would write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from geocyclegan.chips.chipfile import ChipEncoder, ChipStyle, Codec, chip_env, encode_chip
from geocyclegan.chips.tiffparts import TiffTemplate
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

UTM = CRS.from_epsg(32630)
TRANSFORMS = {
    "north up": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4e6),
    "south up": Affine(10.0, 0.0, 5e5, 0.0, 10.0, 4e6),
    "rotated": Affine(9.0, 3.0, 5e5, 3.0, -9.0, 4e6),
    "pixels": Affine(1.0, 0.0, 7.0, 0.0, 1.0, 9.0),
}


def style_of(count: int, dtype: str, nodata: float | None = None) -> ChipStyle:
    colors = ["red", "green", "blue", "undefined"] if count == 4 else ["undefined"] * count
    return ChipStyle.of(
        [
            SourceBand(i + 1, f"B{i}", dtype, nodata, "m", 0.1, 2.0, color)
            for i, color in enumerate(colors)
        ],
        dtype,
    )


def what_is_read(file: bytes) -> tuple[Any, ...]:
    with MemoryFile(file) as memory, memory.open() as chip:
        told = (
            {k: v for k, v in chip.profile.items() if k != "nodata"},
            str(chip.nodata),
            chip.tags(),
            chip.tags(ns="IMAGE_STRUCTURE"),
            (chip.descriptions, chip.units, chip.scales, chip.offsets, chip.colorinterp),
            chip.mask_flag_enums,
            chip.dataset_mask().tobytes(),
        )
        return (*told, chip.read().tobytes())


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize("place", TRANSFORMS)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("codec", ["zstd", "none"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_filled_template_reads_as_what_gdal_writes(
    dtype: str, place: str, count: int, codec: str, is_whole: bool
) -> None:
    scene = Grid(None if place == "pixels" else UTM, TRANSFORMS[place], 200, 200)
    grid = scene.window(Window(64, 96, 33, 33))
    pixels = np.random.default_rng(0).normal(60, 20, (count, 33, 33)).astype(dtype)
    whole = np.ones((33, 33), np.bool_)
    if not is_whole:
        whole[3:7, 5:] = False
        whole[20] = False
    style = style_of(count, dtype, nodata=0.0 if codec == "zstd" else None)
    with rasterio.Env(), chip_env():
        encoder = ChipEncoder(style, Codec(codec))
        encoder.encode(scene.window(Window(0, 0, 33, 33)), pixels, whole)
        assert encoder._templates[is_whole] is not None
        filled = encoder.encode(grid, pixels, whole)
        expected = encode_chip(grid, pixels, whole, style, Codec(codec))
    assert what_is_read(filled) == what_is_read(expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("side", [264, 300, 512])
@pytest.mark.parametrize("codec", ["zstd", "none", "deflate"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_chips_larger_than_a_block_are_tiled(
    dtype: str, side: int, codec: str, is_whole: bool
) -> None:
    grid = Grid(UTM, TRANSFORMS["north up"], 2 * side, side).window(Window(side, 0, side, side))
    pixels = np.random.default_rng(0).normal(60, 20, (2, side, side)).astype(dtype)
    whole = np.ones((side, side), np.bool_)
    if not is_whole:
        whole[3:7, 5:] = False
        whole[:, 259] = False
    style = style_of(2, dtype)
    with rasterio.Env(), chip_env():
        encoder = ChipEncoder(style, Codec(codec))
        filled = encoder.encode(grid, pixels, whole)
        assert codec == "deflate" or encoder._templates[is_whole] is not None
        expected = encode_chip(grid, pixels, whole, style, Codec(codec))
    assert what_is_read(filled) == what_is_read(expected)
    with MemoryFile(filled) as memory, memory.open() as chip:
        assert (chip.profile["tiled"], chip.block_shapes) == (True, [(256, 256)] * 2)
        assert chip.profile["interleave"] == "band"
        assert np.array_equal(chip.read(), pixels)
        assert np.array_equal(chip.dataset_mask() > 0, whole)


@given(
    st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 3), st.just(9), st.just(11)))
    )
)
def test_pixels_of_any_value_come_back(pixels: Any) -> None:
    grid = Grid(UTM, TRANSFORMS["north up"], 9, 11)
    style = style_of(len(pixels), pixels.dtype.name)
    with rasterio.Env(), chip_env():
        file = ChipEncoder(style).encode(grid, pixels, np.ones((9, 11), np.bool_))
    with MemoryFile(file) as memory, memory.open() as chip:
        assert chip.read().tobytes() == pixels.tobytes()


@pytest.mark.parametrize("side", [8, 31, 256, 700])
def test_masks_of_any_size_come_back(side: int) -> None:
    random = np.random.default_rng(side)
    valid = random.random((side, side)) > 0.4
    pixels = random.integers(1, 99, (1, side, side)).astype(np.uint8)
    with rasterio.Env(), chip_env():
        encoder = ChipEncoder(style_of(1, "uint8"))
        file = encoder.encode(Grid(UTM, TRANSFORMS["rotated"], side, side), pixels, valid)
        assert encoder._templates[False] is not None
    with MemoryFile(file) as memory, memory.open() as chip:
        assert np.array_equal(chip.dataset_mask() > 0, valid)
        assert np.array_equal(chip.read(), pixels)


def test_a_chip_does_not_depend_on_those_before_it() -> None:
    scene = Grid(UTM, TRANSFORMS["north up"], 200, 200)
    pixels = np.random.default_rng(1).integers(0, 99, (2, 32, 32)).astype(np.uint16)
    whole = np.ones((32, 32), np.bool_)
    style = style_of(2, "uint16")
    with rasterio.Env(), chip_env():
        one, other = ChipEncoder(style), ChipEncoder(style)
        other.encode(scene.window(Window(32, 0, 32, 32)), pixels + 1, whole)
        grid = scene.window(Window(64, 64, 32, 32))
        assert one.encode(grid, pixels, whole) == other.encode(grid, pixels, whole)


def test_what_the_template_does_not_know_is_left_to_gdal() -> None:
    pixels = np.ones((1, 32, 32), np.uint8)
    whole = np.ones((32, 32), np.bool_)
    style = style_of(1, "uint8")
    grid = Grid(UTM, TRANSFORMS["north up"], 32, 32)
    placeless = Grid(None, Affine.identity(), 32, 32)
    with rasterio.Env(), chip_env():
        nowhere = ChipEncoder(style).encode(placeless, pixels, whole)
        assert nowhere == encode_chip(placeless, pixels, whole, style)
        # No place, another origin than was asked for, another byte order.
        assert TiffTemplate.parse(nowhere, grid, 1) is None
        file = encode_chip(grid, pixels, whole, style)
        elsewhere = grid.window(Window(1, 1, 32, 32))
        assert TiffTemplate.parse(file, elsewhere, 1) is None
        assert TiffTemplate.parse(b"MM" + file[2:], grid, 1) is None
        template = TiffTemplate.parse(file, grid, 1)
        assert template is not None
        # A mask where the template has none.
        assert template.fill(grid, [b"x"], whole) is None
    deflated = ChipEncoder(style, Codec("deflate"))
    with rasterio.Env(), chip_env():
        assert deflated.encode(grid, pixels, whole) == encode_chip(
            grid, pixels, whole, style, Codec("deflate")
        )
