from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from geocyclegan.bundle import save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scene, its chips and a model."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 200, (2, 64, 96), np.uint16)
    pixels[:, :16] = 0
    profile = {"driver": "GTiff", "count": 2, "height": 64, "width": 96, "dtype": "uint16"}
    place = {"crs": "EPSG:32630", "transform": from_origin(5e5, 4e6, 10, 10), "nodata": 0}
    with rasterio.open("sar.tif", "w", **profile, **place) as scene:
        scene.write(pixels)
        scene.descriptions = ["VV", "VH"]
    assert run("chip", "sar.tif", "--size", "16").exit_code == 0
    torch.manual_seed(0)
    band = BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "VV")
    there = build_generator("resnet6", in_channels=1, out_channels=1, width=2)
    save_bundle(
        tmp_path / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", there)},
        domains={"a": Domain((band,), "uint8"), "b": Domain((band,), "uint8")},
        tile=64,
        training={"steps": 7},
    )
    return tmp_path


def test_a_scene_as_a_table(work: Path) -> None:
    result = run("info", "sar.tif", "--quicklook", "look.png")
    assert result.exit_code == 0, result.output
    for text in ("64 x 96 px", "EPSG:32630", "10 m on the ground", "75.0% of a sample", "VV"):
        assert text in result.stdout
    with Image.open("look.png") as image:
        assert image.size == (96, 64)
    assert "VV" not in run("info", "sar.tif", "--bands", "VH").stdout
    assert run("info", "sar.tif", "--quicklook", "look.png").exit_code == 1
    assert run("info", "sar.tif", "--quicklook", "look.png", "--overwrite").exit_code == 0


def test_where_a_scene_lies_on_the_globe(work: Path) -> None:
    assert "lon, lat    -3 to -2.98" in run("info", "sar.tif").stdout
    with rasterio.open("sar.tif", "r+") as scene:
        scene.crs, scene.transform = "EPSG:4326", from_origin(179.5, 10, 0.01, 0.01)
    assert (
        "179.5 to -179.54, 9.36 to 10, across the 180th meridian" in run("info", "sar.tif").stdout
    )
    with rasterio.open("sar.tif", "r+") as scene:
        scene.transform = from_origin(17.5, 10, 0.01, 0.01)
    assert "lon, lat" not in run("info", "sar.tif").stdout


def test_chips_as_a_table(work: Path) -> None:
    result = run("info", "chips", "--quicklook", "sheet.png")
    assert result.exit_code == 0, result.output
    assert "domain a: 16 train and 2 val chips of 16 px from 1 scene\n" in result.stdout
    assert "no chip of domain b" in result.stdout
    with Image.open("sheet.png") as image:
        assert image.size == (32, 64 + 16)


def test_a_model_as_a_table(work: Path) -> None:
    result = run("info", "model")
    assert result.exit_code == 0, result.output
    for text in ("cyclegan", "7 steps", "resnet6", "halo 60 px", "linear   0     255"):
        assert text in result.stdout
    for text in ("wants VV; gives VV", "each crop by itself; --norm-stats sample,", " MB, SHA-256"):
        assert text in result.stdout
    assert run("info", "model", "--quicklook", "x.png").exit_code == 2
    assert run("info", "model", "--bands", "1").exit_code == 2


def test_what_is_nothing_is_one_line(work: Path) -> None:
    (work / "empty").mkdir()
    for name, code in (("none.tif", 2), ("empty", 1)):
        result = run("info", name)
        assert result.exit_code == code
        assert name in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_of_scenes_is_told_as_one(work: Path) -> None:
    (work / "scenes").mkdir()
    (work / "sar.tif").rename(work / "scenes" / "sar.tif")
    result = run("info", "scenes")
    assert result.exit_code == 1
    assert "a folder of 1 scene, neither chips nor a model; name one scene" in result.stderr


@pytest.mark.parametrize(
    ("crs", "told"),
    [
        ("EPSG:3413", "EPSG:3413"),
        ("ESRI:102003", "ESRI:102003"),
        ('LOCAL_CS["site grid",UNIT["metre",1]]', "site grid (no code)"),
        ("+proj=sinu +lon_0=0 +R=6371007.181", "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181"),
    ],
)
def test_a_crs_is_told_by_code_by_name_or_by_projection(work: Path, crs: str, told: str) -> None:
    with rasterio.open(work / "sar.tif", "r+") as scene:
        scene.crs = rasterio.crs.CRS.from_user_input(crs)
    result = run("info", "sar.tif")
    assert f"  CRS         {told}" in result.stdout
    assert "[" not in result.stdout


def test_verify_finds_damage(work: Path) -> None:
    result = run("verify", "chips", "model")
    assert result.exit_code == 0, result.output
    assert "chips: 18 chips, all sound" in result.stdout
    assert "sound (weights, description)" in result.stdout
    chip = sorted((work / "chips" / "train_a").iterdir())[0]
    chip.write_bytes(chip.read_bytes()[:-1])
    weights = work / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = run("verify", "chips", "model")
    assert result.exit_code == 1
    assert f"{chip.name}: damaged" in result.stdout
    assert "weights are damaged" in result.stdout
    assert result.stderr.strip() == (
        "Error: chips and 1 more: 1 damaged or missing; make them anew from their source"
    )


def test_verify_says_what_it_cannot_check(work: Path) -> None:
    result = run("verify", "sar.tif")
    assert result.exit_code == 1
    assert "carries no hash" in result.stderr
    assert run("verify", "none").exit_code == 2


