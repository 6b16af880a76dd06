"""Geometry of windows and tile plans, as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.raster.windows import (
    Window,
    blend_weights,
    round_up,
    starts,
    tile_plan,
)

LENGTH = st.integers(1, 700)


@given(LENGTH, st.integers(1, 128), st.integers(1, 128))
def test_starts_cover_the_axis_and_stay_inside(length: int, size: int, stride: int) -> None:
    stride = min(stride, size)
    found = starts(length, size, stride)
    covered = np.zeros(max(length, size), bool)
    for start in found:
        covered[start : start + size] = True
    assert covered[:length].all()
    assert found == sorted(set(found))
    if length >= size:
        assert found[-1] + size == length
    else:
        assert found == [0]


def test_the_last_start_is_shifted_back() -> None:
    assert starts(10, 4, 4) == [0, 4, 6]
    assert starts(9, 4, 4) == [0, 4, 5]


@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.integers(1, 40),
    st.integers(0, 12),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 16),
)
def test_tile_plan_partitions_the_scene_with_full_halos(
    height: int, width: int, core: int, halo: int, stride: int, min_size: int
) -> None:
    plan = tile_plan(
        height, width, core=core * stride, halo=halo * stride, stride=stride, min_size=min_size
    )
    seen = np.zeros((height, width), np.int32)
    padded = [round_up(max(n, min_size), stride) for n in (height, width)]
    shapes = set()
    for tile in plan:
        seen[tile.core.row : tile.core.row_stop, tile.core.col : tile.core.col_stop] += 1
        shapes.add(tile.read.shape)
        for read, size, start, count, limit in (
            (tile.read.row, tile.read.height, tile.core.row, tile.core.height, padded[0]),
            (tile.read.col, tile.read.width, tile.core.col, tile.core.width, padded[1]),
        ):
            assert read % stride == 0
            assert size % stride == 0
            assert size >= min_size
            assert read >= 0
            assert read + size <= limit
            # The halo is whole, or ends where the (padded) scene ends.
            assert read == 0 or start - read >= halo * stride
            assert read + size == limit or read + size - (start + count) >= halo * stride
    assert (seen == 1).all()
    assert len(shapes) == 1
    assert len(plan) == sum(1 for _ in plan)


def test_a_shift_moves_all_inner_borders() -> None:
    plan = tile_plan(100, 64, core=32, halo=8, stride=4, shift=12)
    assert plan.rows.cores == ((0, 12), (12, 32), (44, 32), (76, 24))
    assert plan.cols.cores == ((0, 12), (12, 32), (44, 20))
    assert all(size == 48 for _, size in plan.rows.reads)
    assert len(tile_plan(8, 8, core=32, halo=8, stride=4, shift=12)) == 1
    with pytest.raises(ValueError, match="shift 32"):
        tile_plan(100, 64, core=32, halo=8, stride=4, shift=32)


def test_tile_plan_refuses_a_core_off_the_stride() -> None:
    with pytest.raises(ValueError, match="multiples of the stride"):
        tile_plan(100, 100, core=10, halo=4, stride=4)


@given(LENGTH, st.integers(2, 128), st.data())
def test_blend_weights_sum_to_one_up_to_the_border(
    length: int, size: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, size))
    overlap = data.draw(st.integers(0, size - step))
    positions = starts(length, size, step)
    total = np.zeros(length + size)
    for start, weights in zip(
        positions, blend_weights(length, positions, size, overlap), strict=True
    ):
        inside = weights[: max(length - start, 0)]
        assert (inside > 0).all()
        total[start : start + size] += weights
    np.testing.assert_allclose(total[:length], 1.0, rtol=1e-12)
    assert (total[length:] == 0).all()


def test_clip_and_slices() -> None:
    window = Window(-2, 3, 6, 6)
    inside = window.clip(10, 7)
    assert inside == Window(0, 3, 4, 4)
    assert inside.slices_in(window) == (slice(2, 6), slice(0, 4))
    assert Window(20, 20, 4, 4).clip(10, 10).shape == (0, 0)
