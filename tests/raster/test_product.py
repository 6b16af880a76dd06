"""Products: the contract in full, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import OptionError, OutputError
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.windows import Window

SCALING = BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0))
RNG = np.random.default_rng(5)

TRANSFORMS = {
    "utm": Affine(10.0, 0.0, 500_003.3, 0.0, -10.0, 4_200_000.1),
    "degrees": Affine(8.983152841195215e-05, 0, -0.7818936, 0, -8.983152841195215e-05, 38.12),
    "south-up": Affine(0.01, 0.0, 2.0, 0.0, 0.01, 1.0),
    "rotated": Affine(17.320508075688775, 5.0, 0.1, 10.0, -8.660254037844387, 7.7),
}


def domain(count: int, dtype: str = "uint16", nodata: float | None = None) -> Domain:
    bands = [BandInfo(SCALING, f"B{i:02}", "1", 0.0001, -0.1) for i in range(1, count + 1)]
    return Domain(tuple(bands), dtype, nodata)


def write(path: Path, spec: ProductSpec, step: int = 300) -> tuple[np.ndarray, np.ndarray]:
    shape = (spec.domain.count, *spec.grid.shape)
    pixels = RNG.integers(1, 250, shape).astype(spec.domain.dtype)
    valid = np.ones(spec.grid.shape, bool)
    if spec.masked:
        valid[: shape[1] // 3, : shape[2] // 4] = False
        pixels[:, ~valid] = spec.domain.nodata or 0
    with ProductWriter(path, spec) as product:
        for row in range(0, shape[1], step):
            for col in range(0, shape[2], step):
                window = Window(row, col, step, step).clip(*spec.grid.shape)
                part = np.s_[row : window.row_stop, col : window.col_stop]
                product.write(window, pixels[:, *part], valid[part])
    return pixels, valid


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("shape", [(1, 1), (37, 51), (1030, 700)])
def test_grid_pixels_and_mask_are_kept(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    crs = CRS.from_epsg(4326 if kind == "degrees" else 32630)
    grid = Grid(crs, TRANSFORMS[kind], *shape)
    spec = ProductSpec(grid, domain(3), {"SYNTHETIC": "YES"}, masked=True)
    pixels, valid = write(tmp_path / "p.tif", spec)
    with rasterio.open(tmp_path / "p.tif") as done:
        assert done.transform == grid.transform
        assert done.crs == crs
        assert done.shape == shape
        np.testing.assert_array_equal(done.read(), pixels)
        np.testing.assert_array_equal(done.dataset_mask() > 0, valid)
        assert done.descriptions == ("B01", "B02", "B03")
        assert done.units == ("1", "1", "1")
        assert done.scales == (0.0001,) * 3
        assert done.tags()["SYNTHETIC"] == "YES"
        assert done.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        if max(shape) > 512:
            assert done.overviews(1)
    assert [path.name for path in tmp_path.iterdir()] == ["p.tif"]


@pytest.mark.parametrize(
    ("dtype", "nodata", "count"),
    [
        ("uint8", None, 1),
        ("uint8", 0.0, 3),
        ("int8", None, 1),
        ("int16", -9999.0, 13),
        ("uint16", None, 4),
        ("int32", None, 2),
        ("uint32", 7.0, 1),
        ("int64", None, 1),
        ("float32", None, 2),
        ("float32", float("nan"), 2),
        ("float32", -9999.0, 2),
        ("float64", None, 1),
    ],
)
def test_every_pixel_type(tmp_path: Path, dtype: str, nodata: float | None, count: int) -> None:
    grid = Grid(CRS.from_epsg(32630), TRANSFORMS["utm"], 60, 70)
    spec = ProductSpec(grid, domain(count, dtype, nodata), {}, masked=True)
    shape = (count, 60, 70)
    pixels = RNG.integers(10, 100, shape).astype(dtype)
    valid = np.ones((60, 70), bool)
    valid[5:9, 60:] = False
    pixels[:, ~valid] = 0 if nodata is None else nodata
    with ProductWriter(tmp_path / "p.tif", spec) as product:
        product.write(Window(0, 0, 60, 70), pixels, valid)
    with rasterio.open(tmp_path / "p.tif") as done:
        assert set(done.dtypes) == {dtype}
        np.testing.assert_array_equal(done.read()[:, valid], pixels[:, valid])
        np.testing.assert_array_equal(done.dataset_mask() > 0, valid)
        if nodata is None and dtype.startswith("float"):
            assert np.isnan(done.nodata)
        elif nodata is None:
            assert done.nodata is None
        else:
            np.testing.assert_equal(done.nodata, nodata)


def test_colours_are_those_of_the_domain(tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    rgb = Domain(tuple(BandInfo(SCALING, n, color=n) for n in names), "uint8")
    four = Domain(tuple(BandInfo(SCALING, f"B{i}") for i in range(4)), "uint8")
    first_gray = ["gray", "undefined", "undefined", "undefined"]
    for name, kind, expected in (("rgb.tif", rgb, list(names)), ("four.tif", four, first_gray)):
        grid = Grid(CRS.from_epsg(32630), TRANSFORMS["utm"], 20, 20)
        spec = ProductSpec(grid, kind, {}, masked=False)
        write(tmp_path / name, spec)
        with rasterio.open(tmp_path / name) as done:
            assert [color.name for color in done.colorinterp] == expected


def test_a_failure_leaves_the_old_product_and_no_rest(tmp_path: Path) -> None:
    grid = Grid(None, Affine.identity(), 30, 30)
    spec = ProductSpec(grid, domain(1), {}, masked=False)
    pixels, _ = write(tmp_path / "p.tif", spec)
    before = (tmp_path / "p.tif").read_bytes()

    def fail() -> None:
        with ProductWriter(tmp_path / "p.tif", spec) as product:
            product.write(Window(0, 0, 30, 30), pixels, np.ones((30, 30), bool))
            raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        fail()
    assert (tmp_path / "p.tif").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.tif"]


Copy = Callable[..., None]


def without_mask(copy: Copy, work: str, part: str, **options: Any) -> None:
    with rasterio.open(work) as full:
        profile, pixels = full.profile, full.read()
    with MemoryFile() as memory:
        with memory.open(**profile) as bare:
            bare.write(pixels)
        copy(memory.name, part, **options)


def without_overviews(copy: Copy, work: str, part: str, **options: Any) -> None:
    copy(work, part, **options, OVERVIEWS="NONE")


def other_pixels(copy: Copy, work: str, part: str, **options: Any) -> None:
    copy(work, part, **options)
    with rasterio.open(part, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as done:
        done.write(np.full((done.count, 40, 40), 77, done.dtypes[0]), window=MIDDLE)


def other_mask(copy: Copy, work: str, part: str, **options: Any) -> None:
    copy(work, part, **options)
    with rasterio.open(part, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as done:
        done.write_mask(np.zeros((40, 40), np.uint8), window=MIDDLE)


def lost_bytes(level: int | None) -> Copy:
    """A hole in one block, as a disk leaves it, of an overview or of the pixels."""

    def damage(copy: Copy, work: str, part: str, **options: Any) -> None:
        copy(work, part, **options)
        block = "1_1" if level is None else "0_0"
        with rasterio.open(part) as done:
            at = int(done.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=1, ovr=level))
        with open(part, "rb+") as file:
            file.seek(at)
            file.write(bytes(200))

    return damage


MIDDLE = RasterioWindow(600, 600, 40, 40)


@pytest.mark.parametrize("nodata", [None, 0.0])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_mask, "its valid mask was lost"),
        (without_overviews, "its overviews were lost"),
        (other_pixels, "do not read back as they were"),
        (other_mask, "do not read back as they were"),
        (lost_bytes(None), "its pixels cannot be read back"),
        (lost_bytes(0), "its overview 1:2 cannot be read"),
        (lost_bytes(1), "its overview 1:4 cannot be read"),
    ],
)
def test_a_product_that_is_not_what_was_written_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, told: str, nodata: float | None
) -> None:
    grid = Grid(CRS.from_epsg(32630), TRANSFORMS["utm"], 1100, 1100)
    spec = ProductSpec(grid, domain(1, "uint8", nodata), {}, masked=True)
    write(tmp_path / "p.tif", spec)
    before = (tmp_path / "p.tif").read_bytes()
    monkeypatch.setattr(rasterio.shutil, "copy", partial(damage, rasterio.shutil.copy))
    with pytest.raises(OutputError, match=told):
        write(tmp_path / "p.tif", spec)
    assert (tmp_path / "p.tif").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.tif"]


def test_an_output_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    grid = Grid(None, Affine.identity(), 30, 30)
    with pytest.raises(OptionError, match="a file, where a folder was expected"):
        ProductWriter(tmp_path / "file" / "p.tif", ProductSpec(grid, domain(1), {}, masked=False))


def test_windows_read_from_the_cog_agree(tmp_path: Path) -> None:
    grid = Grid(CRS.from_epsg(32630), TRANSFORMS["utm"], 900, 1100)
    pixels, _ = write(tmp_path / "p.tif", ProductSpec(grid, domain(2), {}, masked=False))
    with rasterio.open(tmp_path / "p.tif") as done:
        part = done.read(window=RasterioWindow(500, 400, 100, 100))
    np.testing.assert_array_equal(part, pixels[:, 400:500, 500:600])


def test_writing_without_a_place_on_earth_is_silent_and_others_stay_loud(tmp_path: Path) -> None:
    """The package silences its own writing without georeferencing, and nobody else's."""
    script = f"""
import numpy as np, rasterio
from affine import Affine
from tests.raster.test_product import ProductSpec, domain, write, Grid, Path
write(Path({str(tmp_path)!r}) / "p.tif",
      ProductSpec(Grid(None, Affine.identity(), 30, 30), domain(1), {{}}, masked=True))
print("ours", flush=True)
rasterio.open({str(tmp_path / "q.tif")!r}, "w", width=2, height=2, count=1, dtype="uint8",
              transform=Affine.identity()).close()
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.stdout.strip() == "ours", done.stderr
    assert "Affine.identity" in done.stderr.splitlines()[-1]
