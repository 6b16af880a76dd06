"""Undeclared nodata in `infer`: the model remembers it, and the option has the last word."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result

import geocyclegan as gcg
from geocyclegan.bundle import load_bundle, save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

MakeRaster = Callable[..., Path]
SCALING = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
A = Domain(tuple(BandInfo(SCALING, name) for name in ("VV", "VH")), "uint8", gsd=10.0)
B = Domain((BandInfo(SCALING, "red"),), "uint8", gsd=10.0)
SHAPE = (60, 70)


def save(folder: Path, a: Domain, b: Domain = B) -> Path:
    torch.manual_seed(0)
    network = build_generator("resnet6", in_channels=2, out_channels=1, width=2, blocks=1)
    return save_bundle(
        folder,
        method="cyclegan",
        generators={"a2b": ("resnet6", network)},
        domains={"a": a, "b": b},
        tile=32,
        training={"steps": 1},
    )


def picture() -> npt.NDArray[np.uint8]:
    """Two bands with zeros at the left, and one dark pixel with zero in one band."""
    pixels = np.random.default_rng(0).integers(1, 255, (2, *SHAPE)).astype(np.uint8)
    pixels[:, :, :15] = 0
    pixels[0, 30, 40] = 0
    return pixels


def collar() -> npt.NDArray[np.bool_]:
    mask = np.ones(SHAPE, np.bool_)
    mask[:, :15] = False
    return mask


@pytest.fixture
def work(tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "knows", replace(A, undeclared=0.0))
    save(tmp_path / "plain", A)
    make_raster("scene.tif", picture(), names=("VV", "VH"))
    make_raster("masked.tif", picture(), names=("VV", "VH"), mask=collar())
    return tmp_path


def infer(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["infer", "--overwrite", "--tile", "32", *arguments])


def read(path: str = "translated.tif") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    with rasterio.open(path) as product:
        return product.read(), product.dataset_mask() > 0


def test_the_mask_of_the_product_is_the_collar(work: Path) -> None:
    assert infer("masked.tif", "--model", "plain").exit_code == 0
    as_masked, mask = read()
    np.testing.assert_array_equal(mask, collar())
    for model, options in (("knows", []), ("plain", ["--nodata", "0"])):
        result = infer("scene.tif", "--model", model, *options)
        assert result.exit_code == 0, result.output
        pixels, mask = read()
        np.testing.assert_array_equal(mask, collar())
        np.testing.assert_array_equal(pixels, as_masked)


def test_the_option_comes_before_what_the_model_remembers(work: Path) -> None:
    for model, options in (("knows", ["--nodata", "none"]), ("plain", [])):
        assert infer("scene.tif", "--model", model, *options).exit_code == 0
        assert read()[1].all()
    assert infer("scene.tif", "--model", "knows", "--nodata", "7").exit_code == 0
    assert read()[1].all()
    assert len(gcg.infer("scene.tif", model=Path("knows"), nodata="none", overwrite=True)) == 1
    assert read()[1].all()
    gcg.infer("scene.tif", model=Path("plain"), nodata=0, overwrite=True)
    np.testing.assert_array_equal(read()[1], collar())


def test_a_target_with_nodata_gives_it_to_the_product(work: Path) -> None:
    save(work / "target", replace(A, undeclared=0.0), replace(B, dtype="int16", nodata=-1.0))
    assert infer("scene.tif", "--model", "target").exit_code == 0
    pixels, mask = read()
    np.testing.assert_array_equal(mask, collar())
    np.testing.assert_array_equal(pixels[0] == -1, ~collar())


def test_what_no_pixel_can_hold_is_refused(work: Path) -> None:
    for value, told in (("-1", "uint8 (whole numbers from 0 to 255)"), ("off", "--nodata off")):
        result = infer("scene.tif", "--model", "plain", "--nodata", value)
        assert result.exit_code == 2
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not Path("translated.tif").exists()
    with pytest.raises(OptionError, match="nodata=off: expected the number"):
        gcg.infer("scene.tif", model=Path("plain"), nodata="off")  # type: ignore[arg-type]


def test_a_model_that_remembers_more_than_a_scene_can_hold(
    work: Path, make_raster: MakeRaster
) -> None:
    save(work / "floats", replace(A, dtype="float32", undeclared=-9999.0))
    assert infer("scene.tif", "--model", "floats").exit_code == 0
    assert read()[1].all()


def test_models_of_before_load_as_they_are(work: Path) -> None:
    told = json.loads((work / "plain" / "model.json").read_text())
    assert "undeclared_nodata" not in told["domains"]["a"]
    assert load_bundle(work / "plain").source("a2b").undeclared is None
    assert load_bundle(work / "knows").source("a2b").undeclared == 0.0


def test_a_product_tells_what_was_empty(work: Path) -> None:
    for model, told in (("knows", "0"), ("plain", None)):
        assert infer("scene.tif", "--model", model).exit_code == 0
        with rasterio.open("translated.tif") as product:
            assert product.tags().get("GEOCYCLEGAN_SOURCE_NODATA") == told


def test_arrays_are_treated_alike(work: Path) -> None:
    model = gcg.load(work / "knows", device="cpu")
    made = model.translate(picture(), norm_stats="sample")
    told = model.translate(picture(), valid=collar(), norm_stats="sample")
    np.testing.assert_array_equal(made, told)
    assert not made[:, ~collar()].any()
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("rioxarray")
    data = xarray.DataArray(picture(), dims=("band", "y", "x"))
    placed = model.translate(data, norm_stats="sample")
    np.testing.assert_array_equal(placed.values, told)


@pytest.mark.parametrize("fill", [-9999.0, float(np.finfo(np.float32).min)])
def test_what_looks_like_nodata_is_told_with_the_option(
    work: Path, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture, fill: float
) -> None:
    pixels = np.where(collar(), picture(), fill).astype(np.float32)
    pixels[:, :2] = np.nan
    make_raster("filled.tif", pixels, names=("VV", "VH"))
    folder = load_bundle(save(work / "floats", replace(A, dtype="float32"))).folder

    def told(*arguments: str) -> list[str]:
        caplog.clear()
        result = infer("filled.tif", "--model", str(folder), *arguments)
        assert result.exit_code == 0, result.output
        return [r.getMessage() for r in caplog.records if "--nodata" in r.getMessage()]

    (line,) = told()
    assert "filled.tif, VV: " in line
    # The number in the advice is the one that helps.
    assert not told("--nodata", line.split("--nodata ")[1].split()[0])
    np.testing.assert_array_equal(read()[1][2:], collar()[2:])
    assert not told("--nodata", "none")
    # Of the scenes that the model was trained on, chip has said so.
    bundle, scene = load_bundle(folder), str(work / "filled.tif")
    for known in ([], [scene]):
        caplog.clear()
        trained = replace(bundle, training={"scenes": {"a": known, "b": []}})
        translate_scene(scene, work / f"{len(known)}.tif", trained, TranslateOptions())
        assert any("--nodata" in r.getMessage() for r in caplog.records) is not bool(known)


def test_by_several_processes(work: Path) -> None:
    assert infer("masked.tif", "--model", "plain").exit_code == 0
    expected = read()[0]
    result = infer("scene.tif", "--model", "knows", "--devices", "2", "--device", "cpu")
    assert result.exit_code == 0, result.output
    pixels, mask = read()
    np.testing.assert_array_equal(mask, collar())
    np.testing.assert_array_equal(pixels, expected)
