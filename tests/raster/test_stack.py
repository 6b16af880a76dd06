"""One scene out of several files: products as downloaded, files by name, files one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.cli.main import cli
from geocyclegan.errors import ChipsError, NotFoundError, SceneError
from geocyclegan.raster.bandfiles import band_files, band_name, short_name, stacked
from geocyclegan.raster.sources import expand_scenes
from geocyclegan.raster.stack import StackedScene, open_scene
from geocyclegan.raster.windows import Window

SAFE = "S2A_MSIL2A_20220412T162841_N0400_R083_T16TFM_20220412T202300.SAFE"
MTD = """<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://x"><a>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="8">-500</BOA_ADD_OFFSET>
</a></n1:Level-2A_User_Product>"""
MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_2 = 2.75e-05
    REFLECTANCE_ADD_BAND_2 = -0.2
  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
  GROUP = LEVEL1_RADIOMETRIC_RESCALING
    REFLECTANCE_MULT_BAND_2 = 2.0000E-05
    REFLECTANCE_ADD_BAND_2 = -0.100000
  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING
END_GROUP = LANDSAT_METADATA_FILE
"""


def write_band(
    path: Path, size: float, value: int | None = None, extent: int = 1280, **more: Any
) -> None:
    """Write a band of some pixel size over one ground: a plane in x, or one value."""
    side = round(extent / size)
    cols = (np.arange(side) + 0.5) * size
    pixels = np.broadcast_to(cols if value is None else value, (1, side, side)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "height": side,
        "width": side,
        "dtype": "uint16",
        "crs": "EPSG:32616",
        "transform": Affine(size, 0, 399960, 0, -size, 4500000),
    }
    if path.suffix == ".jp2":
        more = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"} | more
    with rasterio.open(path, "w", **profile | more) as file:
        file.write(pixels)


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    images = tmp_path / SAFE / "GRANULE" / "L2A_T16TFM_A035544_20220412T163959" / "IMG_DATA"
    stem = "T16TFM_20220412T162841"
    for name, sizes in (("B02", (10, 20)), ("B8A", (20,)), ("B01", (60,)), ("SCL", (20,))):
        for size in sizes:
            write_band(images / f"R{size}m" / f"{stem}_{name}_{size}m.jp2", size, extent=3840)
    write_band(images / "R10m" / f"{stem}_TCI_10m.jp2", 10, extent=3840)
    (tmp_path / SAFE / "MTD_MSIL2A.xml").write_text(MTD)
    return tmp_path / SAFE


def test_a_sentinel2_product_is_a_scene_on_its_finest_grid(safe: Path) -> None:
    assert expand_scenes([safe]) == expand_scenes([safe.parent]) == [str(safe)]
    with open_scene(safe) as scene:
        assert [band.name for band in scene.bands] == ["B01", "B02", "B8A"]
        assert [band.name for band in scene.all_bands] == ["B01", "B02", "B8A", "SCL"]
        assert scene.grid.pixel_size == (10.0, 10.0)
        assert [(b.scale, round(b.offset, 6)) for b in scene.bands] == [
            (1e-4, 0.0),
            (1e-4, -0.1),
            (1e-4, -0.05),
        ]
        assert {band.nodata for band in scene.bands} == {0.0}
        pixels, valid = scene.read(Window(40, 40, 64, 64))
        assert valid.all()
        expected = (np.arange(40, 104) + 0.5) * 10
        for band in pixels:  # a plane survives bilinear resampling, from 20 m and 60 m
            assert np.abs(band - expected).max() <= 1
    with open_scene(safe, ["B8A", "SCL"]) as scene:
        assert scene.grid.pixel_size == (20.0, 20.0)
        assert scene.read(Window(0, 0, 4, 4))[0].shape == (2, 4, 4)


