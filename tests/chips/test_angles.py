"""Chips on turned grids: in their place, in their values, and on their side of the split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from shapely.geometry import Polygon

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.cli.chipped import summary
from geocyclegan.errors import OptionError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.target import turned

MakeScene = Callable[..., Path]


def slope(make_scene: MakeScene, side: int = 160, **profile: object) -> Path:
    """A scene that is linear in row and column, so that interpolation is exact."""
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32)
    return make_scene("slope.tif", pixels=np.stack([cols + 0.5, rows + 0.5]), **profile)


def outlines(out: Path, folder: str) -> list[Polygon]:
    found = []
    for path in sorted((out / folder).glob("*.tif")):
        with rasterio.open(path) as chip:
            found.append(Grid(chip.crs, chip.transform, *chip.shape).footprint())
    return found


@pytest.mark.parametrize("angle", [15.0, 45.0, 90.0, -30.0, 180.0])
def test_pixels_lie_where_the_turned_transform_says(
    make_scene: MakeScene, tmp_path: Path, angle: float
) -> None:
    scene = slope(make_scene)
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=32, val=0.0, angles=(angle,), min_valid=0.5)
    assert chip_scenes([scene], options).train > 3
    with rasterio.open(scene) as file:
        to_pixels = ~file.transform
    for path in (out / "train_a").glob("*.tif"):
        with rasterio.open(path) as chip:
            pixels, valid, place = chip.read(), chip.dataset_mask() > 0, chip.transform
        back = to_pixels * place
        assert np.degrees(np.arctan2(back.d, back.a)) % 360 == pytest.approx(angle % 360)
        assert np.hypot(back.a, back.d) == pytest.approx(1.0)
        rows, cols = np.mgrid[0:32, 0:32] + 0.5
        inner = valid & (pixels > 1.5).all(axis=0) & (pixels < 158.5).all(axis=0)
        for band, expected in zip(
            pixels,
            (back.a * cols + back.b * rows + back.c, back.d * cols + back.e * rows + back.f),
            strict=True,
        ):
            np.testing.assert_allclose(band[inner], expected[inner], atol=0.05)
        assert inner.sum() > 256


def test_no_ground_is_in_both_splits_whatever_the_angle(
    make_scene: MakeScene, tmp_path: Path
) -> None:
    scene = make_scene(shape=(320, 320))
    out = tmp_path / "chips"
    for random in (None, 30):
        options = ChipOptions(
            out=out, size=16, val=0.3, angles=(0.0, 15.0, 40.0), overwrite=True, random=random
        )
        report = chip_scenes([scene], options)
        assert report.scenes == 1
        assert report.val > 0
        train, val = (shapely.union_all(outlines(out, f"{split}_a")) for split in ("train", "val"))
        # Turned corners carry rounding errors of nanometres.
        assert train.buffer(-0.001).intersection(val.buffer(-0.001)).area == 0
    chips = ChipSet.open(out, "a")
    assert chips.scenes == (str(scene.resolve()),)
    assert len(chips.by_scene()) == 3
    assert not verify_chips(out).damaged


def test_angle_zero_is_what_it_is_without_angles(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(shape=(160, 160))
    plain, turns = tmp_path / "plain", tmp_path / "turns"
    chip_scenes([scene], ChipOptions(out=plain, size=32, val=0.2))
    chip_scenes([scene], ChipOptions(out=turns, size=32, val=0.2, angles=(0.0, 30.0)))
    # Which blocks are for validation depends on all chips, what is in a chip does not.
    upright = {Path(row.chip).name: row.sha256 for row in read_rows(plain)}
    assert upright.items() <= {Path(row.chip).name: row.sha256 for row in read_rows(turns)}.items()
    # Chipped again without the angles, their chips go.
    chip_scenes([scene], ChipOptions(out=turns, size=32, val=0.2))
    assert read_rows(turns) == read_rows(plain)


def test_a_scene_is_counted_once(make_scene: MakeScene, tmp_path: Path) -> None:
    options = ChipOptions(out=tmp_path / "chips", size=32, angles=(0.0, 30.0))
    report = chip_scenes([make_scene(shape=(160, 160))], options)
    assert len(report.record.scenes) == 2
    assert "from 1 scene for domain a" in summary(report, "a")
    assert "the domain now has" not in summary(report, "a")


def test_pairs_and_virtual_sets_are_turned_alike(make_scene: MakeScene, tmp_path: Path) -> None:
    a, b = make_scene("a.tif", shape=(96, 96)), make_scene("b.tif", shape=(96, 96), seed=1)
    shared: dict[str, Any] = {"size": 32, "val": 0.0, "angles": (20.0,), "min_valid": 0.5}
    files, virtual = tmp_path / "files", tmp_path / "virtual"
    for out, kind in ((files, False), (virtual, True)):
        chip_pairs(
            [a],
            [b],
            ChipOptions(out=out, virtual=kind, **shared),
            ChipOptions(domain="b", out=out, virtual=kind, **shared),
        )
    for domain in ("a", "b"):
        ours, theirs = (ChipSet.open(out, domain) for out in (files, virtual))
        assert len(ours) == len(theirs) > 2
        for i in range(len(ours)):
            (pixels, valid), (same, mask) = ours.read(i), theirs.read(i)
            assert np.array_equal(valid, mask)
            assert np.array_equal(pixels[:, valid], same[:, valid])


def test_turned_grids_hold_the_whole_scene() -> None:
    grid = Grid(None, Affine(2.0, 0.0, 7.0, 0.0, -2.0, 9.0), 30, 70)
    for angle in (0.0, 17.0, 90.0, 135.0, 270.0):
        assert turned(grid, angle).footprint().buffer(1e-6).contains(grid.footprint())
    assert turned(grid, 90.0).shape == (70, 30)
    assert turned(grid, 180.0).shape == (30, 70)


@pytest.mark.parametrize("angles", [(), (360.0,), (0.0, 0.0), (30.0, -330.0), (float("nan"),)])
def test_angles_that_cannot_be(angles: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="--angles"):
        ChipOptions(angles=angles)
