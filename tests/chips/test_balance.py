"""Random windows drawn evenly from the classes of a label raster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.cli.chip import command
from geocyclegan.errors import OptionError

MakeScene = Callable[..., Path]


@pytest.fixture
def labels(make_scene: MakeScene) -> Path:
    """Classes on pixels twice as large: nearly all is 1, a corner is 7."""
    classes = np.ones((1, 128, 128), np.uint8)
    classes[0, 100:110, 100:110] = 7
    place = Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 4_200_000.0)
    return make_scene("labels.tif", pixels=classes, transform=place)


def classes_of(out: Path) -> Counter[bool]:
    """Count the chips that see something of the rare class, and those that do not."""
    found: Counter[bool] = Counter()
    for row in read_rows(out):
        found[row.row + 32 > 200 and row.col + 32 > 200 and max(row.row, row.col) < 220] += 1
    return found


def test_a_rare_class_comes_as_often_as_a_common_one(
    make_scene: MakeScene, labels: Path, tmp_path: Path
) -> None:
    scene = make_scene(shape=(256, 256))
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=32, random=60, balance=(str(labels),), val=0.0)
    chip_scenes([scene], options)
    found = classes_of(out)
    assert found.total() == 60
    assert found[True] >= 25  # a plain draw would find about two
    first = [(row.row, row.col) for row in read_rows(out)]
    chip_scenes([scene], options)
    assert [(row.row, row.col) for row in read_rows(out)] == first


def test_only_the_classes_that_are_named(
    make_scene: MakeScene, labels: Path, tmp_path: Path
) -> None:
    scene = make_scene(shape=(256, 256))
    out = tmp_path / "chips"
    options = ChipOptions(
        out=out, size=32, random=20, balance=(str(labels),), balance_values=(7,), val=0.0
    )
    report = chip_scenes([scene], options)
    assert report.train
    assert classes_of(out)[False] == 0
    with pytest.raises(OptionError, match="no pixel of class 9 "):
        chip_scenes([scene], ChipOptions(**{**vars(options), "balance_values": (9,)}))


def test_what_balance_needs(labels: Path) -> None:
    with pytest.raises(OptionError, match="--random"):
        ChipOptions(balance=(str(labels),))
    with pytest.raises(OptionError, match="none is named"):
        ChipOptions(balance_values=(1,))


def test_on_the_command_line(
    make_scene: MakeScene, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    scene = make_scene(shape=(256, 256))
    arguments = [str(scene), "--size", "32", "--random", "8", "--angles", "0,30", "--val", "0"]
    more = ["--balance", str(labels), "--balance-values", "1,7", "--min-valid", "0.5"]
    result = CliRunner().invoke(command, [*arguments, *more])
    assert result.exit_code == 0, result.output
    chips = list(Path("chips/train_a").glob("*.tif"))
    turns = set()
    for path in chips:
        with rasterio.open(path) as chip:
            turns.add(round(np.degrees(np.arctan2(-chip.transform.d, chip.transform.a))))
    assert len(chips) > 8
    assert turns == {0, 30}
