"""Exit codes of all commands: 2 where the command is at fault, 1 where its data or output is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from PIL import Image

from geocyclegan.cli.main import cli

SCENE, MODEL = "one.tif", "runs/first"

# A path that is named and not there is a mistyped command, whatever takes it.
MISSING = [
    "chip none.tif",
    f"chip {SCENE} --aoi none",
    f"chip {SCENE} --exclude none",
    f"chip {SCENE} --mask none",
    f"chip {SCENE} --labels none",
    f"chip {SCENE} --like none",
    f"chip {SCENE} --pair none",
    f"chip {SCENE} --size 16 --random 3 --balance none",
    "train none",
    "train --config none",
    "train chips --pairs none",
    "train chips --weak-pairs none",
    "train chips --features none",
    "train chips --method semantic --segmenter none",
    "train chips --generator smp-unet --encoder-weights none",
    "train none --resume --name none",
    "train none --find-lr",
    "infer none.tif",
    f"infer {SCENE} --model none",
    f"infer {SCENE} --model {MODEL} --style none",
    "info none",
    "export --model none",
    f"export --model {MODEL} --format torch --scene none",
    "sample --model none",
    "verify none",
    "import none.pth",
    "import weights.pth --domain-a none",
    "import weights.pth --chips none",
]

# So is an output that cannot be one, whatever --overwrite says.
IMPOSSIBLE = [
    f"infer {SCENE} --out {SCENE} --overwrite",
    f"infer {SCENE} two.tif --out file",
    f"infer {SCENE} --out file/x.tif",
    f"infer {SCENE} --out s3:/bucket/x.tif",
    f"chip {SCENE} --size 16 --out file",
    f"chip {SCENE} --size 16 --out s3:/bucket",
    "train chips --out file",
    f"export --model {MODEL} --format mlm --out file/x.json",
    "import weights.pth --out file",
    "demo --out file",
    f"info {SCENE} --quicklook {SCENE} --overwrite",
    f"info {SCENE} --quicklook file/x.png",
    f"info {SCENE} --histogram {SCENE} --overwrite",
    "info of_png.vrt --quicklook one.png --overwrite",
    "info layout --quicklook layout/trainA/x.png --overwrite",
    f"export --model {MODEL} --format mlm --out {MODEL}/model/model.json --overwrite",
    "import runs/first/model/weights.pth --out runs/first --overwrite",
    "chip of_chips.vrt --size 16 --overwrite",
    f"chip {SCENE} --size 16 --mask chips/train_a/mask.tif --overwrite",
]

# One that exists waits for --overwrite; data that is there may be no good.
DATA = [
    f"infer {SCENE} --out two.tif",
    f"infer {SCENE} --model chips",
    f"export --model {MODEL} --format mlm --out file.json",
    f"info {SCENE} --quicklook file.png",
    "infer file --out x.tif",
    "chip file",
    "info file",
    "info empty",
    "train empty",
    "export --model empty",
    "verify file",
    "import file",
]


@pytest.fixture
def folder(work: Path) -> Path:
    (work / "empty").mkdir()
    for name in ("file", "file.json", "file.png"):
        (work / name).write_text("mine")
    (work / "weights.pth").write_text("no weights")
    result = CliRunner().invoke(cli, ["chip", SCENE, "--size", "16", "--min-valid", "0"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(cli, ["chip", SCENE, "--size", "16", "--domain", "b"])
    assert result.exit_code == 0, result.output
    _add_inputs(work)
    return work


def _add_inputs(work: Path) -> None:
    """Rasters that are read through others, or that lie where outputs are written."""
    shutil.copy("weights.pth", "runs/first/model/weights.pth")
    (chip, *_) = sorted((work / "chips" / "train_a").glob("*.tif"))
    shutil.copy(chip, chip.with_name("mask.tif"))
    with rasterio.open(chip) as dataset:
        rasterio.shutil.copy(dataset, "of_chips.vrt", driver="VRT")
    (work / "layout" / "trainA").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save("layout/trainA/x.png")
    Image.new("RGB", (16, 16)).save("one.png")
    with rasterio.open("one.png") as dataset:
        rasterio.shutil.copy(dataset, "of_png.vrt", driver="VRT")


@pytest.mark.parametrize(
    ("line", "code"),
    [(line, 2) for line in MISSING + IMPOSSIBLE] + [(line, 1) for line in DATA],
)
def test_what_is_at_fault(folder: Path, line: str, code: int) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == code, result.output
    said = result.stderr.strip().splitlines()
    assert said[-1].startswith("Error: "), said
    assert "unexpected" not in said[-1]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