def test_histograms_of_a_scene_and_of_chips(work: Path) -> None:
    result = run("info", "sar.tif", "--histogram", "scene.png")
    assert result.exit_code == 0, result.output
    assert run("chip", "sar.tif", "--size", "16", "--domain", "b", "--bands", "VV").exit_code == 0
    assert run("info", "chips", "--histogram", "chips.png").exit_code == 0
    with Image.open("scene.png") as scene, Image.open("chips.png") as chips:
        assert chips.width > 2 * scene.width
        assert chips.height > scene.height  # a caption
        assert len(set(scene.getdata())) > 4  # bars, percentiles and knots
    assert run("info", "chips", "--histogram", "chips.png").exit_code == 1
    assert run("info", "model", "--histogram", "model.png").exit_code == 2


def as_json(*arguments: str) -> Any:
    result = run("info", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_scene_as_json(work: Path) -> None:
    facts = as_json("sar.tif", "--bands", "VH", "--quicklook", "look.png")
    assert Path("look.png").exists()
    (band,) = facts.pop("bands")
    with rasterio.open("sar.tif") as scene:
        assert facts.pop("transform") == list(scene.transform)[:6]
        assert facts.pop("bounds") == list(scene.bounds)
        west, south, east, north = transform_bounds(scene.crs, "EPSG:4326", *scene.bounds)
        assert facts.pop("lonlat") == pytest.approx([west, south, east, north], abs=1e-6)
        assert facts.pop("block_shape") == list(scene.block_shapes[0])
        values = scene.read(2, masked=True)
    assert facts == {
        "kind": "scene",
        "path": "sar.tif",
        "height": 64,
        "width": 96,
        "count": 1,
        "crs": "EPSG:32630",
        "res": [10.0, 10.0],
        "gsd": pytest.approx(10.0, rel=0.01),
        "valid": 0.75,
        "sample_shape": [64, 96],
        "synthetic": False,
        "provenance": {},
        "quicklook": "look.png",
        "histogram": None,
    }
    assert band == {
        "index": 2,
        "name": "VH",
        "dtype": "uint16",
        "nodata": 0.0,
        "unit": None,
        "scale": 1.0,
        "offset": 0.0,
        "min": float(values.min()),
        "mean": pytest.approx(float(values.mean())),
        "max": float(values.max()),
    }


def test_chips_as_json(work: Path) -> None:
    facts = as_json("chips")
    assert facts.keys() == {"kind", "path", "domains", "missing", "quicklook", "histogram"}
    assert "no chip of domain b" in facts["missing"]["b"]
    domain = facts["domains"]["a"]
    assert domain["train"] + domain["val"] > 4
    assert (domain["size"], domain["virtual"]) == (16, False)
    assert domain["scenes"] == [str(work / "sar.tif")]
    assert (domain["dtype"], domain["nodata"], domain["undeclared_nodata"]) == ("uint16", 0, None)
    first = domain["bands"][0]
    assert first.keys() == {"index", "name", "unit", "scaling", "from", "to"}
    assert 0 < first["from"] < first["to"] < 200


def test_a_model_as_json(work: Path) -> None:
    facts = as_json("model")
    assert {"quicklook", "histogram"} & facts.keys() == set()
    assert (facts["kind"], facts["method"], facts["steps"]) == ("model", "cyclegan", 7)
    assert (facts["tile"], facts["pool"], facts["device"]) == (64, "crop", None)
    assert facts["norm_stats"] == ["sample", "exact", "dense", "tile"]
    assert facts["export"] == ["onnx", "torch", "deepness", "mlm"]
    assert len(facts["weights_sha256"]) == 64
    spec = facts["generators"]["a2b"]
    assert (spec["name"], spec["halo"], spec["wants"], spec["gives"]) == (
        *("resnet6", 60),
        *(["VV"], ["VV"]),
    )
    assert facts["domains"]["b"]["bands"][0]["to"] == 255.0


def test_json_has_no_nan(work: Path) -> None:
    pixels = np.full((1, 8, 8), np.nan, np.float32)
    profile = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "float32"}
    with rasterio.open("nan.tif", "w", **profile, nodata=np.nan) as scene:
        scene.write(pixels)
    facts = as_json("nan.tif")
    assert facts["crs"] is None
    assert facts["valid"] == 0.0
    assert facts["bands"][0]["nodata"] == "nan"
    assert facts["bands"][0]["mean"] is None


def test_a_picture_is_no_other_file(work: Path) -> None:
    scene = Path("sar.tif").read_bytes()
    Path("sar.tif").rename("sar.png")
    for name in ("look.tif", "sar.png"):
        result = run("info", "sar.png", "--quicklook", name, "--overwrite")
        assert result.exit_code == 2, result.output
        assert "PNG" in result.stderr or "it is the input" in result.stderr
    assert Path("sar.png").read_bytes() == scene


def test_a_product_says_that_it_is_synthetic(work: Path) -> None:
    tags = {"SYNTHETIC": "YES", "TIFFTAG_SOFTWARE": "geocyclegan 9", "GEOCYCLEGAN_METHOD": "cut"}
    with rasterio.open("sar.tif", "r+") as dataset:
        dataset.update_tags(OTHER="x", **tags)
    lines = [line.strip() for line in run("info", "sar.tif").stdout.splitlines()]
    assert lines[1:3] == ["synthetic   YES, no acquisition; made by geocyclegan 9", "method: cut"]
    facts = as_json("sar.tif")
    assert facts["synthetic"] is True
    assert facts["provenance"] == tags
