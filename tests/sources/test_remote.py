"""Scenes on servers: faults that pass leave no trace, those that stay end in one line.

The server is a real one (`faulty_server.py`), the files are parts of the bundled samples.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.env import get_gdal_config
from rasterio.shutil import copy

from geocyclegan import samples
from geocyclegan.errors import NotFoundError, SceneError, ServerError
from geocyclegan.raster import remote
from geocyclegan.raster.opening import gdal_env, require_unchanged
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

Server = Any
FAULTS = ("503", "drop", "short", "html", "whole")
Seen = tuple[npt.NDArray[Any], npt.NDArray[np.bool_], object]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries as users set them; GDAL's threads tell errors of JPEG 2000 on standard error."""
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)


def crop(path: Path, side: int = 256, bands: int = 3, **profile: Any) -> Path:
    """Write a part of a bundled scene, tiled, so that windows are requests of their own."""
    with rasterio.open(samples.path("landsat_1985")) as scene:
        pixels = np.maximum(scene.read(range(1, bands + 1))[:, :side, :side], 1)
        given = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        settings = scene.profile | {"count": bands, "height": side, "width": side, "nodata": None}
    with rasterio.open(path, "w", **settings | given | profile) as out:
        out.write(pixels)
    return path


def see(path: str | Path) -> Seen:
    with gdal_env(), Scene(path) as scene:
        return *scene.read(Window(0, 0, *scene.grid.shape)), (scene.grid, scene.bands)


def forget(server: Server, name: str) -> None:
    """Have GDAL drop what it keeps of a file, and of what lies beside it."""
    server.fail("")
    with remote.forgetful(), gdal_env(), Scene(server.url(name)) as scene:
        scene.read(Window(0, 0, *scene.grid.shape))
    remote._known.clear()


def same(ours: Seen, theirs: Seen) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True)) and (
        ours[2] == theirs[2]
    )


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("kind", FAULTS)
def test_what_passes_leaves_no_trace(server: Server, kind: str, first: int) -> None:
    local = crop(server.folder / "scene.tif")
    server.fail(kind, name="scene.tif", first=first, count=1)
    assert same(see(server.url("scene.tif")), see(local))


@pytest.mark.parametrize("kind", ["503", "drop", "short", "html", "hang"])
def test_what_stays_names_file_and_window(server: Server, kind: str) -> None:
    crop(server.folder / "scene.tif")
    url = server.url("scene.tif")
    with gdal_env(), Scene(url) as scene:
        server.fail(kind, name="scene.tif")
        begun = time.monotonic()
        with pytest.raises(ServerError) as raised:
            scene.read(Window(64, 0, 128, 64))
    line = str(raised.value)
    assert line.startswith(f"{url}: pixels in rows 64-191, columns 0-63 cannot be read")
    assert "\n" not in line
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("503", "its server answers HTTP 503"),
        ("html", "its server sends a page of HTML"),
        ("hang", "its server gives no answer"),
    ],
)
def test_what_cannot_be_opened_says_why(
    server: Server, kind: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_HEAD_TIMEOUT", 0.2)
    crop(server.folder / "scene.tif")
    server.fail(kind, name="scene.tif", methods=["GET"])
    with pytest.raises(ServerError, match=told):
        see(server.url("scene.tif"))


def test_what_is_not_there_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "3")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "60")
    with pytest.raises(NotFoundError, match="no such file on its server"):
        see(server.url("scene.tif"))


def test_a_mask_is_not_lost(server: Server) -> None:
    """GDAL takes what it cannot ask for as not being there."""
    valid = np.ones((256, 256), np.uint8) * 255
    valid[50:200, 10:100] = 0
    for name, inside in (("inside.tif", True), ("beside.tif", False)):
        crop(server.folder / name)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
            rasterio.open(server.folder / name, "r+") as scene,
        ):
            scene.write_mask(valid)
    assert (server.folder / "beside.tif.msk").exists()
    for name, asked, method, first in (
        ("inside.tif", "inside.tif", "GET", 1),
        ("beside.tif", "beside.tif.msk", "HEAD", 0),
        ("beside.tif", "beside.tif.msk", "GET", 0),
    ):
        local = see(server.folder / name)
        assert np.array_equal(local[1], valid > 0)
        # As many as exhaust GDAL's own retries.
        server.fail("503", name=asked, methods=[method], first=first, count=2)
        assert same(see(server.url(name)), local), (name, method)
        forget(server, name)


