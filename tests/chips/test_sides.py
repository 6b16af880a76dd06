"""Scenes of one chip each: whole scenes are set aside, co-registered ones on the same side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from affine import Affine
from rasterio.crs import CRS

from geocyclegan.chips.alike import UNFITTED
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.sides import whole_sides
from geocyclegan.chips.source import Source
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid

GEOMETRY = Geometry(32, 32, "shift", None, 0.2, 0)


def scene(path: str, index: int | None, side: int = 32) -> SceneFacts:
    crs = None if index is None else CRS.from_epsg(32630)
    at = Affine(10, 0, 5e5 + 1000 * (index or 0), 0, -10, 4e6)
    grid = Grid(crs, Affine.identity() if index is None else at, side, side)
    domain = Domain((BandInfo(UNFITTED),), "uint8")
    return SceneFacts(Path(path).stem, Source(path, (1,)), domain, grid, (32, 32), None)


def test_whole_scenes_are_set_aside_by_their_place() -> None:
    first = whole_sides([scene(f"/s1/{i}.tif", i) for i in range(200)], GEOMETRY)
    # Another order, other names, another number of pixels on the same ground.
    others = [scene(f"/s2/x{i}.tif", i) for i in reversed(range(200))]
    second = whole_sides(others, GEOMETRY)
    assert {Path(p).stem: s for p, s in first.items()} == {
        Path(p).stem[1:]: s for p, s in second.items()
    }
    assert 20 <= list(first.values()).count("val") <= 60
    assert first != whole_sides(
        [scene(f"/s1/{i}.tif", i) for i in range(200)], replace(GEOMETRY, seed=1)
    )


def test_without_a_place_the_name_stands_for_it() -> None:
    ours = [scene(f"/x/ROIs1158_spring_s1_0_p{i}.png", None) for i in range(50)]
    theirs = [scene(f"/y/ROIs1158_spring_s2_0_p{i}.png", None) for i in range(50)]
    sides = [list(whole_sides(s, GEOMETRY).values()) for s in (ours, theirs)]
    assert sides[0] == sides[1]
    assert set(sides[0]) == {"train", "val"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_scenes_have_both_sides(count: int) -> None:
    for seed in range(30):
        geometry = replace(GEOMETRY, seed=seed)
        sides = whole_sides([scene(f"/{i}.tif", i) for i in range(count)], geometry)
        assert set(sides.values()) == {"train", "val"}


def test_what_can_be_divided_is_and_one_scene_stays_for_training() -> None:
    sides = whole_sides([scene("/big.tif", 0, 320), scene("/small.tif", 7)], GEOMETRY)
    assert "/big.tif" not in sides
    assert set(whole_sides([scene("/one.tif", 3)], replace(GEOMETRY, val=0.0))) == set()


def test_one_scene_is_for_training_unless_others_are() -> None:
    seeds = [replace(GEOMETRY, seed=seed) for seed in range(40)]
    assert {s for g in seeds for s in whole_sides([scene("/one.tif", 3)], g).values()} == {"train"}
    known = [whole_sides([scene("/one.tif", 3)], g, known={"train"}) for g in seeds]
    assert {s for sides in known for s in sides.values()} == {"train", "val"}


def test_a_set_of_scenes_of_one_chip_each(tmp_path: Path, make_scene: Callable[..., Path]) -> None:
    for i in range(12):
        place = Affine(10, 0, 5e5 + 1000 * i, 0, -10, 4e6)
        for sensor in ("s1", "s2"):
            make_scene(f"{sensor}/p{i}_{sensor}.tif", shape=(32, 32), seed=i, transform=place)
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
