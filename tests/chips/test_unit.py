"""Units that files do not state: said by `chip --unit`, kept by chips, domain and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.cli.chip import command
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.radiometry import ScaleSpec
from geocyclegan.training.radiometric import RadiometricOptions, check_radiometric

MakeScene = Callable[..., Path]


@pytest.fixture
def sar(make_scene: MakeScene) -> Path:
    random = np.random.default_rng(0)
    return make_scene("sar.tif", pixels=random.normal(-12, 4, (2, 96, 128)).astype(np.float32))


@pytest.mark.parametrize("virtual", [False, True])
def test_decibel_without_a_tag(sar: Path, tmp_path: Path, virtual: bool) -> None:
    options = ChipOptions(out=tmp_path / "chips", size=32, virtual=virtual)
    speckle = RadiometricOptions(speckle=4.0, jitter_db=1.0)
    with pytest.raises(SceneError, match="--scale auto --unit dB"):
        chip_scenes([sar], replace(options, scale=ScaleSpec("db")))
    plain = chip_scenes([sar], options).record.domain
    with pytest.raises(OptionError, match="--unit dB"):
        check_radiometric(speckle, [plain])
    # The scene is refreshed, and the domain is in decibel.
    chip_scenes([sar], replace(options, unit="dB"))
    domain = ChipSet.open(options.out, "a").domain
    assert [band.unit for band in domain.bands] == ["dB", "dB"]
    check_radiometric(speckle, [domain])
    for path in (options.out / "train_a").glob("*.tif"):
        with rasterio.open(path) as chip:
            assert chip.units == ("dB", "dB")


def test_units_that_contradict(sar: Path, make_scene: MakeScene, tmp_path: Path) -> None:
    options = ChipOptions(out=tmp_path / "chips", size=32)
    chip_scenes([sar], options)
    more = make_scene("more.tif", dtype="float32", seed=4)
    with pytest.raises(OptionError, match=r"has no unit; name its first scene too"):
        chip_scenes([more], replace(options, unit="dB"))
    with rasterio.open(more, "r+") as file:
        file.units = ["m", "m"]
    with pytest.raises(OptionError, match=r"--unit dB: .*more.tif states m for band 1"):
        chip_scenes([more], replace(options, unit="dB", out=tmp_path / "new"))
    with pytest.raises(OptionError, match="--unit: it is empty"):
        replace(options, unit=" ")


def test_partners_have_a_unit_of_their_own(
    sar: Path, make_scene: MakeScene, tmp_path: Path
) -> None:
    out = tmp_path / "chips"
    other = make_scene("other.tif")
    arguments = [str(sar), "--size", "32", "--out", str(out), "--pair-unit", "K"]
    assert CliRunner().invoke(command, arguments).exit_code
    result = CliRunner().invoke(command, [*arguments, "--unit", "dB", "--pair", str(other)])
    assert result.exit_code == 0, result.output
    units = [ChipSet.open(out, domain).domain.bands[0].unit for domain in ("a", "b")]
    assert units == ["dB", "K"]
