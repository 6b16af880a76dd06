"""Scenes: masks of every kind, bands by name, exotic grids, and refusals in one line."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geocyclegan import samples
from geocyclegan.errors import NotFoundError, OptionError, SceneError
from geocyclegan.raster.bands import bands_for
from geocyclegan.raster.domain import BandInfo, Domain, mapped_bands, shared_bands
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sources import expand_scenes
from geocyclegan.raster.windows import Window

MakeRaster = Any
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 200, (3, 20, 30)).astype(np.uint8)
ALL = Window(0, 0, 20, 30)


def test_reads_windows_beyond_the_scene_padded_and_invalid(make_raster: MakeRaster) -> None:
    with Scene(make_raster("a.tif", PIXELS)) as scene:
        pixels, valid = scene.read(Window(-3, 25, 10, 10))
    assert pixels.shape == (3, 10, 10)
    assert valid.sum() == 7 * 5
    np.testing.assert_array_equal(pixels[:, 3:, :5], PIXELS[:, :7, 25:])
    assert not valid[:3].any()
    assert not valid[:, 5:].any()


def test_nodata_in_any_band_invalidates_the_pixel(make_raster: MakeRaster) -> None:
    pixels = PIXELS.copy()
    pixels[1, 4, 5] = 0
    with Scene(make_raster("a.tif", pixels, nodata=0)) as scene:
        _, valid = scene.read(ALL)
        assert scene.may_have_invalid
    assert not valid[4, 5]
    assert valid.sum() == 20 * 30 - 1


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, None])
def test_float_nodata_and_undeclared_nan(make_raster: MakeRaster, nodata: float | None) -> None:
    pixels = RNG.normal(size=(2, 20, 30)).astype(np.float32)
    pixels[0, 0, :3] = np.nan
    pixels[1, 2, 2] = np.inf
    if nodata is not None and np.isfinite(nodata):
        pixels[:, 7, 7] = nodata
    with Scene(make_raster("a.tif", pixels, nodata=nodata)) as scene:
        _, valid = scene.read(ALL)
    bad = np.asarray(~np.isfinite(pixels).all(axis=0))
    if nodata is not None and np.isfinite(nodata):
        bad[7, 7] = True
    np.testing.assert_array_equal(valid, ~bad)


def test_internal_mask_and_nodata_together(make_raster: MakeRaster) -> None:
    mask = np.ones((20, 30), bool)
    mask[:5] = False
    pixels = PIXELS.copy()
    pixels[:, 10, 10] = 0
    with Scene(make_raster("a.tif", pixels, mask=mask, nodata=0)) as scene:
        _, valid = scene.read(ALL)
    mask[10, 10] = False
    np.testing.assert_array_equal(valid, mask)


def test_alpha_is_a_mask_and_no_band(make_raster: MakeRaster) -> None:
    rgba = np.concatenate([PIXELS, np.full((1, 20, 30), 255, np.uint8)])
    rgba[3, :, :4] = 0
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    with Scene(make_raster("a.tif", rgba, colors=colors)) as scene:
        pixels, valid = scene.read(ALL)
        assert [band.name for band in scene.bands] == ["red", "green", "blue"]
    assert pixels.shape[0] == 3
    assert not valid[:, :4].any()
    assert valid[:, 4:].all()


def test_a_band_mislabelled_as_alpha_is_data_when_named(make_raster: MakeRaster) -> None:
    four = np.concatenate([PIXELS, np.zeros((1, 20, 30), np.uint8)])
    with Scene(make_raster("a.tif", four, photometric="RGB"), ["1-4"]) as scene:
        pixels, valid = scene.read(ALL)
    np.testing.assert_array_equal(pixels, four)
    assert valid.all()


def test_bands_by_number_range_and_name(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", PIXELS, names=("B02", "B03", "B04"))
    with Scene(path, ["b04", "1-2"]) as scene:
        assert [band.index for band in scene.bands] == [3, 1, 2]
        pixels, _ = scene.read(ALL)
    np.testing.assert_array_equal(pixels, PIXELS[[2, 0, 1]])


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["4"], "bands 1 to 3"),
        (["B11"], "B02, B03, B04"),
        (["0"], "1 to 3"),
        (["1", "B02"], "twice"),
    ],
)
def test_bands_that_do_not_exist(make_raster: MakeRaster, bands: list[str], message: str) -> None:
    path = make_raster("a.tif", PIXELS, names=("B02", "B03", "B04"))
    with pytest.raises(OptionError, match=message):
        Scene(path, bands)


def domain(*names: str | None) -> Domain:
    scaling = BandScaling("linear", (0.0, 1.0), (-1.0, 1.0))
    return Domain(tuple(BandInfo(scaling, name) for name in names), "uint8")


def test_a_model_finds_its_bands_by_name_or_by_order(make_raster: MakeRaster) -> None:
    with Scene(make_raster("a.tif", PIXELS, names=("B02", "B03", "B04"))) as scene:
        assert bands_for(domain("B04", "B02"), scene.all_bands, scene.path) == [3, 1]
        with pytest.raises(SceneError, match=r"wants 2 bands \(VV, VH\).*has 3 \(B02, B03, B04\)"):
            bands_for(domain("VV", "VH"), scene.all_bands, scene.path)
        with pytest.raises(SceneError, match="wants 3 bands"):
            bands_for(domain("SWIR1", "NIR", "red"), scene.all_bands, scene.path)
    with Scene(make_raster("b.tif", PIXELS, photometric="MINISBLACK")) as scene:
        assert bands_for(domain("SWIR1", "NIR", "red"), scene.all_bands, scene.path) == [
            1,
            2,
            3,
        ]
        with pytest.raises(SceneError, match="wants 1 band "):
            bands_for(domain(None), scene.all_bands, scene.path)


def test_where_some_bands_have_no_name_order_decides(make_raster: MakeRaster) -> None:
    four = np.concatenate([PIXELS, PIXELS[:1]])
    # A near infrared band that nobody described, beside red, green and blue.
    with Scene(make_raster("naip.tif", four, photometric="RGB", alpha="NO")) as scene:
        assert bands_for(domain("red", "green", "blue", None), scene.all_bands, "naip") == [
            *(1, 2, 3, 4)
        ]
        for names in (("green", "red", "blue", None), ("red", "green", None, "blue")):
            with pytest.raises(SceneError, match="wants 4 bands"):
                bands_for(domain(*names), scene.all_bands, "naip")


def test_a_name_that_several_bands_have_says_nothing(make_raster: MakeRaster) -> None:
    names = ("B04", "B04", "B03")
    with Scene(make_raster("dates.tif", PIXELS, names=names)) as scene:
        assert bands_for(domain(*names), scene.all_bands, "dates") == [1, 2, 3]
        with pytest.raises(SceneError, match="wants 2 bands"):
            bands_for(domain("B04", "B03"), scene.all_bands, "dates")
    with pytest.raises(OptionError, match=r"2 bands of that name \(1, 2\); choose by number"):
        Scene(make_raster("dates.tif", PIXELS, names=names), ["b04"])


def test_data_marked_as_alpha_is_pointed_at(make_raster: MakeRaster) -> None:
    four = np.concatenate([PIXELS, PIXELS[:1]])
    with (
        Scene(make_raster("rgba.tif", four, photometric="RGB", alpha="YES")) as scene,
        pytest.raises(SceneError, match=r"its band 4 is marked as alpha.*--bands"),
    ):
        bands_for(domain("red", "green", "blue", None), scene.all_bands, scene.path)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 5e5, 0, 10, 4e6),  # south-up
        Affine(7, -7, 5e5, 7, 7, 4e6),  # rotated
        Affine.identity(),
    ],
)
def test_exotic_grids_are_read_as_they_are(make_raster: MakeRaster, transform: Affine) -> None:
    crs = None if transform == Affine.identity() else "EPSG:32630"
    with Scene(make_raster("a.tif", PIXELS, transform=transform, crs=crs)) as scene:
        assert scene.grid.transform == transform
        pixels, valid = scene.read(ALL)
    np.testing.assert_array_equal(pixels, PIXELS)
    assert valid.all()


def test_complex_pixels_need_a_word(make_raster: MakeRaster) -> None:
    values = (RNG.normal(size=(1, 8, 8)) + 1j * RNG.normal(size=(1, 8, 8))).astype(np.complex64)
    path = make_raster("slc.tif", values)
    with pytest.raises(SceneError, match="--scale db"):
        Scene(path)
    with Scene(path, amplitude=True) as scene:
        pixels, _ = scene.read(Window(0, 0, 8, 8))
        assert scene.dtype == "float32"
    np.testing.assert_allclose(pixels, np.abs(values), rtol=1e-6)


def test_a_palette_is_refused_with_its_remedy(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster("map.tif", PIXELS[:1], photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    with pytest.raises(SceneError, match="gdal_translate -expand rgb"):
        Scene(path)


def test_gcp_and_rpc_scenes_name_the_command(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = tmp_path / "gcp.tif"
    points = [GroundControlPoint(r, c, 10.0 * c, 50.0 - r) for r, c in ((0, 0), (0, 9), (9, 0))]
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=10, width=10, dtype="uint8"
    ) as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        dataset.write(np.ones((1, 10, 10), np.uint8))
    with pytest.raises(SceneError, match=r"points and no transform.*gdalwarp "):
        Scene(path)


def test_names_that_are_numbers(make_raster: MakeRaster) -> None:
    """As Landsat's bands 2, 1 may be called; numbers within the program are those of bands."""
    values = np.stack([np.full((8, 8), i, np.uint8) for i in (10, 20, 30)])
    path = make_raster("a.tif", values, names=("2", "1", "5"))
    with Scene(path, ["2", "5"]) as scene:  # as a user means it
        assert [band.index for band in scene.bands] == [1, 3]
    with Scene(path, [2, 1]) as scene:
        assert [band.index for band in scene.bands] == [2, 1]
        chosen = bands_for(domain_of("1", "2"), scene.all_bands, "a.tif")
    assert chosen == [2, 1]
    with Scene(path, chosen) as scene:
        assert scene.read(Window(0, 0, 1, 1))[0].ravel().tolist() == [20, 10]
    with pytest.raises(OptionError, match="bands 1 to 3"):
        Scene(path, [4])


