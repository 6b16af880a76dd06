from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geocyclegan.errors import NotFoundError
from geocyclegan.raster.bandfiles import short_name
from geocyclegan.raster.sources import expand_scenes as expand


def test_files_globs_and_folders(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIF", "a.tif.aux.xml", "a.tif.ovr", "a.tfw", ".hidden.tif", "x.vrt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.tif").touch()
    a, b = str(tmp_path / "a.TIF"), str(tmp_path / "b.tif")
    assert expand([tmp_path]) == [a, b]
    assert expand([b, tmp_path, str(tmp_path / "*.tif")]) == [b, a]
    assert expand([str(tmp_path / "**" / "c.*")]) == [str(tmp_path / "deeper" / "c.tif")]
    assert expand([tmp_path / "x.vrt"]) == [str(tmp_path / "x.vrt")]
    assert expand(["https://host/x.tif", "NETCDF:file.nc:t"]) == [
        "https://host/x.tif",
        "NETCDF:file.nc:t",
    ]


def test_the_same_file_by_another_name_is_the_same_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "link.tif").symlink_to("a.tif")
    monkeypatch.chdir(tmp_path)
    assert expand(["a.tif", "./a.tif", "link.tif", tmp_path / "a.tif"]) == [str(tmp_path / "a.tif")]


@pytest.mark.parametrize("item", ["none.tif", "none*.tif", "empty"])
def test_nothing_there(tmp_path: Path, item: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"none|empty"):
        expand([tmp_path / item])


def test_a_link_to_a_file_keeps_its_name_and_what_lies_beside_it(tmp_path: Path) -> None:
    """As git-annex and DVC lay files out: each content in a store, under a hash."""
    store, folder = tmp_path / "store", tmp_path / "scenes"
    store.mkdir()
    folder.mkdir()
    (store / "SHA256E-s42--0123").touch()
    (folder / "rome.tif").symlink_to(store / "SHA256E-s42--0123")
    (tmp_path / "way").symlink_to(folder)
    assert expand([folder]) == expand([tmp_path / "way" / "rome.tif"]) == [str(folder / "rome.tif")]
    (folder / "oslo.tif").symlink_to(store / "not_fetched")
    for item in (folder, folder / "oslo.tif"):
        with pytest.raises(NotFoundError, match=r"oslo.tif: a link to .*not_fetched, which is not"):
            expand([item])


def test_files_beside_scenes_may_be_named_twice(tmp_path: Path) -> None:
    (tmp_path / "mask.tif").touch()
    mask = str(tmp_path / "mask.tif")
    assert expand([mask, mask]) == [mask]
    assert expand([mask, mask], repeats=True) == [mask, mask]


def test_a_sub_dataset_of_a_file_here_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.nc").touch()
    monkeypatch.chdir(tmp_path)
    assert expand(["NETCDF:file.nc:t", 'HDF5:"file.nc"://g/v']) == [
        f"NETCDF:{tmp_path}/file.nc:t",
        f'HDF5:"{tmp_path}/file.nc"://g/v',
    ]


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="empty text"):
        expand([""])


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ('NETCDF:"/data/era5.nc":t2m', "era5_t2m"),
        ("netcdf:/data/era5.nc:t2m", "era5_t2m"),
        ("HDF5:/data/x.h5://group/band", "x_group_band"),
        ('HDF4_EOS:EOS_GRID:"MOD13.A2020.hdf":grid:1 km NDVI', "MOD13.A2020_grid_1_km_NDVI"),
        ("SENTINEL2_L2A:/s2/MTD_MSIL2A.xml:10m:EPSG_32630", "MTD_MSIL2A_10m_EPSG_32630"),
        (r"NETCDF:C:\data\era5.nc:t2m", "era5_t2m"),
        ("GTIFF_DIR:2:/data/pages.tif", "pages_2"),
        ("https://host/x.tif", "x"),
        ("/data/plain.tif", "plain"),
    ],
)
def test_short_names(scene: str, name: str) -> None:
    assert short_name(scene) == name


@pytest.fixture
def scenes(make_raster: Any, tmp_path: Path) -> tuple[str, str]:
    """An acquisition, and a product beside it."""
    pixels = np.ones((1, 8, 8), np.uint8)
    real = make_raster("p.tif", pixels)
    made = make_raster("p_a2b.tif", pixels, tags={"SYNTHETIC": "YES"})
    make_raster("products/q_a2b.tif", pixels, tags={"SYNTHETIC": "YES"})
    return str(real), str(made)


@pytest.mark.parametrize("item", ["", "*.tif"])
def test_synthetic_scenes_are_not_found(
    scenes: tuple[str, str], tmp_path: Path, item: str, caplog: pytest.LogCaptureFixture
) -> None:
    real, made = scenes
    where = tmp_path / item
    assert expand([where], synthetic="named") == expand([where], synthetic="alone") == [real]
    (line, _) = caplog.messages
    assert line == (
        f"{where}: left out what is synthetic (SYNTHETIC=YES) and no acquisition: p_a2b.tif"
    )
    with pytest.raises(NotFoundError, match=r"all 1 rasters there are synthetic.*q_a2b.tif"):
        expand([tmp_path / "products" / item], synthetic="alone")
    assert expand([where]) == [real, made]  # of masks and the like


def test_synthetic_scenes_can_be_named(
    scenes: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    real, made = scenes
    assert expand([made], synthetic="alone") == [made]
    assert "taken since it is named: p_a2b.tif" in caplog.messages[-1]
    assert expand([real, made], synthetic="named") == [real, made]
    assert "taken since it is named: p_a2b.tif" in caplog.messages[-1]
    # As a shell writes out *.tif.
    assert expand([real, made], synthetic="alone") == [real]
    assert "left out" in caplog.messages[-1]
    assert "name it in a command of its own" in caplog.messages[-1]
    assert len(caplog.messages) == 3
    assert expand([real], synthetic="alone") == [real]
    assert len(caplog.messages) == 3
