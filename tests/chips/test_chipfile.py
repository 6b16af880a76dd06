from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags

from geocyclegan.chips.chipfile import ChipStyle, chip_env, encode_chip, save_chip
from geocyclegan.errors import OutputError
from geocyclegan.files import sha256
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.grid import Grid

GRID = Grid(CRS.from_epsg(32630), Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4e6), 32, 32)
WHOLE = np.ones((32, 32), np.bool_)


def write_chip(
    path: Path,
    grid: Grid,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    style: ChipStyle,
) -> str:
    with chip_env():
        return save_chip(path, encode_chip(grid, pixels, valid, style))


def band(
    index: int, name: str | None = None, nodata: float | None = None, color: str = "undefined"
) -> SourceBand:
    return SourceBand(index, name, "uint16", nodata, None, 1.0, 0.0, color)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "int64", "uint64", "float32", "float64"]
)
def test_every_type_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    pixels = np.random.default_rng(0).normal(60, 20, (3, 32, 32)).astype(dtype)
    valid = WHOLE.copy()
    valid[3:7, 4:9] = False
    style = ChipStyle.of([band(1), band(2), band(3)], dtype)
    expected = np.where(valid, pixels, np.zeros((), dtype))
    digest = write_chip(tmp_path / "chip.tif", GRID, expected, valid, style)
    with rasterio.open(tmp_path / "chip.tif") as chip:
        assert np.array_equal(chip.read(), expected)
        assert np.array_equal(chip.dataset_mask() > 0, valid)
        assert chip.dtypes == (dtype,) * 3
    assert digest == sha256(tmp_path / "chip.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["chip.tif"]


def test_grid_names_units_and_packing(tmp_path: Path) -> None:
    bands = [
        SourceBand(1, "B04", "uint16", 0.0, "reflectance", 1e-4, -0.1, "red"),
        SourceBand(2, None, "uint16", 0.0, None, 1e-4, -0.1, "undefined"),
    ]
    turned = Grid(GRID.crs, GRID.transform * Affine.rotation(20.0), 32, 32)
    pixels = np.full((2, 32, 32), 7, np.uint16)
    write_chip(tmp_path / "chip.tif", turned, pixels, WHOLE, ChipStyle.of(bands, "uint16"))
    with rasterio.open(tmp_path / "chip.tif") as chip:
        assert chip.crs == turned.crs
        assert chip.transform == turned.transform
        assert chip.descriptions == ("B04", None)
        assert chip.units[0] == "reflectance"
        assert chip.scales == (1e-4, 1e-4)
        assert chip.offsets == (-0.1, -0.1)
        assert chip.nodata == 0.0
        assert MaskFlags.per_dataset not in chip.mask_flag_enums[0]


def test_the_fourth_band_is_no_alpha(tmp_path: Path) -> None:
    for colors in (["red", "green", "blue", "undefined"], ["gray"] + ["undefined"] * 3):
        bands = [band(i, color=color) for i, color in enumerate(colors, start=1)]
        pixels = np.full((4, 32, 32), 7, np.uint8)
        write_chip(tmp_path / "chip.tif", GRID, pixels, WHOLE, ChipStyle.of(bands, "uint8"))
        with rasterio.open(tmp_path / "chip.tif") as chip:
            assert [color.name for color in chip.colorinterp] == colors


def test_a_chosen_alpha_band_is_data(tmp_path: Path) -> None:
    style = ChipStyle.of([band(4, color="alpha")], "uint8")
    write_chip(tmp_path / "chip.tif", GRID, np.zeros((1, 32, 32), np.uint8), WHOLE, style)
    with rasterio.open(tmp_path / "chip.tif") as chip:
        assert chip.colorinterp[0] != ColorInterp.alpha
        assert chip.dataset_mask().all()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ((0.0, 0.0), "uint16", 0.0),
        ((None, None), "uint16", None),
        ((0.0, 255.0), "uint16", None),
        ((0.0, None), "uint16", None),
        ((-9999.0, -9999.0), "uint16", None),
        ((0.5, 0.5), "int16", None),
        ((-1e300, -1e300), "float32", None),
    ],
)
def test_nodata_is_kept_where_it_means_the_same(
    values: tuple[float | None, float | None], dtype: str, expected: float | None
) -> None:
    bands = [band(1, nodata=values[0]), band(2, nodata=values[1])]
    assert ChipStyle.of(bands, dtype).nodata == expected


def test_nan_is_one_nodata_value() -> None:
    nan = float("nan")
    nodata = ChipStyle.of([band(1, nodata=nan), band(2, nodata=nan)], "float32").nodata
    assert nodata is not None
    assert np.isnan(nodata)


def test_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    style = ChipStyle.of([band(1)], "uint8")
    with pytest.raises(OutputError, match=r"chip\.tif.*No space"):
        write_chip(tmp_path / "chip.tif", GRID, np.zeros((1, 32, 32), np.uint8), WHOLE, style)


def test_chips_do_not_depend_on_when_they_are_written() -> None:
    style = ChipStyle.of([band(1)], "uint16")
    pixels = np.random.default_rng(0).integers(0, 900, (1, 32, 32), np.uint16)
    assert encode_chip(GRID, pixels, WHOLE, style) == encode_chip(GRID, pixels, WHOLE, style)
