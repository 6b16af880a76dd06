from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocyclegan.chips.split import (
    DROPPED,
    TRAIN,
    VAL,
    Cells,
    Pins,
    Tally,
    assign,
    choose_cells,
)
from geocyclegan.raster.windows import starts


def split_windows(
    height: int,
    width: int,
    size: int,
    stride: int,
    val: float,
    seed: int = 0,
    passed: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.uint8]:
    rows, cols = starts(height, size, stride), starts(width, size, stride)
    cells = Cells.of(rows, cols, size)
    down, across = (np.asarray(each).ravel() for each in np.meshgrid(rows, cols, indexing="ij"))
    spans = cells.spans(down, down + size, across, across + size)
    chosen = spans if passed is None else spans.among(passed.ravel())
    sides = choose_cells(chosen, Pins.none(cells.shape), val, seed)
    return assign(spans, sides).reshape(len(rows), len(cols))


shapes = st.tuples(st.integers(1, 400), st.integers(1, 400))
sizes = st.integers(8, 64)
strides = st.integers(4, 80)
shares = st.floats(0.01, 0.9)


def painted(
    split: npt.NDArray[np.uint8], kind: int, shape: tuple[int, int], size: int, stride: int
) -> npt.NDArray[np.bool_]:
    pixels = np.zeros(shape, np.bool_)
    corners = product(*(starts(length, size, stride) for length in shape))
    for (row, col), found in zip(corners, split.ravel(), strict=True):
        if found == kind:
            pixels[row : row + size, col : col + size] = True
    return pixels


@settings(max_examples=60, deadline=None)
@given(shapes, sizes, strides, shares, st.integers(0, 5))
def test_no_pixel_is_in_both(
    shape: tuple[int, int], size: int, stride: int, val: float, seed: int
) -> None:
    split = split_windows(*shape, size, stride, val, seed)
    train = painted(split, TRAIN, shape, size, stride)
    assert not (train & painted(split, VAL, shape, size, stride)).any()


@settings(max_examples=100, deadline=None)
@given(shapes, sizes, strides, shares)
def test_two_disjoint_windows_give_both(
    shape: tuple[int, int], size: int, stride: int, val: float
) -> None:
    split = split_windows(*shape, size, stride, val)
    disjoint = any(starts(side, size, stride)[-1] >= size for side in shape)
    assert (split == VAL).any() == disjoint
    assert (split == TRAIN).any()


@settings(max_examples=6, deadline=None)
@given(st.integers(40, 70), st.integers(40, 70), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
@pytest.mark.parametrize("stride", [16, 8, 11, 4])
def test_share_is_close_on_large_grids(stride: int, rows: int, cols: int, val: float) -> None:
    split = split_windows(rows * 16 + 3, cols * 16 + 5, 16, stride, val)
    kept = np.count_nonzero(split != DROPPED)
    assert np.count_nonzero(split == VAL) / kept == pytest.approx(val, abs=0.02)


@pytest.mark.parametrize("shape", [(1000, 1000), (700, 333), (512, 300)])
def test_nothing_is_dropped_without_overlap(shape: tuple[int, int]) -> None:
    assert not (split_windows(*shape, 64, 64, 0.1) == DROPPED).any()


def test_blocks_hold_several_chips_where_there_is_room() -> None:
    split = split_windows(1600, 1600, 16, 16, 0.1)
    values = split.reshape(25, 4, 25, 4).transpose(0, 2, 1, 3).reshape(625, 16)
    assert np.all(values.min(axis=1) == values.max(axis=1))


def test_the_choice_is_of_geometry_and_seed_alone() -> None:
    one = split_windows(1000, 900, 32, 32, 0.1, 1)
    assert np.array_equal(one, split_windows(1000, 900, 32, 32, 0.1, 1))
    assert not np.array_equal(one, split_windows(1000, 900, 32, 32, 0.1, 2))


def test_no_validation_when_none_is_asked_for() -> None:
    assert np.all(split_windows(500, 500, 32, 16, 0.0) == TRAIN)


@pytest.mark.parametrize("seed", range(5))
def test_the_share_is_that_of_the_windows_that_pass(seed: int) -> None:
    passed = np.ones((20, 20), np.bool_)
    passed[:, :14] = False
    split = split_windows(640, 640, 32, 32, 0.1, seed, passed)[passed]
    assert np.mean(split == VAL) == pytest.approx(0.1, abs=0.025)


def test_what_others_show_decides() -> None:
    cells = Cells.of(range(0, 320, 32), range(0, 320, 32), 32)
    pins = Pins.none(cells.shape)
    pins.train[:, :4] = True
    pins.val[:2, :] = True
    corners = np.arange(0, 320, 32)
    down, across = (np.asarray(each).ravel() for each in np.meshgrid(corners, corners))
    spans = cells.spans(down, down + 32, across, across + 32)
    sides = choose_cells(spans, pins, 0.2, 0)
    assert (sides[:2, :4] == DROPPED).all()
    assert (sides[2:, :4] == TRAIN).all()
    assert (sides[:2, 4:] == VAL).all()


def test_earlier_scenes_count_for_the_share() -> None:
    cells = Cells.of([0, 32], [0], 32)
    spans = cells.spans(np.array([0, 32]), np.array([32, 64]), np.zeros(2), np.full(2, 32))
    pins = Pins.none(cells.shape)
    assert (choose_cells(spans, pins, 0.1, 0) == VAL).sum() == 1
    assert (choose_cells(spans, pins, 0.1, 0, Tally(18, 2)) == VAL).sum() == 0
    assert Tally(18, 2).owing(0.1) == Tally(18, 2)
    assert Tally(400, 0).owing(0.1) == Tally()
