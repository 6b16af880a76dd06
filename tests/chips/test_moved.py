"""Virtual sets that were moved with their scenes are read as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geocyclegan.chips.moved import repoint
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import ChipsError

MakeScene = Callable[..., Path]


def test_a_project_is_renamed(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene("prj/s1.tif")
    clouds = make_scene("prj/clouds.tif", pixels=np.zeros((1, 96, 128), np.uint8))
    options = ChipOptions(
        out=tmp_path / "prj" / "chips", size=32, virtual=True, mask=(str(clouds),)
    )
    chip_scenes([scene], options)
    before = ChipSet.open(options.out, "a").read(0)[0]
    (tmp_path / "prj").rename(tmp_path / "other")
    moved = ChipSet.open(tmp_path / "other" / "chips", "a")
    assert np.array_equal(moved.read(0)[0], before)
    # Another scene where the first one was is not taken for it.
    make_scene("prj/s1.tif", seed=5, dtype="uint8")
    again = ChipSet.open(tmp_path / "other" / "chips", "a")
    assert np.array_equal(again.read(0)[0], before)
    make_scene("other/s1.tif", seed=5, dtype="uint8")
    with pytest.raises(ChipsError, match="since it was chipped"):
        ChipSet.open(tmp_path / "other" / "chips", "a")


def test_paths_of_all_kinds(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    names = ["a.tif", "a.tif.b", "x.SAFE/MTD.xml"]
    moved = {str(old / name): str(new / name) for name in names}
    source = {
        "path": f"{old / 'a.tif'}+{old / 'a.tif.b'}",
        "masks": [{"path": str(old / "kept.tif"), "values": None}],
        "partner": {"path": str(old / "x.SAFE"), "bands": [1]},
    }
    assert repoint(source, moved) == {
        "path": f"{new / 'a.tif'}+{new / 'a.tif.b'}",
        "masks": [{"path": str(old / "kept.tif"), "values": None}],
        "partner": {"path": str(new / "x.SAFE"), "bands": [1]},
    }