def domain_of(*names: str) -> Domain:
    scaling = BandScaling("linear", (0.0, 1.0), (-1.0, 1.0))
    return Domain(tuple(BandInfo(scaling, name) for name in names), "uint8")


def test_bands_of_several_types(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.random.default_rng(0).integers(1, 60_000, (2, 20, 30)).astype(np.uint16)
    make_raster("a.tif", values)
    band = (
        '<VRTRasterBand dataType="{kind}" band="{n}"><NoDataValue>{n}</NoDataValue><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{n}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
    )
    path = tmp_path / "mixed.vrt"
    for kind, wanted in (("Float32", "float32"), ("Int32", "int32"), ("Float64", "float64")):
        bands = band.format(kind="UInt16", n=1) + band.format(kind=kind, n=2)
        path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')
        with Scene(path) as scene:
            assert scene.dtype == wanted
            pixels, valid = scene.read(Window(-2, 3, 10, 40))
            assert pixels.dtype == wanted
            assert np.array_equal(pixels[0, 2:, :27], values[0, :8, 3:])
            assert np.array_equal(pixels[1, 2:, :27], values[1, :8, 3:])
            assert valid.sum() <= 8 * 27
            assert scene.overview(10)[0].shape == (2, 6, 10)


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 3.0), (math.nan, 0.0), (1.0, math.inf), (-math.inf, 0.0)]
)
def test_scales_that_lose_every_number_are_left_out(
    make_raster: MakeRaster, caplog: pytest.LogCaptureFixture, scale: float, offset: float
) -> None:
    path = make_raster("a.tif", np.ones((1, 8, 8), np.uint8))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,), (offset,)
    for _ in range(2):
        with Scene(path) as scene:
            assert (scene.bands[0].scale, scene.bands[0].offset) == (1.0, 0.0)
    assert caplog.text.count("makes nothing of") == 1


