"""Scenes to products: an identity model gives back every real scene, and bad input is one line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import Tensor

from geocyclegan import samples
from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.device import choose_device
from geocyclegan.errors import OptionError, OutputError, SceneError
from geocyclegan.inference.adapted import Adapted
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.fitting import open_scene
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene, write_product
from geocyclegan.models.dense import At
from geocyclegan.models.generator import Generator
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling, ScaleSpec, fit_scaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sketch import BandSketch
from geocyclegan.raster.windows import Window

MakeRaster = Any


class Identity(Generator):
    """A generator that returns its input, with the tiling of a ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, [])
        self.stride, self.halo, self.min_size = 4, 60, 8

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        return x


def domain_of(scene: Scene, scale: str = "auto") -> Domain:
    pixels, valid = scene.read(Window(0, 0, *scene.grid.shape))
    bands = []
    for band, values in zip(scene.bands, pixels, strict=True):
        sketch = BandSketch(values.dtype.name)
        sketch.update(values[valid])
        scaling = fit_scaling(ScaleSpec.parse(scale), sketch, band.label)
        bands.append(BandInfo(scaling, band.name, band.unit, band.scale, band.offset, band.color))
    return Domain(tuple(bands), scene.dtype, scene.nodata, scene.grid.gsd)


def identity_bundle(domain: Domain) -> Bundle:
    return Bundle(
        folder=Path("identity"),
        method="identity",
        generators={},
        domains={"a": domain, "b": domain},
        normalization={},
        tile=256,
        training={},
        weights_sha256="0" * 64,
        created_by="test",
    )


def run_identity(path: Path, out: Path, tile: int | None = None) -> None:
    with Scene(path) as scene:
        domain = domain_of(scene)
        network = Identity(domain.count)
        options = TranslateOptions(engine=EngineOptions(tile=tile))
        write_product(scene, network, identity_bundle(domain), out, options)


def assert_same(path: Path, product: Path) -> None:
    """The product is the scene to within half a quantum, on the same grid, with the same mask."""
    with Scene(path) as scene, rasterio.open(product) as done, rasterio.open(path) as raw:
        pixels, valid = scene.read(Window(0, 0, *scene.grid.shape))
        assert done.transform == raw.transform
        assert done.crs == raw.crs
        assert done.shape == raw.shape
        np.testing.assert_array_equal(done.dataset_mask() > 0, valid)
        ours = done.read()[:, valid]
        theirs = pixels[:, valid]
        if pixels.dtype.kind == "f":
            reach = max(float(np.ptp(theirs)), 1.0)
            np.testing.assert_allclose(ours, theirs, atol=2e-6 * reach, rtol=1e-5)
        else:
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("tile", [None, 128])
@pytest.mark.parametrize("name", samples.NAMES)
def test_an_identity_returns_every_sample_scene(
    tmp_path: Path, name: str, tile: int | None
) -> None:
    run_identity(samples.path(name), tmp_path / "p.tif", tile)
    assert_same(samples.path(name), tmp_path / "p.tif")
    with Scene(samples.path(name)) as scene, Scene(tmp_path / "p.tif") as done:
        assert [b.name for b in done.bands] == [b.name for b in scene.bands]
        assert [b.unit for b in done.bands] == [b.unit for b in scene.bands]
        assert done.dtype == scene.dtype


