"""`geocyclegan infer` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner, Result

from geocyclegan.cli.main import cli
from geocyclegan.document import write_document
from geocyclegan.files import sha256

MakeRaster = Any


def infer(*args: str) -> Result:
    return CliRunner().invoke(cli, ["infer", *args])


def test_without_a_scene_it_takes_those_of_the_training(work: Path) -> None:
    result = infer()
    assert result.exit_code == 0, result.output
    assert "translated.tif" in result.output
    with rasterio.open(work / "translated.tif") as done, rasterio.open(work / "one.tif") as raw:
        assert done.transform == raw.transform
        assert done.tags()["GEOCYCLEGAN_SOURCE"] == "one.tif"


def test_several_scenes_go_to_a_folder(work: Path) -> None:
    result = infer("*.tif", "--out", "products")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (work / "products").iterdir()) == ["one_a2b.tif", "two_a2b.tif"]
    again = infer("one.tif", "two.tif", "--out", "products")
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert infer("one.tif", "two.tif", "--out", "products", "--overwrite").exit_code == 0


def test_the_scenes_of_a_training_with_several_go_to_a_folder(
    work: Path, make_raster: MakeRaster
) -> None:
    """And those that are called alike are told apart by their folders."""
    model = work / "runs" / "first" / "model"
    document = (model / "model.json").read_text()
    two = document.replace(f'"{work}/one.tif"', f'"{work}/one.tif", "{work}/p/one.tif"')
    assert two != document
    write_document(model, json.loads(two))
    pixels = np.random.default_rng(1).integers(1, 255, (2, 30, 20)).astype(np.uint8)
    make_raster("p/one.tif", pixels, names=("VV", "VH"))
    result = infer()
    assert result.exit_code == 0, result.output
    names = {f"{work.name}_one_a2b.tif", "p_one_a2b.tif"}
    assert {p.name for p in (work / "translated").iterdir()} == names
    with rasterio.open(work / "translated" / "p_one_a2b.tif") as product:
        assert product.tags()["GEOCYCLEGAN_SOURCE"] == "one.tif"
        assert product.shape == (30, 20)
    again = infer()
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert not (work / "translated.tif").exists()


def test_a_file_where_the_folder_would_be(work: Path) -> None:
    (work / "translated").write_text("mine")
    result = infer("one.tif", "two.tif")
    assert result.exit_code == 2, result.output
    assert "translated: a file, where a folder was expected" in result.output
    assert (work / "translated").read_text() == "mine"


def test_one_bad_scene_does_not_cost_the_others(work: Path) -> None:
    (work / "three.tif").write_text("no raster")
    result = infer("one.tif", "three.tif", "two.tif", "--out", "products")
    assert result.exit_code == 1
    assert "1 of 3 scenes" in result.output
    assert sorted(p.name for p in (work / "products").iterdir()) == ["one_a2b.tif", "two_a2b.tif"]


SLOW_CHILD = """
import sys, time
import geocyclegan.raster.product as product
original = product.ProductWriter.write
def slow(self, *args):
    original(self, *args)
    print("writing", file=sys.stderr, flush=True)
    time.sleep(60)
product.ProductWriter.write = slow
from geocyclegan.cli.main import main
from geocyclegan.document import write_document
sys.argv = ["geocyclegan", "infer", "one.tif", "--out", "p.tif"]
main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_leaves_no_product_and_its_rerun_no_rest(
    work: Path, number: signal.Signals, code: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_CHILD], cwd=work, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    assert any("writing" in line for line in child.stderr)
    child.send_signal(number)
    assert child.wait(timeout=30) == code
    assert not (work / "p.tif").exists()
    left = list(work.glob(".p*"))
    assert bool(left) == (number == signal.SIGKILL)
    assert infer("one.tif", "--out", "p.tif").exit_code == 0
    assert not list(work.glob(".p*"))


def test_tiles_do_not_show_by_default(work: Path, make_raster: MakeRaster) -> None:
    """Whichever way the scene is cut; the old way is there for comparison."""
    ramp = np.linspace(1, 200, 230)[None, :] * np.linspace(0.1, 1, 200)[:, None]
    noise = np.random.default_rng(0).integers(1, 50, (2, 200, 230))
    make_raster("large.tif", (ramp + noise).astype(np.uint8), names=("VV", "VH"))

    def product(*args: str) -> Any:
        result = infer("large.tif", "--overwrite", *args)
        assert result.exit_code == 0, result.output
        return rasterio.open(work / "translated.tif").read().astype(int)

    for mode in ("auto", "sample", "exact", "dense"):
        whole, tiles = product("--norm-stats", mode), product("--norm-stats", mode, "--tile", "80")
        assert abs(whole - tiles).max() <= 1
    sweeps = product("--norm-stats", "exact", "--tile", "80", "--stats-memory", "1K")
    assert abs(sweeps - product("--norm-stats", "exact")).max() <= 1
    naive = product("--norm-stats", "tile", "--tile", "80")
    assert abs(naive - product("--norm-stats", "tile")).max() >= 1


