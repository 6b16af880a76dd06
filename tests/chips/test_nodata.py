"""`chip --nodata`: collars that files do not declare."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

import geocyclegan as gcg
from geocyclegan.chips.manifest import read_record, read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError

MakeScene = Callable[..., Path]
DARK = (50, 50)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32, val=0.0, min_valid=0.1, nodata=0.0)


def pixels_with_collar(seed: int = 0, top: int = 20) -> npt.NDArray[np.uint8]:
    """Three bands from 100 to 199 with zeros at the top, and zero in one band of one pixel."""
    pixels = np.random.default_rng(seed).integers(100, 200, (3, 96, 96)).astype(np.uint8)
    pixels[:, :top] = 0
    pixels[0, *DARK] = 0
    return pixels


def valid_of(folder: Path, domain: Any = "a") -> npt.NDArray[np.bool_]:
    """Put the masks of chips where they were cut."""
    chips = ChipSet.open(folder, domain)
    rows = {row.chip: row for row in read_rows(folder)}
    valid = np.zeros((96, 96), np.bool_)
    for index, path in enumerate(chips.paths):
        row = rows[path.relative_to(folder).as_posix()]
        valid[row.row : row.row + 32, row.col : row.col + 32] = chips.read(index)[1]
    return valid


def expected(top: int = 20) -> npt.NDArray[np.bool_]:
    mask = np.ones((96, 96), np.bool_)
    mask[:top] = False
    return mask


@pytest.mark.parametrize("how", [{}, {"format": "npy"}, {"virtual": True}, {"workers": 2}], ids=str)
def test_masks_and_radiometry_leave_the_collar_out(
    make_scene: MakeScene, options: ChipOptions, how: dict[str, Any]
) -> None:
    path = make_scene(pixels=pixels_with_collar())
    report = chip_scenes([path], replace(options, **how))
    np.testing.assert_array_equal(valid_of(options.out), expected())
    domain = report.record.domain
    assert domain.undeclared == 0.0
    assert domain.nodata is None
    # As if the file had a mask that says the same.
    masked = make_scene("masked.tif", pixels=pixels_with_collar(), mask=expected())
    other = replace(options, nodata=None, out=options.out / "other")
    told = chip_scenes([masked], other).record.domain
    assert domain.radiometry == told.radiometry
    blind = chip_scenes([path], replace(other, overwrite=True)).record.domain
    assert domain.radiometry != blind.radiometry


def test_a_declared_value_stays_that_of_the_chips(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    pixels = pixels_with_collar().astype(np.int16)
    pixels[1, 90:] = -9999
    chip_scenes([make_scene(pixels=pixels, nodata=-9999)], options)
    mask = expected()
    mask[90:] = False
    np.testing.assert_array_equal(valid_of(options.out), mask)


def test_warped_chips_hold_nothing_of_the_collar(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    pixels = np.full((1, 96, 96), 150, np.uint8)
    pixels[:, :20] = 0
    path = make_scene(pixels=pixels)
    chip_scenes([path], replace(options, res="7", resampling="cubic"))
    chips = ChipSet.open(options.out, "a")
    found = [chips.read(index) for index in range(len(chips))]
    assert {int(value) for values, mask in found for value in values[:, mask].ravel()} == {150}
    assert not all(mask.all() for _, mask in found)


def test_each_of_a_pair_has_its_own(make_scene: MakeScene, options: ChipOptions) -> None:
    one = make_scene("one.tif", pixels=pixels_with_collar())
    other = pixels_with_collar(1, top=40).astype(np.float32)
    other[other == 0] = -9999
    other[:, 60, 60] = 0
    two = make_scene("two.tif", pixels=other)
    reports = chip_pairs([one], [two], options, options.partner(None, None, -9999.0))
    assert [report.record.domain.undeclared for report in reports] == [0.0, -9999.0]
    for domain in "ab":
        np.testing.assert_array_equal(valid_of(options.out, domain), expected(40))
    with pytest.raises(OptionError, match=r"--pair-nodata -1: .*one.tif.*uint8"):
        chip_pairs([two], [one], replace(options, nodata=None), options.partner(None, None, -1.0))


def test_another_value_is_another_set(make_scene: MakeScene, options: ChipOptions) -> None:
    one = make_scene("one.tif", pixels=pixels_with_collar())
    two = make_scene("two.tif", pixels=pixels_with_collar(1), transform=None)
    chip_scenes([one], options)
    before = (options.out / "domain_a.json").read_bytes()
    for nodata, told in ((None, r"\(none\)"), (7.0, "7")):
        with pytest.raises(OptionError, match=f"--nodata {told}: .*give --nodata 0, replace"):
            chip_scenes([two], replace(options, nodata=nodata))
    assert (options.out / "domain_a.json").read_bytes() == before
    chip_scenes([two], options)
    record = read_record(options.out, "a")
    assert record is not None
    assert len(record.scenes) == 2
    chip_scenes([one], replace(options, nodata=None, overwrite=True))
    with pytest.raises(OptionError, match="leave out --nodata, replace"):
        chip_scenes([two], options)


def test_sets_of_before_load_as_they_are(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(pixels=pixels_with_collar())
    chip_scenes([path], replace(options, nodata=None, virtual=True))
    file = options.out / "domain_a.json"
    told = json.loads(file.read_text())
    for scene in told["scenes"]:
        del scene["source"]["undeclared_nodata"]
    file.write_text(json.dumps(told))
    assert valid_of(options.out).all()
    assert ChipSet.open(options.out, "a").domain.undeclared is None


def chip(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["chip", "--size", "32", "--val", "0", *arguments])


def test_on_the_command_line(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_scene("float.tif", pixels=np.where(pixels_with_collar() == 0, -9999, 1).astype("float32"))
    make_scene("photo.tif", pixels=pixels_with_collar())
    refused = {
        ("photo.tif", "--nodata", "-9999"): "uint8 (whole numbers from 0 to 255)",
        ("photo.tif", "--nodata", "0.5"): "--nodata 0.5: no pixel of",
        ("photo.tif", "--nodata", "nan"): "--nodata nan: no pixel of",
        ("photo.tif", "--nodata", "black"): "--nodata black: expected the number",
        ("float.tif", "--nodata", "1e300"): "float32",
        ("photo.tif", "--pair-nodata", "0"): "it is for a --pair",
    }
    for arguments, told in refused.items():
        result = chip(*arguments)
        assert result.exit_code == 2, result.output
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not Path("chips").exists()
    assert chip("float.tif", "--nodata", "-9999", "--min-valid", "0.1").exit_code == 0
    np.testing.assert_array_equal(valid_of(Path("chips"))[:, :50], expected()[:, :50])
    shown = CliRunner().invoke(cli, ["info", "chips"]).stdout
    assert "-9999 in all bands, undeclared" in shown
    seen = CliRunner().invoke(cli, ["info", "photo.tif", "--nodata", "0"]).stdout
    assert f"{76 / 96:.1%} of a sample" in seen
    refusal = CliRunner().invoke(cli, ["info", "chips", "--nodata", "0"])
    assert refusal.exit_code == 2
    assert "--nodata: it is for scenes" in refusal.stderr


def test_what_looks_like_nodata_is_told_with_the_option(
    make_scene: MakeScene, options: ChipOptions, caplog: pytest.LogCaptureFixture
) -> None:
    lowest = float(np.finfo(np.float32).min)
    pixels = np.where(pixels_with_collar() == 0, lowest, 1).astype(np.float32)
    path = make_scene(pixels=pixels)
    with caplog.at_level(logging.WARNING):
        chip_scenes([path], replace(options, nodata=None))
    (told,) = [r.getMessage() for r in caplog.records if "--nodata" in r.getMessage()]
    value = float(told.split("--nodata ")[1].split()[0])
    # The number in the advice is the one that helps; only the dark pixel's band has it alone.
    chip_scenes([path], replace(options, nodata=value, overwrite=True))
    np.testing.assert_array_equal(valid_of(options.out), expected())


def test_in_python(make_scene: MakeScene, tmp_path: Path) -> None:
    one = make_scene("one.tif", pixels=pixels_with_collar())
    two = make_scene("two.tif", pixels=pixels_with_collar(1).astype(np.int16) - 1)
    common: dict[str, Any] = {"size": 32, "val": 0.0, "min_valid": 0.1}
    text: Any = "0"
    report = gcg.chip(one, out=tmp_path / "one", nodata=text, **common)
    assert report.record.domain.undeclared == 0.0
    pair: dict[str, Any] = {"nodata": 0, "pair_nodata": -1}
    reports = gcg.chip_pairs([(one, two)], out=tmp_path / "two", **pair, **common)
    assert [report.record.domain.undeclared for report in reports] == [0.0, -1.0]
    np.testing.assert_array_equal(valid_of(tmp_path / "two", "b"), expected())
