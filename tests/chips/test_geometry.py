from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely import box

from geocyclegan.chips.geometry import (
    EDGES,
    Edge,
    Geometry,
    Ground,
    drawn,
    edge_starts,
    lay_windows,
    parse_length,
)
from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.parts import divide
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import ChipsError, OptionError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import Window

MakeScene = Callable[..., Path]
UTM = CRS.from_epsg(32630)
sides, sizes, steps = st.integers(1, 300), st.integers(8, 64), st.integers(3, 90)


def grid(size: float, crs: CRS | None = UTM) -> Grid:
    return Grid(crs, Affine(size, 0.0, 5e5, 0.0, -size, 4e6), 100, 100)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32)


@given(sides, sizes, steps, st.sampled_from(EDGES))
def test_edges(length: int, size: int, step: int, edge: Edge) -> None:
    positions = edge_starts(length, size, step, edge)
    assert positions == sorted(set(positions))
    reach = [position + size for position in positions]
    if edge == "drop":
        assert all(stop <= length for stop in reach)
        assert bool(positions) == (length >= size)
    else:
        assert reach[-1] >= length or step > size
        assert all(0 <= position < length for position in positions)
    if edge == "pad":
        assert all(position % step == 0 for position in positions)


def test_lengths_on_the_ground() -> None:
    assert parse_length("256", "size") == parse_length("256px", "size") == 256
    assert parse_length("1280m", "size") == Ground(1280.0, "1280m")
    assert parse_length("2.5 km", "size") == Ground(2500.0, "2.5 km")
    for text in ("1.5", "-3", "12 miles", "m", ""):
        with pytest.raises(OptionError, match="--stride"):
            parse_length(text, "stride")
    kinds = {"edge": "shift", "random": None, "val": 0.1, "seed": 0}
    length = Ground(1280.0, "1280m")
    found = Geometry.resolve(length, Ground(640.0, "640m"), [("a", grid(10.0))], **kinds)
    assert (found.size, found.step) == (128, 64)
    with pytest.raises(OptionError, match=r"128 px of a but 64 px of b.*--res"):
        Geometry.resolve(length, None, [("a", grid(10.0)), ("b", grid(20.0))], **kinds)
    with pytest.raises(OptionError, match="b has no CRS"):
        Geometry.resolve(length, None, [("b", grid(10.0, None))], **kinds)
    with pytest.raises(OptionError, match="it is 4 px of a"):
        Geometry.resolve(Ground(40.0, "40m"), None, [("a", grid(10.0))], **kinds)


@given(sides, sides, sizes, st.integers(1, 40), st.floats(0.0, 0.5), st.integers(0, 3))
def test_random_windows(
    height: int, width: int, size: int, count: int, val: float, seed: int
) -> None:
    geometry = Geometry(size, size, "shift", count, val, seed)
    windows = lay_windows(height, width, geometry)
    assert 1 <= len(windows) <= drawn(geometry)
    assert len(set(zip(windows.rows, windows.cols, strict=True))) == len(windows)
    assert (windows.rows <= max(height - size, 0)).all()
    assert (windows.cols <= max(width - size, 0)).all()
    again = lay_windows(height, width, geometry)
    assert np.array_equal(again.rows, windows.rows)


@given(
    st.tuples(sides, sides),
    st.integers(1, 5),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    sizes,
    steps,
    st.sampled_from(EDGES),
)
def test_parts_cover_each_pixel_once_and_each_window_wholly(
    shape: tuple[int, int], bands: int, block: tuple[int, int], size: int, step: int, edge: Edge
) -> None:
    laid = lay_windows(*shape, Geometry(size, step, edge, None, 0.0, 0))
    windows = [Window(r, c, size, size) for r, c in zip(laid.rows, laid.cols, strict=True)]
    seen = np.zeros(shape, np.int64)
    found: list[int] = []
    for part in divide(shape, bands, block, windows, size, step):
        rows, cols = part.core.slices_in(Window(0, 0, *shape))
        seen[rows, cols] += 1
        assert part.core.clip(*shape) == part.core
        for i in part.windows:
            window = windows[i]
            assert part.read.row <= window.row
            assert part.read.col <= window.col
            assert part.read.row_stop >= window.row_stop
            assert part.read.col_stop >= window.col_stop
        found.extend(part.windows)
    assert (seen == 1).all()
    assert sorted(found) == list(range(len(windows)))


def test_edges_of_scenes(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(shape=(70, 80))
    counts = {}
    for edge in EDGES:
        report = chip_scenes([path], replace(options, edge=edge, overwrite=True, min_valid=0.0))
        counts[edge] = report.train + report.val
    assert counts == {"shift": 9, "pad": 9, "drop": 4}
    chip_scenes([path], replace(options, edge="pad", overwrite=True))
    assert {row.row for row in read_rows(options.out)} == {0, 32, 64}
    assert {row.valid for row in read_rows(options.out)} == {1.0}
    small = make_scene("small.tif", shape=(20, 20))
    with pytest.raises(ChipsError, match="no window of 32 px fits"):
        chip_scenes([small], replace(options, edge="drop", overwrite=True))


def test_sizes_on_the_ground(make_scene: MakeScene, options: ChipOptions) -> None:
    report = chip_scenes([make_scene()], replace(options, size=Ground(160.0, "160m")))
    assert (report.record.size, report.windows) == (16, 48)


def test_random_chips(make_scene: MakeScene, options: ChipOptions) -> None:
    report = chip_scenes([make_scene(shape=(200, 200))], replace(options, random=20))
    assert report.train + report.val == report.windows == 20
    assert report.val > 0
    with pytest.raises(OptionError, match="--random"):
        replace(options, random=20, stride=3)


def test_exclusion(make_scene: MakeScene, options: ChipOptions, tmp_path: Path) -> None:
    path = make_scene()
    out = box(500_000.0 + 325, 4_200_000.0 - 335, 500_000.0 + 330, 4_200_000.0 - 325)
    frame = geopandas.GeoDataFrame(geometry=[out], crs="EPSG:32630").to_crs("EPSG:4326")
    frame.to_file(tmp_path / "out.gpkg")
    report = chip_scenes([path], replace(options, exclude=tmp_path / "out.gpkg"))
    assert (report.train + report.val, report.left_out["excluded"]) == (11, 1)
    assert (32, 32) not in {(row.row, row.col) for row in read_rows(options.out)}