def test_memory_changes_the_tiles_and_not_the_product(
    work: Path, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.random.default_rng(0).integers(1, 250, (2, 300, 330)).astype(np.uint8)
    make_raster("large.tif", pixels, names=("VV", "VH"))

    def product(*args: str) -> Any:
        caplog.clear()
        result = CliRunner().invoke(
            cli, ["-v", "infer", "large.tif", "--overwrite", "--device", "cpu", *args]
        )
        assert result.exit_code == 0, result.output
        return rasterio.open(work / "translated.tif").read().astype(int)

    whole = product("--memory", "4GB", "--batch", "auto")
    assert "tiles of 332 px" in caplog.text
    tiled = product("--memory", "4M")
    assert "tiles of 128 px" in caplog.text
    assert abs(whole - tiled).max() <= 1
    asked = product("--memory", "4M", "--tile", "4000", "--batch", "1")
    assert "tiles of 4000 px do not fit" in caplog.text
    assert abs(whole - asked).max() <= 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processor cores")
def test_two_devices_are_two_processes(work: Path) -> None:
    result = infer("*.tif", "--out", "products", "--device", "cpu", "--devices", "2")
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == 2
    assert infer("one.tif", "--out", "alone.tif", "--device", "cpu").exit_code == 0
    assert sha256(work / "products" / "one_a2b.tif") == sha256(work / "alone.tif")


def test_quiet_says_nothing(work: Path) -> None:
    result = CliRunner().invoke(cli, ["-q", "infer", "one.tif"])
    assert result.exit_code == 0
    assert result.output == ""


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["none.tif"], 2, "none.tif: no such file"),
        (["one.tif", "--model", "runs/none"], 2, "no such model"),
        (["one.tif", "--model", "."], 1, "model.json"),
        (["one.tif", "--out", "one.tif", "--overwrite"], 2, "it is the input"),
        (["one.tif", "--out", "one.png"], 2, "GeoTIFF"),
        (["one.tif", "two.tif", "--out", "p.tif"], 2, "need a folder"),
        (["one.tif", "--direction", "b2a"], 1, "the model wants 1 band (red)"),
        (["one.tif", "--bands", "VV,HH"], 2, "--bands HH"),
        (["one.tif", "--bands", "VV"], 2, "the model wants 2 (VV, VH)"),
        (["--direction", "b2a"], 2, "records no scenes"),
        (["one.tif", "--tile", "0"], 2, "--tile"),
        (["one.tif", "--norm-stats", "frozen"], 2, "records no statistics of its training set"),
        (["one.tif", "--norm-stats", "none"], 2, "--norm-stats"),
        (["one.tif", "--stats-memory", "lots"], 2, "an amount of memory such as 512M"),
        (["one.tif", "--tile", "some"], 2, "expected a number of at least 1, or auto"),
        (["one.tif", "--memory", "10KB"], 1, "may be used; free some memory"),
        (["one.tif", "--precision", "fp16"], 2, "it is for GPUs"),
        (["one.tif", "--devices", "0"], 2, "--devices 0"),
        (["one.tif", "--cluster", "head:8786"], 2, "the address of a Dask scheduler"),
    ],
)
def test_mistakes_end_in_one_line(work: Path, args: list[str], code: int, message: str) -> None:
    before = sorted(p.name for p in work.iterdir())
    result = infer(*args)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert sorted(p.name for p in work.iterdir()) == before


def test_no_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = infer("x.tif")
    assert result.exit_code == 2
    assert "geocyclegan train" in result.output


def test_no_product_takes_the_place_of_what_is_read(work: Path) -> None:
    """Sources of a VRT, scenes behind a folder that is to be made, and other scenes."""
    shutil.copy("two.tif", "one_a2b.tif")
    with rasterio.open("one.tif") as raw:
        rasterio.shutil.copy(raw, "all.vrt", driver="VRT")
    before = {path: path.read_bytes() for path in work.glob("*.*")}
    for scenes, out, words in (
        (["all.vrt"], "one.tif", "the input scene"),
        (["one.tif"], "products/../one.tif", "it is the input scene"),
        (["one.tif", "one_a2b.tif"], ".", "it is the input scene one_a2b.tif"),
    ):
        result = infer(*scenes, "--out", out, "--overwrite")
        assert result.exit_code == 2, result.output
        assert words in result.stderr
        assert {path: path.read_bytes() for path in work.glob("*.*")} == before


def test_products_are_no_scenes_unless_they_are_named_alone(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that `*.tif` can be translated twice, whoever writes it out, and is not chipped."""
    shutil.copy("two.tif", "one_a2b.tif")
    with rasterio.open("one_a2b.tif", "r+") as product:
        product.update_tags(SYNTHETIC="YES")
    for scenes in (["*.tif"], ["one.tif", "one_a2b.tif", "two.tif"]):
        caplog.clear()
        result = infer(*scenes, "--out", ".", "--overwrite")
        assert result.exit_code == 0, result.output
        assert "left out what is synthetic" in caplog.text
        assert sorted(path.name for path in work.glob("*_a2b.tif")) == [
            "one_a2b.tif",
            "two_a2b.tif",
        ]
    for scenes in (["."], ["one.tif", "two.tif", "one_a2b.tif", "two_a2b.tif"]):
        caplog.clear()
        result = CliRunner().invoke(cli, ["chip", *scenes, "--size", "16", "--overwrite"])
        assert result.exit_code == 0, result.output
        assert "from 2 scenes" in result.stdout
        assert "left out what is synthetic (SYNTHETIC=YES)" in caplog.text
    result = CliRunner().invoke(cli, ["chip", "one_a2b.tif", "--size", "16", "--overwrite"])
    assert result.exit_code == 0, result.output
    assert "taken since it is named: one_a2b.tif" in caplog.text
