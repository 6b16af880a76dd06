"""Scenes of one chip each: whole scenes are set aside, co-registered ones on the same side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from affine import Affine
from rasterio.crs import CRS

from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.sides import name_of, place_of, whole_sides
from geocyclegan.chips.source import Source
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.raster.grid import Grid


def place(index: int, side: int = 32) -> str:
    size = 320 / side
    at = Affine(size, 0, 5e5 + 1000 * index, 0, -size, 4e6)
    return place_of(Grid(CRS.from_epsg(32630), at, side, side), "")


def test_whole_scenes_are_set_aside_by_their_place() -> None:
    first = whole_sides([place(i) for i in range(200)], 0.2, 0)
    # Another order, another number of pixels on the same ground.
    second = whole_sides([place(i, 64) for i in reversed(range(200))], 0.2, 0)
    assert first == second[::-1]
    assert 20 <= first.count("val") <= 60
    assert first != whole_sides([place(i) for i in range(200)], 0.2, 1)


def test_without_a_place_the_name_stands_for_it() -> None:
    ours, theirs = (
        [name_of(Source(f"/{s}/ROIs1158_spring_{s}_0_p{i}.png", (1,))) for i in range(50)]
        for s in ("s1", "s2")
    )
    assert ours == theirs
    assert set(whole_sides(ours, 0.2, 0)) == {"train", "val"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_scenes_have_both_sides(count: int) -> None:
    for seed in range(30):
        assert set(whole_sides([place(i) for i in range(count)], 0.2, seed)) == {"train", "val"}


def test_one_scene_is_for_training_unless_others_are() -> None:
    assert {s for i in range(40) for s in whole_sides([place(3)], 0.2, i)} == {"train"}
    known = [whole_sides([place(3)], 0.2, seed, known={"train"}) for seed in range(40)]
    assert {side for sides in known for side in sides} == {"train", "val"}
    assert whole_sides([place(3)], 0.0, 0) == ["train"]


def test_a_set_of_scenes_of_one_chip_each(tmp_path: Path, make_scene: Callable[..., Path]) -> None:
    for i in range(12):
        at = Affine(10, 0, 5e5 + 1000 * i, 0, -10, 4e6)
        for sensor in ("s1", "s2"):
            make_scene(f"{sensor}/p{i}_{sensor}.tif", shape=(32, 32), seed=i, transform=at)
    out = tmp_path / "chips"
    for domain, sensor in (("a", "s1"), ("b", "s2")):
        chip_scenes(
            [tmp_path / sensor],
            ChipOptions(domain=domain, out=out, size=32, val=0.3),  # type: ignore[arg-type]
        )
    names = [
        {path.name.split("_")[0] for path in ChipSet.open(out, domain, "val").paths}
        for domain in ("a", "b")
    ]
    assert names[0] == names[1]
    assert names[0]
    assert len(ChipSet.open(out, "a")) + len(names[0]) == 12
