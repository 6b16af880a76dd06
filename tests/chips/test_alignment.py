from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from geocyclegan.chips.manifest import Split, read_record, read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.pairs import find_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

MakeScene = Callable[..., Path]
COARSE = Affine(20.0, 0.0, 500_100.0, 0.0, -20.0, 4_199_900.0)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32, val=0.2)


def windows(options: ChipOptions, domain: str) -> set[tuple[int, int, str]]:
    return {(r.row, r.col, r.split) for r in read_rows(options.out) if r.domain == domain}


def chip_grids(options: ChipOptions, domain: str) -> dict[tuple[int, int], Grid]:
    grids = {}
    for row in read_rows(options.out):
        if row.domain == domain:
            with Scene(options.out / row.chip) as chip:
                grids[row.row, row.col] = chip.grid
    return grids


def test_like_gives_the_windows_of_the_other_scene(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    a = make_scene("a.tif")
    b = make_scene("b.tif", transform=COARSE, shape=(60, 80), bands=3, dtype="float32")
    chip_scenes([a], options)
    report = chip_scenes([b], replace(options, domain="b", like=str(a), min_valid=0.99))
    assert report.left_out["invalid"] == 12 - (report.train + report.val) > 0
    assert windows(options, "b") < windows(options, "a")
    a_grids, b_grids = chip_grids(options, "a"), chip_grids(options, "b")
    assert all(a_grids[key] == grid for key, grid in b_grids.items())
    assert report.record.domain.gsd == pytest.approx(10.0)
    assert {round(row.gsd or 0, 6) for row in read_rows(options.out)} == {10.0}


def test_a_size_and_a_crs(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(shape=(128, 128))
    report = chip_scenes([path], replace(options, res="20"))
    assert report.windows == 4
    assert report.record.domain.gsd == pytest.approx(20.0)
    for grid in chip_grids(options, "a").values():
        assert grid.pixel_size == (20.0, 20.0)
        assert grid.transform.c % 20 == grid.transform.f % 20 == 0
    again = replace(options, crs="EPSG:3035", resampling="nearest", overwrite=True, min_valid=0.3)
    chip_scenes([path], again)
    assert {g.crs.to_epsg() for g in chip_grids(options, "a").values() if g.crs} == {3035}
    record = read_record(options.out, "a")
    assert record is not None
    assert record.scenes[0].options["crs"] == "EPSG:3035"
    values = np.unique(np.concatenate([ChipSet.open(options.out, "a").read(0)[0].ravel(), [0]]))
    assert set(values) <= {0, *range(100, 200)}


def test_what_is_on_the_grid_already_is_not_touched(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path
) -> None:
    path = make_scene()
    chip_scenes([path], options)
    chip_scenes([path], replace(options, out=tmp_path / "same", res="10", crs="EPSG:32630"))
    plain = {row.chip: row.sha256 for row in read_rows(options.out)}
    assert {row.chip: row.sha256 for row in read_rows(tmp_path / "same")} == plain


def test_pairs_share_windows_split_and_mask(make_scene: MakeScene, options: ChipOptions) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(100, 200, (2, 160, 160)).astype(np.float32)
    pixels[:, 40:60, 50:70] = np.nan
    a = make_scene("a.tif", pixels=pixels)
    coarse = random.integers(100, 200, (3, 70, 64)).astype(np.uint16)
    coarse[:, 5:9, :20] = 0
    b = make_scene("b.tif", pixels=coarse, transform=COARSE, nodata=0)
    lenient = replace(options, min_valid=0.3)
    first, second = chip_pairs([a], [b], lenient, replace(lenient, domain="b"))
    assert (first.train, first.val) == (second.train, second.val)
    assert first.val > 0
    assert windows(options, "a") == windows(options, "b")
    assert chip_grids(options, "a") == chip_grids(options, "b")
    (corner,) = {grid.xy(-row, -col) for (row, col), grid in chip_grids(options, "a").items()}
    assert corner == (500_100.0, 4_199_900.0)
    masked = 0
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        sets = ChipSet.open(options.out, "a", split), ChipSet.open(options.out, "b", split)
        for i in range(len(sets[0])):
            (_, valid), (_, other) = sets[0].read(i), sets[1].read(i)
            assert np.array_equal(valid, other)
            masked += int((~valid).sum())
    assert masked > 0
    assert {row.valid for row in read_rows(options.out)} != {1.0}


def test_pairs_are_of_windows_that_both_pass(make_scene: MakeScene, options: ChipOptions) -> None:
    flat = np.random.default_rng(0).integers(100, 200, (1, 96, 128)).astype(np.uint16)
    flat[:, :32, :32] = 7
    a, b = make_scene("a.tif", bands=1), make_scene("b.tif", pixels=flat)
    both = replace(options, min_std=1.0), replace(options, domain="b", min_std=1.0)
    first, second = chip_pairs([a], [b], *both)
    assert (first.left_out["unpaired"], second.left_out["flat"]) == (1, 1)
    assert windows(options, "a") == windows(options, "b")
    assert len(windows(options, "a")) == 11


def test_refused_pairs_leave_nothing(make_scene: MakeScene, options: ChipOptions) -> None:
    a = make_scene("a.tif")
    far = make_scene("far.tif", transform=Affine(10.0, 0.0, 9e5, 0.0, -10.0, 9e5))
    bare = make_scene("bare.tif", crs=None, transform=Affine.identity())
    other = replace(options, domain="b")
    cases: list[tuple[list[Path], type[Exception], str]] = [
        ([far], SceneError, "do not overlap"),
        ([bare], SceneError, "has none"),
        ([a, far], OptionError, "--pair: 2 scenes for 1"),
    ]
    for partners, error, words in cases:
        with pytest.raises(error, match=words):
            chip_pairs([a], partners, options, other)
        assert not options.out.exists()


def test_scales_and_offsets_are_applied_where_they_differ(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    pixels = np.random.default_rng(0).integers(2000, 3000, (1, 64, 64)).astype(np.uint16)

    def packed(name: str, values: Any, scale: float, offset: float, **profile: Any) -> Path:
        path = make_scene(name, pixels=values, **profile)
        with rasterio.open(path, "r+") as scene:
            scene.scales, scene.offsets = [scale], [offset]
        return path

    old = packed("old.tif", pixels, 1e-4, 0.0, nodata=0)
    new = packed("new.tif", pixels + np.uint16(1000), 1e-4, -0.1, nodata=0)
    floats = make_scene("float.tif", pixels=(pixels * 1e-4).astype(np.float32))
    report = chip_scenes([old, new], replace(options, val=0.0))
    chips = ChipSet.open(options.out, "a")
    assert [chips.read(i)[0].sum() for i in range(4)] == [
        chips.read(4 + i)[0].sum() for i in range(4)
    ]
    # Adding meets the numbers of the folder, too.
    added = chip_scenes([floats], replace(options, val=0.0))
    assert added.record.domain.bands[0].scaling == report.record.domain.bands[0].scaling
    assert added.record.domain.dtype == "uint16"
    for row in read_rows(options.out):
        with Scene(options.out / row.chip) as chip:
            got = chip.read(Window(0, 0, 32, 32))[0]
            assert chip.bands[0].scale == 1e-4
        assert np.array_equal(got, pixels[:, row.row : row.row + 32, row.col : row.col + 32])
    bare = make_scene("bare.tif", pixels=pixels)
    with pytest.raises(OptionError, match="stored with scale"):
        chip_scenes([bare], replace(options, val=0.0))


def test_domains_of_unlike_pixels_are_warned_of(
    make_scene: MakeScene, options: ChipOptions, caplog: pytest.LogCaptureFixture
) -> None:
    chip_scenes([make_scene("a.tif")], options)
    coarse = make_scene("b.tif", transform=COARSE)
    chip_scenes([coarse], replace(options, domain="b"))
    assert "20 m, of the other 10 m" in caplog.text


def degrees(west: float, res: float = 0.1) -> dict[str, Any]:
    return {"crs": "EPSG:4326", "transform": Affine(res, 0.0, west, 0.0, -res, 10.0)}


@pytest.mark.parametrize(("west", "other"), [(-10.0, 350.0), (175.0, -185.0), (-180.0, 0.0)])
def test_longitudes_may_be_counted_from_elsewhere(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path, west: float, other: float
) -> None:
    shape = (64, 1800 if west == -180.0 else 96)
    pixels = np.random.default_rng(0).integers(100, 200, (1, *shape)).astype(np.uint8)
    a = make_scene("a.tif", pixels=pixels, **degrees(west, 0.2 if west == -180.0 else 0.1))
    turned = np.roll(pixels, 900, axis=2) if west == -180.0 else pixels
    b = make_scene("b.tif", pixels=turned, **degrees(other, 0.2 if west == -180.0 else 0.1))
    # The same ground under other numbers: the very same pixels.
    chip_pairs([a], [b], options, replace(options, domain="b"))
    sets = ChipSet.open(options.out, "a"), ChipSet.open(options.out, "b")
    assert len(sets[0]) >= 4
    for i in range(len(sets[0])):
        assert np.array_equal(sets[0].read(i)[0], sets[1].read(i)[0])
    outlines = geopandas.read_parquet(options.out / "chips.parquet").geometry
    assert outlines.is_valid.all()
    assert -180.0 <= outlines.total_bounds[0] < outlines.total_bounds[2] <= 180.0
    # So it is by --like, and chips of one ground are pairs whatever numbers they carry.
    alone = replace(options, out=tmp_path / "alone")
    chip_scenes([a], alone)
    report = chip_scenes([b], replace(alone, domain="b", like=str(a)))
    assert report.left_out["invalid"] == 0
    if west == -180.0:
        return  # the windows of the two do not coincide
    plain = replace(options, out=tmp_path / "plain")
    chip_scenes([a], plain)
    chip_scenes([b], replace(plain, domain="b"))
    found = ChipSet.open(plain.out, "a"), ChipSet.open(plain.out, "b")
    pairs = find_pairs(plain.out, *found)
    assert pairs
    assert all(np.array_equal(found[0].read(i)[0], found[1].read(j)[0]) for i, j in pairs)


def test_a_global_scene_and_a_region_on_its_edge(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    globe = make_scene("globe.tif", shape=(100, 1800), **degrees(0.0, 0.2))
    region = make_scene("region.tif", shape=(160, 160), **degrees(-8.0))
    other = replace(options, domain="b")
    report, _ = chip_pairs([globe], [region], options, other)
    assert report.windows == 9  # 80 x 80 px, 32 px each, both sides of 0 degrees at once
    assert report.left_out["invalid"] == 0
    chip_pairs([region], [globe], replace(options, overwrite=True), replace(other, overwrite=True))
    assert len(windows(options, "b")) == len(windows(options, "a")) == 25


def test_chips_around_a_pole(make_scene: MakeScene, options: ChipOptions) -> None:
    place = {"crs": "EPSG:3031", "transform": Affine(5e4, 0, -1.6e6, 0, -5e4, 3.2e6)}
    scene = make_scene(shape=(128, 64), **place)
    chip_scenes([scene], options)
    outlines = geopandas.read_parquet(options.out / "chips.parquet").geometry
    assert outlines.is_valid.all()
    assert sum(outline.bounds[1] == -90.0 for outline in outlines) >= 2
    assert outlines.union_all().is_valid
