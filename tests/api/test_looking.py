"""info and verify in Python, loaded models as arguments, and errors in Python's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import geocyclegan as gcg
from geocyclegan.api.wording import in_python
from geocyclegan.bundle import save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.errors import NotFoundError, OptionError, OutputError
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

MakeRaster = Any
GCG: Any = gcg


@pytest.fixture
def work(tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene, its chips, and a model of one band."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 255, (1, 64, 64)).astype(np.uint8)
    make_raster("scene.tif", pixels, names=("VV",))
    torch.manual_seed(0)
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "VV"),), "uint8")
    network = build_generator("resnet6", in_channels=1, out_channels=1, width=2, blocks=1)
    save_bundle(
        tmp_path / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", network)},
        domains={"a": domain, "b": domain},
        tile=32,
        training={"steps": 1},
    )
    return tmp_path


def test_info_says_what_the_command_does(work: Path) -> None:
    gcg.chip("scene.tif", size=32, val=0.0)
    for path in ("scene.tif", "chips", "model"):
        said = json.loads(CliRunner().invoke(cli, ["info", path, "--json"]).stdout)
        assert {k: v for k, v in said.items() if k not in ("quicklook", "histogram")} == gcg.info(
            Path(path)
        )
    assert gcg.info("scene.tif", bands="vv")["bands"][0]["index"] == 1
    assert gcg.info("scene.tif", bands=[1], nodata=0)["valid"] == 1.0
    with pytest.raises(OptionError, match=r"^bands=: it chooses bands of a scene"):
        gcg.info("model", bands=[1])
    with pytest.raises(NotFoundError, match="no such file"):
        gcg.info("none.tif")


def test_verify_reports_and_raises_nothing(work: Path) -> None:
    gcg.chip("scene.tif", size=32, val=0.0)
    chips, model = gcg.verify(["chips", "model"])
    assert (chips.sound, chips.faults, model.sound) == (True, 0, True)
    chip = next((work / "chips" / "train_a").glob("*.tif"))
    chip.write_bytes(chip.read_bytes()[:-1])
    (broken,) = gcg.verify("chips")
    assert not broken.sound
    assert broken.faults == 1
    assert chip.name in broken.lines[0]
    with pytest.raises(NotFoundError, match="none: no such file or folder"):
        gcg.verify((work / "model", "none"))


def test_a_loaded_model_is_an_argument(work: Path) -> None:
    model = gcg.load("model", device="cpu")
    (by_folder,) = gcg.infer("scene.tif", out=Path("1.tif"), model=Path("model"), device="cpu")
    (work / "model" / "model.json").rename(work / "model" / "hidden")  # nothing is read again
    (loaded,) = gcg.infer("scene.tif", out=Path("2.tif"), model=model)
    assert by_folder.read_bytes() == loaded.read_bytes()
    with pytest.raises(OptionError, match=r"^model=5: expected Path or Model or None"):
        GCG.infer("scene.tif", model=5)


def test_errors_name_arguments(work: Path) -> None:
    (work / "x.tif").touch()
    with pytest.raises(OutputError, match=r"^out=x.tif: it exists; give overwrite=True or") as e:
        gcg.infer("scene.tif", out=Path("x.tif"), model=Path("model"))
    assert isinstance(e.value, OSError)
    with pytest.raises(OptionError, match=r"^min_std=-1: expected a finite number"):
        gcg.chip("scene.tif", min_std=-1)
    with pytest.raises(OptionError, match=r"^out=x\.pdf: products are GeoTIFFs"):
        gcg.infer("scene.tif", out=Path("x.pdf"), model=Path("model"))


@pytest.mark.parametrize(
    ("verb", "message", "expected"),
    [
        ("infer", "--out a b.tif: it exists", "out= a b.tif: it exists"),
        ("chip", "--shared-scale: differ; leave it out", "shared_scale=True: differ; leave it out"),
        ("train", "--no-flip with --config", "flip=False with config="),
        # Not of this verb, or of other programs.
        ("infer", "give --steps; gdal_edit.py -a_srs X", "give --steps; gdal_edit.py -a_srs X"),
        (
            "chip",
            "run: geocyclegan chip x --out c --overwrite; or choose another --out",
            "run: geocyclegan chip x --out c --overwrite; or choose another out=",
        ),
    ],
)
def test_only_the_options_of_a_verb_are_spelled_anew(
    verb: str, message: str, expected: str
) -> None:
    assert in_python(message, verb) == expected