# Each of `remote.HONEST_DRIVERS`, and what writes a small file of it.
WRITERS = {
    "GTiff": ("x.tif", {"TILED": "YES"}),
    "JP2OpenJPEG": ("x.jp2", {"BLOCKXSIZE": "128", "BLOCKYSIZE": "128", "REVERSIBLE": "YES"}),
    "JPEG": ("x.jpg", {}),
    "NITF": ("x.ntf", {}),
    "PNG": ("x.png", {}),
    "WEBP": ("x.webp", {"LOSSLESS": "YES"}),
}


@pytest.mark.parametrize("driver", sorted(remote.HONEST_DRIVERS - {"VRT"}))
@pytest.mark.parametrize("kind", ["drop", "503"])
def test_missing_bytes_are_never_pixels(
    server: Server, driver: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    name, options = WRITERS[driver]
    plain = crop(tmp_path / "plain.tif", bands=1 if driver == "NITF" else 3, tiled=False)
    copy(plain, server.folder / name, driver=driver, **options)
    local = see(server.folder / name)
    server.fail("")
    assert same(see(server.url(name)), local)
    asked = [line for line in server.requests() if line.startswith(f"GET /{name}")]
    for first in sorted({0, 1, 2, len(asked) - 1}):
        for count in (1, 1 << 30):
            forget(server, name)
            server.fail(kind, name=name, first=first, count=count)
            try:
                found = see(server.url(name))
            except SceneError:
                continue
            assert same(found, local), (first, count)


def test_files_whose_missing_bytes_would_be_pixels_are_refused(
    server: Server, tmp_path: Path
) -> None:
    copy(crop(tmp_path / "plain.tif"), server.folder / "x.img", driver="HFA")
    with pytest.raises(SceneError, match=r"HFA files are read from disks only.*fetch it"):
        see(server.url("x.img"))


def test_a_file_that_is_replaced_is_noticed(server: Server) -> None:
    """By its header; one that is laid out alike, as uncompressed ones are, by its ETag."""
    for compress in ("deflate", "none"):
        name = f"{compress}.tif"
        crop(server.folder / name, compress=compress)
        with rasterio.open(server.folder / name) as scene:
            profile, pixels = scene.profile, scene.read()
        with rasterio.open(server.folder / f"{name}.other", "w", **profile) as scene:
            scene.write(pixels[::-1] // 2)
        url = server.url(name)
        see(url)
        require_unchanged([url])
        server.fail("other", name=name, methods=["GET", "HEAD"])
        with pytest.raises(ServerError, match="it was replaced on its server"):
            require_unchanged([url])


def test_what_users_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDAL_HTTP_LOW_SPEED_TIME")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "7")
    with rasterio.Env(GDAL_HTTP_RETRY_DELAY="2.5"), gdal_env(), gdal_env():
        assert get_gdal_config("GDAL_HTTP_MAX_RETRY") == 7
        assert get_gdal_config("GDAL_HTTP_RETRY_DELAY", normalize=False) == "2.5"
        assert get_gdal_config("GDAL_HTTP_LOW_SPEED_TIME") == 20
        assert get_gdal_config("GDAL_HTTP_CONNECTTIMEOUT") == 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://host/x.tif", True),
        ("s3://bucket/x.tif", True),
        ("zip+https://host/x.zip!x.tif", True),
        ("/vsizip//vsicurl/https://host/x.zip/x.tif", True),
        ("/vsicurl?url=https://host/x.tif", True),
        ("/vsis3_streaming/bucket/x.tif", True),
        ('NETCDF:"/vsicurl/https://host/x.nc":t', True),
        ("/vsizip/x.zip/x.tif", False),
        ("zip://x.zip!x.tif", False),
        ("/data/https/x.tif", False),
        ("x.tif", False),
    ],
)
def test_what_is_remote(name: str, expected: bool) -> None:
    assert remote.is_remote(name) is expected
