"""No ground is in training and validation, whatever scene, date, domain or grid shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from shapely.geometry import Polygon

from geocyclegan.chips.alike import UNFITTED
from geocyclegan.chips.apart import View, split_views
from geocyclegan.chips.geometry import Geometry, lay_windows
from geocyclegan.chips.ground import Atlas, Shown
from geocyclegan.chips.manifest import DomainName, read_record, read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.source import Source
from geocyclegan.chips.split import DROPPED, TRAIN, VAL, Split, Tally
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.target import turned
from geocyclegan.raster.windows import Window

MakeScene = Callable[..., Path]
UTM = CRS.from_epsg(32630)
GEOMETRY = Geometry(32, 32, "shift", None, 0.2, 0)


def view(grid: Grid, geometry: Geometry, name: str, base: Grid | None = None) -> View:
    domain = Domain((BandInfo(UNFITTED),), "uint8")
    source = Source(f"/{name}.tif", (1,))
    windows = lay_windows(*grid.shape, geometry)
    passed = np.random.default_rng(len(windows)).random(len(windows)) > 0.2
    passed[:1] = True
    scene = SceneFacts(name, source, domain, grid, (32, 32), None, base)
    return View(scene, windows.rows, windows.cols, passed)


def outlines(found: View, split: Split, side: int, size: int, to: CRS) -> list[Polygon]:
    """Return what chips of a side show, in a CRS, a hair less."""
    grid = found.scene.grid
    is_same = grid.crs == to
    forth = Transformer.from_crs(grid.crs.to_wkt(), to.to_wkt(), always_xy=True)  # type: ignore[union-attr]
    chosen = (split == side) & found.passed
    scene = shapely.segmentize(grid.footprint(), grid.pixel_size[0] * 8)
    shown = []
    for row, col in zip(found.rows[chosen], found.cols[chosen], strict=True):
        window = grid.window(Window(int(row), int(col), size, size)).footprint()
        if is_same:
            shown.append(window.intersection(grid.footprint()))
            continue
        line = shapely.segmentize(window, grid.pixel_size[0] * 8).intersection(scene)
        shown.append(shapely.transform(line, lambda xy: np.stack(forth.transform(*xy.T), -1)))
    return shown


def shared(views: list[View], splits: list[Split], size: int, to: CRS) -> float:
    """Return how much ground is in both, in square metres."""
    both = [
        shapely.union_all(
            [o for v, s in zip(views, splits, strict=True) for o in outlines(v, s, side, size, to)]
        )
        for side in (TRAIN, VAL)
    ]
    return float(both[0].buffer(-0.05).intersection(both[1].buffer(-0.05)).area)


places = st.tuples(
    st.floats(-900, 900),
    st.floats(-900, 900),
    st.integers(20, 120),
    st.integers(20, 120),
    st.sampled_from([7.0, 10.0, 13.0]),
    st.sampled_from([0.0, 0.0, 30.0]),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(places, min_size=1, max_size=4),
    st.sampled_from([16, 32, 48]),
    st.sampled_from(["shift", "pad"]),
    st.sampled_from([None, 12]),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_no_ground_is_in_both(
    grids: list[tuple[float, float, int, int, float, float]],
    step: int,
    edge: str,
    random: int | None,
    val: float,
    seed: int,
) -> None:
    geometry = Geometry(32, step, edge, random, val, seed)  # type: ignore[arg-type]
    views = []
    for i, (x, y, height, width, size, angle) in enumerate(grids):
        base = Grid(UTM, Affine(size, 0, 5e5 + x, 0, -size, 4e6 + y), height, width)
        views.append(view(base, geometry, f"s{i}"))
        if angle:
            views.append(view(turned(base, angle), geometry, f"s{i}", base))
    splits = split_views(views, geometry)
    assert shared(views, splits, 32, UTM) == 0
    assert any((split[v.passed] == TRAIN).any() for v, split in zip(views, splits, strict=True))
    # Those that come later keep to those that are there.
    first = [
        (Shown(v.scene.grid, v.rows[k], v.cols[k], 32, s[k]), "")
        for v, s in zip(views[:1], splits, strict=False)
        for k in [v.passed & (s != DROPPED)]
    ]
    later = split_views(views[1:], replace(geometry, seed=seed + 7), first) if views[1:] else []
    assert shared(views, [splits[0], *later], 32, UTM) == 0


@pytest.mark.parametrize(
    ("crs", "at"),
    [
        ("EPSG:32630", Affine(9, 0, 499_000.0, 0, -9, 4_001_000.0)),
        ("EPSG:32629", Affine(10, 0, 1_031_000.0, 0, -10, 4_018_500.0)),
        ("EPSG:4326", Affine(1e-4, 0, -3.015, 0, -1e-4, 36.15)),
        ("EPSG:4326", Affine(1e-4, 0, 356.985, 0, -1e-4, 36.15)),
        ("EPSG:3857", Affine(12, 0, -335_500.0, 0, -12, 4_322_000.0)),
        ("EPSG:3035", Affine(10, 0, 2_700_000.0, 0, -10, 1_680_000.0)),
    ],
)
def test_grids_of_other_crs_keep_to_the_ground(crs: str, at: Affine) -> None:
    first = view(Grid(UTM, Affine(10, 0, 5e5, 0, -10, 4e6), 400, 400), GEOMETRY, "a")
    other = Grid(CRS.from_user_input(crs), at, 400, 400)
    # Wherever the middle of the first one is.
    back = Transformer.from_crs(UTM.to_wkt(), crs, always_xy=True).transform(502_000, 3_998_000)
    turn = 360.0 if at.c > 180 and crs == "EPSG:4326" else 0.0
    middle = Affine(at.a, 0, back[0] + turn - 190 * at.a, 0, at.e, back[1] - 210 * at.e)
    views = [first, view(Grid(other.crs, middle, 400, 400), GEOMETRY, "b")]
    splits = split_views(views, GEOMETRY)
    assert shared(views, splits, 32, UTM) == 0
    for each, split in zip(views, splits, strict=True):
        kept = split[each.passed]
        assert (kept == VAL).any()
        assert np.mean(kept == DROPPED) < 0.5
    one, two = (split_views([each], GEOMETRY)[0] for each in views)
    assert shared(views, [one, two], 32, UTM) > 0


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_scenes_about_a_pole_meet(pole: float) -> None:
    crs = CRS.from_epsg(3413 if pole > 0 else 3031)
    polar = Grid(crs, Affine(100, 0, -20_000, 0, -100, 20_000), 400, 400)
    aside = Grid(crs, Affine(100, 0, 15_030, 0, -100, 20_050), 400, 400)
    views = [view(polar, GEOMETRY, "a"), view(aside, GEOMETRY, "b")]
    assert shared(views, split_views(views, GEOMETRY), 32, crs) == 0
    wide = Grid(CRS.from_epsg(4326), Affine(0.01, 0, -180, 0, -0.01, 90), 60, 36_000)
    atlas = Atlas([polar, wide], ["", ""])
    assert (1 in atlas.near(0)) == (pole > 0)


def test_scenes_on_the_180th_meridian_meet() -> None:
    east = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 179.99, 0, -1e-4, 10), 200, 200)
    west = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, -180.005, 0, -1e-4, 10), 200, 200)
    far = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, -179.5, 0, -1e-4, 10), 200, 200)
    assert Atlas([east, west, far], [""] * 3).near(1) == [0, 1]
    views = [view(east, GEOMETRY, "a"), view(west, GEOMETRY, "b")]
    near = CRS.from_epsg(32660)
    assert shared(views, split_views(views, GEOMETRY), 32, near) == 0


def test_overlapping_patches_of_one_chip_are_of_both_sides() -> None:
    grids = [
        Grid(UTM, Affine(10, 0, 5e5 + 160 * i, 0, -10, 4e6 - 160 * j), 32, 32)
        for i in range(16)
        for j in range(16)
    ]
    views = [view(grid, GEOMETRY, f"p{i:03d}") for i, grid in enumerate(grids)]
    splits = split_views(views, GEOMETRY)
    assert shared(views, splits, 32, UTM) == 0
    counts = np.bincount(np.concatenate(splits), minlength=3)
    assert counts[VAL] > 15
    assert counts[TRAIN] > 100
    assert counts[DROPPED] < 100


def test_scenes_without_a_place_are_alike_by_name_only() -> None:
    plain = Grid(None, Affine.identity(), 320, 320)
    names = ["x_s1", "x_s2", "y_s1"]
    views = [view(plain, replace(GEOMETRY, seed=i), names[i]) for i in range(3)]
    assert Atlas([plain] * 3, ["x", "x", "y"]).near(0) == [0, 1]
    one, two, _ = split_views(views, GEOMETRY)
    assert np.array_equal(one, two)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32, val=0.2)


def crops(make_scene: MakeScene) -> tuple[Path, Path]:
    """Two scenes of one place, cut out at different pixels."""
    at = Affine(10, 0, 5e5, 0, -10, 4.2e6)
    one = make_scene("one.tif", shape=(320, 288), transform=at)
    two = make_scene(
        "two.tif", shape=(320, 256), seed=1, transform=at @ Affine.translation(101, 45)
    )
    return one, two


def in_both(out: Path) -> float:
    import geopandas

    frame = geopandas.read_parquet(out / "chips.parquet").to_crs(32630)
    train, val = (
        frame[frame["split"] == split].geometry.buffer(-0.05).union_all()
        for split in ("train", "val")
    )
    assert not val.is_empty
    assert not train.is_empty
    return float(train.intersection(val).area)


def test_offset_crops_share_no_ground(make_scene: MakeScene, options: ChipOptions) -> None:
    one, two = crops(make_scene)
    report = chip_scenes([one, two], options)
    assert in_both(options.out) == 0
    assert report.val / (report.train + report.val) == pytest.approx(0.2, abs=0.06)
    rows = read_rows(options.out)
    chip_scenes([two, one], options)
    assert read_rows(options.out) == rows


@pytest.mark.parametrize("virtual", [False, True])
def test_domains_chipped_apart_share_no_ground(
    make_scene: MakeScene, options: ChipOptions, virtual: bool
) -> None:
    one, two = crops(make_scene)
    options = replace(options, virtual=virtual)
    chip_scenes([one], options)
    before = read_rows(options.out)
    one.rename(one.with_suffix(".moved"))  # what exists need not be there any more
    chip_scenes([two], replace(options, domain="b", seed=5, angles=(0.0, 20.0), min_valid=0.5))
    assert in_both(options.out) == 0
    assert [row for row in read_rows(options.out) if row.domain == "a"] == before
    assert {row.split for row in read_rows(options.out) if row.domain == "b"} == {"train", "val"}


def test_pairs_keep_to_what_is_there(make_scene: MakeScene, options: ChipOptions) -> None:
    one, two = crops(make_scene)
    three = make_scene("three.tif", shape=(300, 300), seed=2, crs="EPSG:32630")
    chip_scenes([one], options)
    partner = options.partner(None, None)
    chip_pairs([two], [three], replace(options, seed=3), partner)
    assert in_both(options.out) == 0
    rows = read_rows(options.out)
    domains: tuple[DomainName, DomainName] = "a", "b"
    sides = [
        {
            (row.row, row.col, row.split)
            for row in rows
            if row.domain == domain and row.scene != str(one)
        }
        for domain in domains
    ]
    assert sides[0] == sides[1]
    record = read_record(options.out, "a")
    assert record is not None
    assert [bool(scene.grid) for scene in record.scenes] == [True, False]


def test_the_share_is_of_valid_chips(make_scene: MakeScene, options: ChipOptions) -> None:
    pixels = np.random.default_rng(0).uniform(1, 2, (1, 300, 300)).astype(np.float32)
    pixels[:, :30] = np.nan
    path = make_scene(pixels=pixels, nodata=float("nan"))
    for seed in range(4):
        given = replace(options, size=64, val=0.1, seed=seed, overwrite=True)
        report = chip_scenes([path], given)
        assert (report.train, report.val) == (18, 2)


def test_a_share_far_off_is_told(
    make_scene: MakeScene, options: ChipOptions, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_scene(shape=(32, 32))
    chip_scenes([one], options)
    assert "0 of 1 chips of domain a are for validation, 0 % where --val asks for 20 %" in (
        caplog.text
    )
    assert "there is but one chip" in caplog.text
    caplog.clear()
    chip_scenes([make_scene(shape=(96, 96))], replace(options, overwrite=True))
    assert "--val" not in caplog.text


def test_nothing_to_choose_from_is_no_error() -> None:
    grid = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 4e6), 320, 320)
    empty = replace(view(grid, GEOMETRY, "a"), passed=np.zeros(100, np.bool_))
    assert len(split_views([empty], GEOMETRY, before=Tally())[0]) == 100
