"""Rasters that name other files or hosts: only a VRT that was named by the user is followed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from geocyclegan.errors import SceneError
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

Server = Any
VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Byte" band="1">'
    '<SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)
MRF = (
    '<MRF_META>{}<Raster><Size x="32" y="32" c="1"/><PageSize x="32" y="32" c="1"/>'
    "<DataType>Byte</DataType><Compression>NONE</Compression>{}</Raster></MRF_META>"
)
SECRET = 77


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)


@pytest.fixture(params=["file", "host"])
def secret(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> str:
    """What a raster must not lead to: a raster in another folder, or on a server."""
    folder = server.folder if request.param == "host" else tmp_path / "private"
    folder.mkdir(exist_ok=True)
    plain(folder / "secret.tif", SECRET)
    (folder / "secret.bin").write_bytes(bytes([SECRET]) * 1024)
    if request.param == "host":
        return f"/vsicurl/{server.url('secret.tif')}"
    return str(folder / "secret.tif")


def plain(path: Path, value: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=32, width=32, dtype="uint8"
    ) as out:
        out.write(np.full((1, 32, 32), value, np.uint8))
    return path


def value_of(path: Path) -> float:
    with gdal_env(), Scene(path) as scene:
        scene.overview(8)
        return float(scene.read(Window(0, 0, 32, 32))[0].mean())


def disguised(folder: Path, secret: str) -> Path:
    path = folder / "x.tif"
    path.write_text(VRT.format(secret))
    return path


def overviews_beside(folder: Path, secret: str) -> Path:
    path = plain(folder / "x.tif")
    (folder / "x.tif.ovr").write_text(VRT.format(secret))
    return path


def mask_beside(folder: Path, secret: str) -> Path:
    path = plain(folder / "x.tif")
    (folder / "x.tif.msk").write_text(VRT.format(secret))
    return path


def overviews_told_beside(folder: Path, secret: str) -> Path:
    path = plain(folder / "x.tif")
    item = f'<MDI key="OVERVIEW_FILE">{secret}</MDI>'
    text = f'<PAMDataset><Metadata domain="OVERVIEWS">{item}</Metadata></PAMDataset>'
    (folder / "x.tif.aux.xml").write_text(text)
    return path


def overviews_told_inside(folder: Path, secret: str) -> Path:
    path = plain(folder / "x.tif")
    with rasterio.open(path, "r+") as out:
        out.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=secret)
    return path


def mrf_cache(folder: Path, secret: str) -> Path:
    path = folder / "x.mrf"
    path.write_text(MRF.format(f"<CachedSource><Source>{secret}</Source></CachedSource>", ""))
    return path


def mrf_data(folder: Path, secret: str) -> Path:
    path = folder / "x.mrf"
    path.write_text(MRF.format("", f"<DataFile>{secret.replace('.tif', '.bin')}</DataFile>"))
    path.with_suffix(".idx").write_bytes((0).to_bytes(8, "big") + (1024).to_bytes(8, "big"))
    return path


CRAFTED = [
    disguised,
    overviews_beside,
    mask_beside,
    overviews_told_beside,
    overviews_told_inside,
    mrf_cache,
    mrf_data,
]


@pytest.mark.parametrize("craft", CRAFTED)
def test_what_leads_elsewhere_is_refused(
    craft: Any, secret: str, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    path = craft(folder, secret)
    server.fail("")
    with pytest.raises(SceneError) as raised:
        value_of(path)
    assert "\n" not in str(raised.value)
    assert server.requests() == []


@pytest.mark.parametrize(
    ("driver", "suffix", "part", "options"),
    [
        ("HFA", ".img", ".ige", {"USE_SPILL": "YES"}),
        ("PCIDSK", ".pix", ".001", {"INTERLEAVING": "FILE"}),
    ],
)
def test_pixels_of_another_folder_are_refused(
    driver: str, suffix: str, part: str, options: dict[str, str], tmp_path: Path
) -> None:
    source, folder = plain(tmp_path / "plain.tif", SECRET), tmp_path / "given"
    folder.mkdir()
    path = folder / f"abcdefghij{suffix}"
    copy(source, path, driver=driver, **options)
    assert value_of(path) == SECRET  # as it is written, it opens
    (tmp_path / "q").mkdir()
    shutil.move(path.with_suffix(part), tmp_path / "q" / f"efgh{part}")
    name, other = f"abcdefghij{part}".encode(), f"../q/efgh{part}".encode()
    path.write_bytes(path.read_bytes().replace(name, other.ljust(len(name), b" ")))
    with pytest.raises(SceneError, match=r"it takes pixels or facts from|cannot be read|not a"):
        value_of(path)


def test_a_vrt_that_was_named_is_followed(secret: str, tmp_path: Path) -> None:
    path = tmp_path / "x.vrt"
    path.write_text(VRT.format(secret))
    assert value_of(path) == SECRET


def test_a_vrt_on_a_server_does_not_lead_here(server: Server, tmp_path: Path) -> None:
    here, there = plain(tmp_path / "secret.tif", SECRET), plain(server.folder / "open.tif", 5)
    (server.folder / "bad.vrt").write_text(VRT.format(here))
    with pytest.raises(SceneError, match=r"names .*secret\.tif on this machine"):
        value_of(server.url("bad.vrt"))
    text = VRT.format(there.name).replace('relativeToVRT="0"', 'relativeToVRT="1"')
    (server.folder / "good.vrt").write_text(text)
    assert value_of(server.url("good.vrt")) == 5


def test_what_lies_beside_a_raster_stays_welcome(tmp_path: Path) -> None:
    """Overviews, masks and facts that are what they say."""
    path = plain(tmp_path / "x.tif", 9)
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False):
        with rasterio.open(path, "r+") as out:
            out.write_mask(np.full((32, 32), 255, np.uint8))
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2])
    copy(path, tmp_path / "x.mrf", driver="MRF")
    copy(path, tmp_path / "x.img", driver="HFA", USE_SPILL="YES")
    assert (tmp_path / "x.tif.ovr").exists()
    assert (tmp_path / "x.tif.msk").exists()
    for name in ("x.tif", "x.mrf", "x.img"):
        assert value_of(tmp_path / name) == 9
    (tmp_path / "links").mkdir()
    for child in list(tmp_path.glob("x.*")):
        (tmp_path / "links" / child.name).symlink_to(child)
    assert value_of(tmp_path / "links" / "x.tif") == 9