def test_a_product_may_be_named_by_its_metadata_file(safe: Path, tmp_path: Path) -> None:
    mtd = safe / "MTD_MSIL2A.xml"
    assert expand_scenes([mtd]) == [str(safe)]
    with open_scene(mtd) as scene:
        assert [band.name for band in scene.bands] == ["B01", "B02", "B8A"]
    (tmp_path / "MTD_MSIL2A.xml").write_text(MTD)  # of no product
    with pytest.raises(SceneError, match="not a raster"):
        open_scene(tmp_path / "MTD_MSIL2A.xml")


def test_a_link_to_a_product_is_a_product(safe: Path) -> None:
    store = safe.rename(safe.parent / "0123abcd")
    safe.symlink_to(store)
    assert expand_scenes([safe]) == [str(safe)]
    with open_scene(safe) as scene:
        assert len(scene.bands) == 3


def test_a_product_without_sense_in_its_metadata_is_refused(safe: Path) -> None:
    (safe / "MTD_MSIL2A.xml").write_text("<broken")
    with pytest.raises(SceneError, match="metadata of the product"):
        open_scene(safe)
    (safe / "MTD_MSIL2A.xml").unlink()
    with open_scene(safe) as scene:
        assert scene.bands[0].scale == 1.0


def test_a_landsat_folder_is_a_scene(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    stem = "LC08_L2SP_016042_20200101_20200823_02_T1"
    for name in ("SR_B2", "SR_B10", "SR_B3", "QA_PIXEL", "ST_B10"):
        write_band(folder / f"{stem}_{name}.TIF", 30, extent=960)
    (folder / f"{stem}_MTL.txt").write_text(MTL)
    assert expand_scenes([folder]) == [str(folder)]
    with open_scene(folder) as scene:
        assert [band.name for band in scene.bands] == ["SR_B2", "SR_B3", "SR_B10"]
        assert (scene.bands[0].scale, scene.bands[0].offset) == (2.75e-05, -0.2)
        assert scene.name == "scene"
    with open_scene(folder, ["QA_PIXEL"]) as scene:
        assert scene.bands[0].nodata is None
    # A second scene in the folder, and it is a folder of rasters again.
    write_band(folder / "LC08_L2SP_016042_20200117_20200823_02_T1_SR_B2.TIF", 30, extent=960)
    assert len(expand_scenes([folder])) == 6
    groups = expand_scenes([folder], stack=True)
    assert [len(group.split("+")) for group in groups] == [5, 1]


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("S2A_MSIL2A_20170613T101031_87_48_B8A.tif", "B8A"),
        ("HLS.S30.T35VLJ.2020.v2.0.B02.tif", "B02"),
        ("LC08_016_20200101_SR_B4.TIF", "SR_B4"),
        ("T16TFM_20220412_B05_20m.jp2", "B05"),
        ("B11.tif", "B11"),
        ("s1_VV.tif", "VV"),
        ("RGB.byte.tif", None),
        ("kampala_2020.tif", None),
    ],
)
def test_bands_by_the_names_of_files(name: str, band: str | None) -> None:
    assert band_name(f"/x/{name}") == band


def test_files_are_put_together_by_their_names() -> None:
    paths = [f"/d/{day}_{band}.tif" for day in ("p1", "p2") for band in ("B8A", "B11", "B08", "VV")]
    groups = stacked([*paths, "/d/mosaic.tif", "/e/p1_B08.tif"])
    names = [[Path(part).name for part in group.split("+")] for group in groups]
    assert names[0] == ["p1_B08.tif", "p1_B8A.tif", "p1_B11.tif", "p1_VV.tif"]
    assert [len(group) for group in names] == [4, 4, 1, 1]
    assert short_name(groups[0]) == "p1"
    assert short_name("/e/B02.tif+/e/B03.tif") == "e"
    assert short_name("/e/x_SR_B2.tif+/e/x_SR_B3.tif") == "x"


