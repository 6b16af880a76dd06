from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import from_origin

from geocyclegan.chips.manifest import read_rows
from geocyclegan.cli.main import cli


def make_scene(path: Path, value: int = 100) -> Path:
    pixels = np.random.default_rng(0).integers(value, value + 50, (2, 64, 96), np.uint16)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=2,
        height=64,
        width=96,
        dtype="uint16",
        crs="EPSG:32630",
        transform=from_origin(5e5, 4e6, 10, 10),
    ) as scene:
        scene.write(pixels)
        scene.descriptions = ["VV", "VH"]
    return path


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_scene(tmp_path / "sar.tif")


def test_what_it_did_and_what_comes_next(scene: Path) -> None:
    result = CliRunner().invoke(cli, ["chip", "sar.tif", "--size", "32"])
    assert result.exit_code == 0, result.output
    assert "chips: 6 chips of 32 px from 1 scene for domain a (5 train, 1 val)" in result.stdout
    assert "VV, VH" in result.stdout
    assert "Next: geocyclegan chip SCENE --domain b --size 32" in result.stdout
    result = CliRunner().invoke(cli, ["chip", "sar.tif", "--size", "32", "--domain", "b"])
    assert "Next: geocyclegan train\n" in result.stdout
    assert (scene.parent / "chips" / "chips.parquet").exists()


def test_left_out_windows_are_told(scene: Path) -> None:
    with rasterio.open(scene, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, :32, :32] = 0
        dataset.nodata = 0
        dataset.write(pixels)
    result = CliRunner().invoke(cli, ["chip", "sar.tif", "--size", "32"])
    assert "left out of 6 windows: 1 with too few valid pixels" in result.stdout


def test_adding_tells_the_totals(scene: Path) -> None:
    make_scene(scene.parent / "two.tif", 500)
    options = ["--size", "32", "--out", "here"]
    CliRunner().invoke(cli, ["chip", "sar.tif", *options])
    result = CliRunner().invoke(cli, ["chip", "two.tif", *options])
    assert "the domain now has 10 train and 2 val chips from 2 scenes" in result.stdout
    assert "--domain b --out here --size 32" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.tif"], 2, "none.tif"),
        (["sar.tif", "--bands", "7"], 2, "--bands 7"),
        (["sar.tif", "--scale", "best"], 2, "--scale best"),
        (["sar.tif", "--val", "2"], 2, "--val 2"),
        (["sar.tif", "--size", "1"], 2, "--size 1"),
        (["sar.tif", "--aoi", "none.gpkg"], 2, "--aoi none.gpkg"),
        (["sar.tif", "--size", "big"], 2, "--size big"),
        (["sar.tif", "--like", "sar.tif", "--res", "5"], 2, "--like"),
        (["sar.tif", "--crs", "Mars"], 2, "--crs Mars"),
        (["sar.tif", "--res", "0"], 2, "--res 0"),
        (["sar.tif", "--resampling", "magic"], 2, "--resampling magic"),
        (["sar.tif", "--random", "0"], 2, "--random 0"),
        (["sar.tif", "--pair-bands", "1"], 2, "--pair-bands"),
        (["sar.tif", "--pair", "none.tif"], 2, "none.tif"),
        (["sar.tif", "--mask", "none.tif"], 2, "none.tif"),
        (["sar.tif", "--labels", "text.tif"], 1, "text.tif"),
        (["sar.tif", "--mask", "sar.tif", "--mask-values", "a"], 2, "--mask-values"),
        (["sar.tif", "--min-std", "-1"], 2, "--min-std -1"),
        (["text.tif"], 1, "text.tif"),
        ([], 2, "SCENE"),
    ],
)
def test_mistakes_are_one_line(scene: Path, arguments: list[str], code: int, words: str) -> None:
    (scene.parent / "text.tif").write_text("no raster")
    result = CliRunner().invoke(cli, ["chip", *arguments])
    assert result.exit_code == code
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last
    assert result.stdout == ""
    assert not (scene.parent / "chips").exists()


def test_quiet_and_progress(scene: Path) -> None:
    command = [sys.executable, "-m", "geocyclegan", "-q", "--progress", "json"]
    done = subprocess.run(
        [*command, "chip", "sar.tif", "--size", "32"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": ""},
    )
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["stage"] for event in events} == {"chip"}
    assert events[-1]["done"] == events[-1]["total"] == 6


def test_a_pair_fills_both_domains(scene: Path) -> None:
    make_scene(scene.parent / "optical.tif", 300)
    result = CliRunner().invoke(
        cli, ["chip", "sar.tif", "--pair", "optical.tif", "--pair-bands", "2", "--size", "320m"]
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "6 chips of 32 px from 1 scene for domain a (5 train, 1 val); 2 bands" in lines[0]
    assert "6 chips of 32 px from 1 scene for domain b (5 train, 1 val); 1 band: VH" in lines[1]
    assert lines[2:] == ["Next: geocyclegan train"]


def test_virtual_chips(scene: Path) -> None:
    result = CliRunner().invoke(cli, ["chip", "sar.tif", "--size", "32", "--virtual"])
    assert "6 virtual chips of 32 px" in result.stdout
    assert not (scene.parent / "chips" / "train_a").exists()


@pytest.mark.parametrize("classes", ["1-999999999", "8-3", "a", ""])
def test_classes_that_cannot_be(scene: Path, classes: str) -> None:
    """A range of a billion would fill the memory, one that falls would name no class."""
    arguments = ["chip", "sar.tif", "--mask", "sar.tif", "--mask-values", classes]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "expected classes such as 3,8-10" in result.stderr


def test_classes_below_zero(scene: Path) -> None:
    """As in flood masks, where -1 is what nobody looked at."""
    with rasterio.open("sar.tif") as source:
        profile = source.profile | {"count": 1, "dtype": "int16", "nodata": None}
    classes = np.zeros((1, profile["height"], profile["width"]), np.int16)
    classes[:, :32] = -1
    with rasterio.open("flood.tif", "w", **profile) as file:
        file.write(classes)
    chosen = []
    for more in ([], ["--mask", "flood.tif", "--mask-values", "-1"]):
        arguments = ["chip", "sar.tif", "--size", "32", "--overwrite", *more]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        chosen.append(min(row.row for row in read_rows(Path("chips"))))
    assert chosen == [0, 32]


def test_a_crs_that_nobody_knows_is_one_line(scene: Path) -> None:
    arguments = [sys.executable, "-m", "geocyclegan", "chip", "sar.tif", "--crs", "EPSG:99999"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=scene.parent)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_classes_come_in_ranges(scene: Path) -> None:
    arguments = ["chip", "sar.tif", "--size", "32", "--mask", "sar.tif", "--mask-values"]
    result = CliRunner().invoke(cli, [*arguments, "100-124,126", "--min-valid", "0.1"])
    assert result.exit_code == 0, result.output
    values = [row.valid for row in read_rows(scene.parent / "chips")]
    assert 0.4 < min(values) < max(values) < 0.55