def test_a_transform_that_places_nothing_is_refused(make_raster: MakeRaster) -> None:
    for transform in (Affine(math.nan, 0, 0, 0, -10, 0), Affine(10, 10, 5e5, 10, 10, 4e6)):
        path = make_raster("a.tif", np.ones((1, 8, 8), np.uint8), transform=transform)
        with pytest.raises(SceneError, match=r"gives its pixels no place.*-unsetgt") as told:
            Scene(path)
        assert len(str(told.value).splitlines()) == 1


def test_files_that_are_no_rasters(tmp_path: Path, make_raster: MakeRaster) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        Scene(tmp_path / "nothing.tif")
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(SceneError, match="not a raster"):
        Scene(tmp_path / "text.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(SceneError, match="empty"):
        Scene(tmp_path / "empty.tif")
    with pytest.raises(SceneError, match="a folder"):
        Scene(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(SceneError, match="a pipe or device"):
        Scene(tmp_path / "pipe.tif")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("scene.zip", "/vsizip//"),
        ("scene.tar.gz", "/vsitar//"),
        ("scene.tif.gz", "/vsigzip//"),
        ("scene.gpkg", "gdal_translate"),
    ],
)
def test_what_to_do_about_files_that_hold_a_raster(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(b"no raster")
    with pytest.raises(SceneError) as caught:
        Scene(tmp_path / name)
    assert remedy in str(caught.value)


def test_the_mask_beside_a_link_counts(make_raster: MakeRaster, tmp_path: Path) -> None:
    stored = make_raster("store/0123", PIXELS, photometric="MINISBLACK")
    mask = np.zeros((1, *PIXELS.shape[1:]), np.uint8)
    mask[0, 0] = 255
    stored_mask = make_raster("store/4567", mask, tags={"INTERNAL_MASK_FLAGS_1": "2"})
    (tmp_path / "scene.tif").symlink_to(stored)
    (tmp_path / "scene.tif.msk").symlink_to(stored_mask)
    (named,) = expand_scenes([tmp_path / "scene.tif"])
    with Scene(named) as scene:
        _, valid = scene.read(Window(0, 0, *scene.grid.shape))
    assert valid[0].all()
    assert not valid[1:].any()


def test_a_truncated_file_opens_and_fails_in_one_line(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    noise = RNG.integers(0, 255, (1, 512, 512)).astype(np.uint8)
    whole = make_raster("a.tif", noise, tiled=True, blockxsize=256, blockysize=256)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[:100_000])

    def read_all() -> None:
        with Scene(cut) as scene:
            scene.read(Window(0, 0, 512, 512))

    with pytest.raises(SceneError, match="read") as caught:
        read_all()
    assert "\n" not in str(caught.value)


def test_a_vrt_hides_behind_no_other_name(make_raster: MakeRaster, tmp_path: Path) -> None:
    make_raster("a.tif", PIXELS)
    text = (
        '<VRTDataset rasterXSize="30" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "named.vrt").write_text(text)
    (tmp_path / "hidden.tif").write_text(text)
    with Scene(tmp_path / "named.vrt") as scene:
        np.testing.assert_array_equal(scene.read(ALL)[0][0], PIXELS[0])
    with pytest.raises(SceneError, match="not a raster"):
        Scene(tmp_path / "hidden.tif")


def test_undeclared_nan_is_masked_and_said_once(
    make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.ones((1, 20, 30), np.float32)
    pixels[0, 3:6] = np.nan
    with caplog.at_level("WARNING"), Scene(make_raster("a.tif", pixels)) as scene:
        for _ in range(2):
            assert scene.read(ALL)[1].sum() == 17 * 30
    assert caplog.text.count("not finite") == 1
    caplog.clear()
    declared = make_raster("b.tif", pixels, nodata=np.nan)
    with caplog.at_level("WARNING"), Scene(declared) as scene:
        scene.read(ALL)
    assert not caplog.text


@pytest.mark.parametrize("name", samples.NAMES)
def test_samples_open_and_name_their_bands(name: str) -> None:
    with Scene(samples.path(name)) as scene:
        assert all(band.name for band in scene.all_bands)
        assert scene.bands == scene.all_bands
        assert scene.grid.crs is not None
        _, valid = scene.read(Window(0, 0, *scene.grid.shape))
        assert valid.mean() > 0.99


def test_a_truncated_png_is_an_error_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    pixels = np.random.default_rng(0).integers(1, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:6000])
    with Scene(path) as scene, pytest.raises(SceneError, match="cannot be read"):
        scene.read(Window(0, 0, 64, 64))


@pytest.mark.parametrize("count", [3, 5])
def test_alpha_masks_in_files_of_any_band_count(tmp_path: Path, count: int) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.full((count, 8, 8), 9, np.uint8)
    pixels[-1, :4] = 0
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": count, "dtype": "uint8"}
    with rasterio.open(path, "w", photometric="MINISBLACK", **profile) as scene:
        scene.write(pixels)
    with rasterio.open(path, "r+") as scene:
        scene.colorinterp = [*scene.colorinterp[:-1], ColorInterp.alpha]
    with Scene(path) as opened:
        assert opened.may_have_invalid
        assert np.array_equal(opened.read(Window(0, 0, 8, 8))[1], pixels[-1] > 0)


def test_a_header_with_absurdly_many_bands_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bands.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=64,
        height=64,
        count=1500,
        dtype="uint8",
        SPARSE_OK=True,
        interleave="pixel",
    ):
        pass
    monkeypatch.setattr("geocyclegan.raster.scene.LARGEST_BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("geocyclegan.raster.scene.describe_bands", lambda dataset: 1 / 0)
    with pytest.raises(SceneError, match="1500 bands"):
        Scene(path)


def test_spellings_of_a_name_are_one_band(make_raster: MakeRaster) -> None:
    with Scene(make_raster("rgb.tif", PIXELS, names=("Red", "GREEN", "blue "))) as scene:
        assert bands_for(domain("blue", "green", "red"), scene.all_bands, "rgb") == [3, 2, 1]
        assert scene.all_bands[2].name == "blue"
    path = make_raster("s2.tif", PIXELS, names=("B2", "B3", "B8A"))
    with Scene(path) as scene:
        assert bands_for(domain("B8A", "B02"), scene.all_bands, "s2") == [3, 1]
        with pytest.raises(SceneError, match="wants 1 band"):
            bands_for(domain("B08"), scene.all_bands, "s2")
    with Scene(path, ["b03", "b8a"]) as scene:
        assert [band.index for band in scene.bands] == [2, 3]


def test_spellings_that_several_bands_share_are_refused(make_raster: MakeRaster) -> None:
    path = make_raster("both.tif", PIXELS, names=("B2", "B02", "B3"))
    with Scene(path, ["B02"]) as scene:  # its very letters
        assert [band.index for band in scene.bands] == [2]
        with pytest.raises(SceneError, match="wants 1 band"):
            bands_for(domain("B002"), scene.all_bands, "both")
    with pytest.raises(OptionError, match=r"2 bands of that name \(1, 2\); choose by number"):
        Scene(path, ["B002"])
    assert shared_bands(domain("B2", "B02", "B3"), domain("B02", "B03")) == ((2, 1),)
    with pytest.raises(ValueError, match="A has 2 bands that B002 may be; name them by number"):
        mapped_bands("B002=B3", domain("B2", "B02"), domain("B3"))
    assert mapped_bands("B02=b03", domain("B2", "B4"), domain("B3")) == ((0, 0),)