def test_what_lies_beside_bands_is_left_out_of_a_stack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """HLS folders hold angles and a mask, those of Sentinel-2 a picture."""
    stem = "HLS.S30.T10TEM.2021001T185731.v2.0"
    for name in ("B02", "B8A", "Fmask", "SAA", "SZA", "VAA", "VZA"):
        write_band(tmp_path / f"{stem}.{name}.tif", 30, 1)
    (found,) = expand_scenes([tmp_path], stack=True)
    assert [Path(part).suffixes[-2] for part in found.split("+")] == [".B02", ".B8A", ".Fmask"]
    assert "left out" in caplog.text
    assert f"{stem}.SAA.tif" in caplog.text
    with open_scene(found) as scene:
        assert [band.name for band in scene.bands] == ["B02", "B8A"]
    with open_scene(found, ["Fmask"]) as scene:
        assert len(scene.bands) == 1
    assert stacked(["/d/T16_2022_B02_10m.jp2", "/d/T16_2022_TCI_10m.jp2"]) == [
        "/d/T16_2022_B02_10m.jp2"
    ]
    assert stacked(["/d/T16_2022_TCI_10m.jp2"]) == ["/d/T16_2022_TCI_10m.jp2"]


def test_masks_join_and_a_missing_file_is_named(tmp_path: Path) -> None:
    write_band(tmp_path / "B02.tif", 10, 7)
    write_band(tmp_path / "B05.tif", 20, 9)
    with rasterio.open(tmp_path / "B05.tif", "r+") as file:
        file.nodata = 0
        file.write(np.zeros((1, 4, 4), np.uint16), window=rasterio.windows.Window(0, 0, 4, 4))
    spec = f"{tmp_path}/B02.tif+{tmp_path}/B05.tif"
    with open_scene(spec) as scene:
        assert isinstance(scene, StackedScene)
        pixels, valid = scene.read(Window(0, 0, 16, 16))
        assert not valid[:8, :8].any()
        assert valid[8:].all()
        assert valid[:, 8:].all()
        assert set(np.unique(pixels[:, valid])) == {7, 9}
        sampled, seen = scene.overview(32)
        assert sampled.shape == (2, *seen.shape)
        assert sampled[1, -1, -1] == 9
    with pytest.raises(NotFoundError, match=r"B09\.tif"):
        open_scene(f"{spec}+{tmp_path}/B09.tif")
    assert band_files(str(tmp_path / "B02.tif")) is None


def test_chips_of_a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in (("B02", 10), ("B03", 10), ("B05", 20)):
        write_band(tmp_path / "scenes" / f"day1_{name}.tif", size)
    arguments = ["scenes", "--stack", "--size", "32", "--val", "0", "--out"]
    for out, more in (("files", []), ("virtual", ["--virtual"])):
        result = CliRunner().invoke(cli, ["chip", *arguments, out, *more])
        assert result.exit_code == 0, result.output
    files, virtual = ChipSet.open("files", "a"), ChipSet.open("virtual", "a")
    assert files.domain.names == ("B02", "B03", "B05")
    assert files.paths[0].name.startswith("day1_")
    for i in range(len(files)):
        assert np.array_equal(files.read(i)[0], virtual.read(i)[0])
    assert not verify_chips(Path("virtual")).damaged
    # A virtual set notices that one of the files has changed.
    write_band(tmp_path / "scenes" / "day1_B05.tif", 20, 1)
    with pytest.raises(ChipsError, match="day1_B05"):
        ChipSet.open("virtual", "a")
    assert "scenes/day1 (3 files)" in CliRunner().invoke(cli, ["info", "files"]).output
    look = CliRunner().invoke(cli, ["info", "scenes/day1_B02.tif+scenes/day1_B05.tif"])
    assert look.exit_code == 0
    assert "B05" in look.output


def test_bands_of_a_stack_by_number(safe: Path, tmp_path: Path) -> None:
    options = ChipOptions(out=tmp_path / "chips", size=32, val=0.0, bands=("2-3",))
    assert chip_scenes([safe], options).record.domain.names == ("B02", "B8A")