def test_an_identity_returns_the_developers_scenes(tmp_path: Path, shared_data: Path) -> None:
    patterns = ("1_sar_optical/*stack*/*.tif", "4_multispectral/**/*.tif", "5_hard_inputs/**/*.tif")
    paths = sorted(path for pattern in patterns for path in shared_data.glob(pattern))
    assert len(paths) > 20
    for path in paths:
        if path.name == "all-nodata.tif":
            continue
        run_identity(path, tmp_path / "p.tif", 256)
        assert_same(path, tmp_path / "p.tif")


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (9, 200), (65, 63)])
@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 5e5, 0, -10, 4e6),
        Affine(10, 0, 5e5, 0, 10, 4e6),
        Affine(7, -7, 5e5, -7, -7, 4e6),
        Affine.identity(),
    ],
    ids=["north-up", "south-up", "rotated", "none"],
)
def test_any_size_and_any_grid(
    tmp_path: Path, make_raster: MakeRaster, shape: tuple[int, int], transform: Affine
) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, *shape)).astype(np.uint8)
    crs = None if transform == Affine.identity() else "EPSG:32630"
    path = make_raster("scene.tif", pixels, transform=transform, crs=crs)
    run_identity(path, tmp_path / "p.tif", 16)
    assert_same(path, tmp_path / "p.tif")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A real two-way model with random weights, VV/VH to one band."""
    torch.manual_seed(0)
    scaling = BandScaling("linear", (-30.0, 5.0), (-1.0, 1.0))
    a = Domain((BandInfo(scaling, "VV"), BandInfo(scaling, "VH")), "float32", None, 10.0)
    reflectance = BandInfo(BandScaling("linear", (0.0, 4000.0), (-1.0, 1.0)), "B04")
    b = Domain((reflectance,), "uint16", 0.0, 10.0)
    networks = {
        "a2b": ("resnet6", build_generator("resnet6", in_channels=2, out_channels=1, width=4)),
        "b2a": ("resnet6", build_generator("resnet6", in_channels=1, out_channels=2, width=4)),
    }
    folder = save_bundle(
        tmp_path / "model",
        method="cyclegan",
        generators=cast(Any, networks),
        domains={"a": a, "b": b},
        tile=64,
        training={},
    )
    return load_bundle(folder)


@pytest.fixture
def sar(make_raster: MakeRaster) -> Path:
    pixels = np.random.default_rng(0).normal(-12, 4, (2, 50, 61)).astype(np.float32)
    pixels[:, :6, :9] = np.nan
    path: Path = make_raster("sar.tif", pixels, names=("VV", "VH"), nodata=np.nan)
    return path


def test_a_product_says_what_it_is(tmp_path: Path, bundle: Bundle, sar: Path) -> None:
    translate_scene(str(sar), tmp_path / "p.tif", bundle, TranslateOptions())
    with rasterio.open(tmp_path / "p.tif") as done, rasterio.open(sar) as raw:
        assert (done.count, done.dtypes[0], done.nodata) == (1, "uint16", 0.0)
        assert done.descriptions == ("B04",)
        assert done.transform == raw.transform
        tags = done.tags()
        assert tags["SYNTHETIC"] == "YES"
        assert tags["GEOCYCLEGAN_MODEL_SHA256"] == bundle.sha256
        assert tags["GEOCYCLEGAN_DIRECTION"] == "a2b"
        assert tags["GEOCYCLEGAN_SOURCE"] == "sar.tif"
        assert tags["GEOCYCLEGAN_NORM_STATS"] == "dense"
        assert (done.dataset_mask()[:6, :9] == 0).all()
        assert (done.dataset_mask()[6:] == 255).all()
        assert (done.read()[:, :6, :9] == 0).all()
    again = tmp_path / "back.tif"
    translate_scene(str(tmp_path / "p.tif"), again, bundle, TranslateOptions(direction="b2a"))
    with rasterio.open(again) as done:
        assert done.descriptions == ("VV", "VH")
        assert done.dtypes == ("float32", "float32")
        assert np.isnan(done.read()[:, :6, :9]).all()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"p.tif", "back.tif", "sar.tif", "model"}


def test_bands_are_found_by_name_or_taken_by_number(
    tmp_path: Path, make_raster: MakeRaster, bundle: Bundle, sar: Path
) -> None:
    with rasterio.open(sar) as raw:
        pixels = raw.read()
    swapped = make_raster("swapped.tif", pixels[::-1], names=("VH", "VV"), nodata=np.nan)
    other = make_raster("other.tif", pixels, names=("gamma_vv", "gamma_vh"), nodata=np.nan)
    for name, path, bands in (("1", sar, None), ("2", swapped, None), ("3", other, ["1", "2"])):
        translate_scene(str(path), tmp_path / name, bundle, TranslateOptions(bands=bands))
    read = [rasterio.open(tmp_path / name).read() for name in "123"]
    np.testing.assert_array_equal(read[0], read[1])
    np.testing.assert_array_equal(read[0], read[2])
    with pytest.raises(SceneError, match=r"wants 2 bands \(VV, VH\).*--bands"):
        translate_scene(str(other), tmp_path / "4", bundle, TranslateOptions())
    with pytest.raises(OptionError, match=r"model wants 2 \(VV, VH\)"):
        translate_scene(str(other), tmp_path / "4", bundle, TranslateOptions(bands=["1"]))
    with pytest.raises(SceneError, match="--direction b2a"):
        translate_scene(str(tmp_path / "1"), tmp_path / "4", bundle, TranslateOptions())
    assert not (tmp_path / "4").exists()


def test_bands_that_are_taken_by_place_are_told(
    make_raster: MakeRaster, bundle: Bundle, sar: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rasterio.open(sar) as raw:
        plain = make_raster("plain.tif", raw.read(), nodata=np.nan)
    generator = bundle.generator("a2b")
    for path, bands, expected in ((plain, None, 1), (plain, ["2", "1"], 0), (sar, None, 0)):
        caplog.clear()
        with open_scene(str(path), generator, bundle, TranslateOptions(bands=bands)):
            told = [record.getMessage() for record in caplog.records]
        assert len(told) == expected
        assert all("they are taken to be VV, VH, in this order" in line for line in told)


def test_scale_and_offset_tags_that_differ_are_applied(
    tmp_path: Path, make_raster: MakeRaster, bundle: Bundle
) -> None:
    """The same reflectance stored with another offset gives the same product."""
    digital = np.random.default_rng(0).integers(100, 4000, (1, 40, 40)).astype(np.uint16)
    band = bundle.domains["b"].bands[0]
    tagged = Domain((BandInfo(band.scaling, "B04", None, 1e-4, 0.0),), "uint16", 0.0, 10.0)
    model = Bundle(**{**vars(bundle), "domains": {**bundle.domains, "b": tagged}})
    products = []
    for name, shift, offset in (("old", 0, 0.0), ("new", 1000, -0.1)):
        path = make_raster(f"{name}.tif", digital + np.uint16(shift), names=("B04",))
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,), (offset,)
        options = TranslateOptions(direction="b2a")
        translate_scene(str(path), tmp_path / f"{name}_p.tif", model, options)
        products.append(rasterio.open(tmp_path / f"{name}_p.tif").read())
    np.testing.assert_allclose(products[0], products[1], atol=1e-2)


def test_tags_on_one_side_are_told_in_one_line(
    tmp_path: Path, sar: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with rasterio.open(sar, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5, 0.5), (-1.0, -1.0)
    with Scene(sar) as scene:
        Adapted(scene, bundle.domains["a"])
    (line,) = [record.getMessage() for record in caplog.records]
    assert "scale and offset of VV, VH are 0.5 and -1, those of the training scenes 1 and 0" in line


def test_another_resolution_is_warned_about(
    tmp_path: Path, bundle: Bundle, sar: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rasterio.open(sar, "r+") as dataset:
        dataset.transform = Affine(30, 0, 5e5, 0, -30, 4e6)
    with caplog.at_level(logging.WARNING):
        translate_scene(str(sar), tmp_path / "p.tif", bundle, TranslateOptions())
    assert "30 m" in caplog.text
    assert "10 m" in caplog.text


@pytest.mark.parametrize("factor", [0.001, 100.0])
def test_numbers_of_another_kind_are_warned_about(
    tmp_path: Path,
    bundle: Bundle,
    make_raster: MakeRaster,
    caplog: pytest.LogCaptureFixture,
    factor: float,
) -> None:
    """Reflectance where a model knows stored numbers, or the other way round."""
    low, high = bundle.domains["b"].bands[0].scaling.inverse(np.array([-1.0, 1.0]))
    values = np.random.default_rng(0).uniform(low, high, (1, 40, 40)).astype(np.float32)
    shifted = factor * (values + high)
    for name, pixels in (("sound.tif", values), ("shifted.tif", shifted)):
        caplog.clear()
        path = make_raster(name, pixels, names=("B04",))
        options = TranslateOptions(direction="b2a", overwrite=True)
        translate_scene(str(path), tmp_path / "p.tif", bundle, options)
        told = [record.getMessage() for record in caplog.records]
        assert [("range of B04" in text) for text in told] == [True] * (name == "shifted.tif")


def test_a_map_in_few_colours_is_nothing_unusual(
    tmp_path: Path, bundle: Bundle, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    """White paper is the upper end of the range, and nearly all of the scene."""
    white = np.full((1, 40, 40), 4000, np.uint16)
    white[:, 5:7] = 0
    path = make_raster("map.tif", white, names=("B04",))
    translate_scene(str(path), tmp_path / "p.tif", bundle, TranslateOptions(direction="b2a"))
    assert not caplog.records


def test_outputs_that_may_not_be(tmp_path: Path, bundle: Bundle, sar: Path) -> None:
    before = sar.read_bytes()
    with pytest.raises(OptionError, match="it is the input"):
        translate_scene(str(sar), sar, bundle, TranslateOptions(overwrite=True))
    with pytest.raises(OptionError, match="a folder"):
        translate_scene(str(sar), tmp_path, bundle, TranslateOptions())
    out = tmp_path / "p.tif"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        translate_scene(str(sar), out, bundle, TranslateOptions())
    assert out.read_text() == "mine"
    translate_scene(str(sar), out, bundle, TranslateOptions(overwrite=True))
    assert rasterio.open(out).count == 1
    assert sar.read_bytes() == before


def test_an_all_nodata_scene_gives_no_product(
    tmp_path: Path, make_raster: MakeRaster, bundle: Bundle
) -> None:
    empty = np.full((2, 30, 30), np.nan, np.float32)
    path = make_raster("empty.tif", empty, names=("VV", "VH"), nodata=np.nan)
    with pytest.raises(SceneError, match="no valid pixel"):
        translate_scene(str(path), tmp_path / "p.tif", bundle, TranslateOptions())
    assert not (tmp_path / "p.tif").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(OptionError, match="no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def test_a_scene_of_several_files_is_translated_on_its_finest_grid(
    tmp_path: Path, make_raster: MakeRaster
) -> None:
    random = np.random.default_rng(0)
    fine = make_raster("x_B02.tif", random.integers(1, 255, (1, 40, 44)).astype(np.uint8))
    coarse = make_raster(
        "x_B05.tif",
        random.integers(1, 255, (1, 20, 22)).astype(np.uint8),
        transform=Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 4_200_000.0),
    )
    scaling = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
    domain = Domain((BandInfo(scaling, "B05"), BandInfo(scaling, "B02")), "uint8")
    network = build_generator("resnet6", in_channels=2, out_channels=2, width=2)
    bundle = load_bundle(
        save_bundle(
            tmp_path / "model",
            method="cyclegan",
            generators={"a2b": ("resnet6", network)},
            domains={"a": domain, "b": domain},
            tile=32,
            training={},
        )
    )
    spec, out = f"{fine}+{coarse}", tmp_path / "product.tif"
    translate_scene(spec, out, bundle, TranslateOptions())
    with rasterio.open(out) as product, rasterio.open(fine) as scene:
        assert (product.shape, product.transform) == (scene.shape, scene.transform)
        assert product.descriptions == ("B05", "B02")
        assert product.tags()["GEOCYCLEGAN_SOURCE"] == "x_B02.tif, x_B05.tif"
        assert product.tags()["GEOCYCLEGAN_SOURCE_BANDS"] == "B05,B02"
    # None of the files may be written over.
    with pytest.raises(OptionError, match="it is the input scene"):
        translate_scene(spec, coarse, bundle, TranslateOptions(overwrite=True))
