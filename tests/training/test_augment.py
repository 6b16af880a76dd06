"""Crops and turns: masks move with pixels, and orientation stays where it should."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.training.augment import Augmentation, centred, draw

SIZE = 12


@given(seed=st.integers(0, 10**6), crop=st.integers(1, SIZE), flip=st.booleans())
def test_the_mask_moves_with_the_pixels(seed: int, crop: int, flip: bool) -> None:
    random = np.random.default_rng(seed)
    pixels = np.arange(2 * SIZE * SIZE).reshape(2, SIZE, SIZE)
    valid = random.random((SIZE, SIZE)) < 0.7
    augmentation = draw(random, SIZE, crop, flip=flip, valid=valid)
    cut, mask = augmentation.apply(pixels, crop), augmentation.apply(valid, crop)
    assert cut.shape == (2, crop, crop)
    # Each pixel still knows where it came from.
    assert np.array_equal(mask, valid.ravel()[cut[0]])
    assert np.array_equal(cut[1] - cut[0], np.full((crop, crop), SIZE * SIZE))


@given(seed=st.integers(0, 10**6))
def test_without_flips_the_orientation_stays(seed: int) -> None:
    random = np.random.default_rng(seed)
    cut = draw(random, SIZE, 5, flip=False).apply(np.arange(SIZE * SIZE).reshape(SIZE, SIZE), 5)
    assert (np.diff(cut, axis=1) == 1).all()
    assert (np.diff(cut, axis=0) == SIZE).all()


def test_flips_and_turns_give_all_eight_ways() -> None:
    image = np.arange(9).reshape(3, 3)
    random = np.random.default_rng(0)
    seen = {draw(random, 3, 3, flip=True).apply(image, 3).tobytes() for _ in range(200)}
    assert len(seen) == 8


def test_all_crops_are_reached() -> None:
    random = np.random.default_rng(0)
    starts = {(a.row, a.col) for a in (draw(random, 4, 2, flip=False) for _ in range(300))}
    assert starts == {(row, col) for row in range(3) for col in range(3)}


@given(seed=st.integers(0, 10**6), row=st.integers(0, SIZE - 1), col=st.integers(0, SIZE - 1))
def test_a_crop_sees_something_where_there_is_something(seed: int, row: int, col: int) -> None:
    valid = np.zeros((SIZE, SIZE), bool)
    valid[row, col] = True
    augmentation = draw(np.random.default_rng(seed), SIZE, 4, flip=True, valid=valid)
    assert augmentation.apply(valid, 4).sum() == 1
    assert centred(SIZE, 4, valid).apply(valid, 4).sum() == 1


def test_the_middle() -> None:
    assert centred(SIZE, 4) == Augmentation(4, 4)
    assert centred(SIZE, 4, np.zeros((SIZE, SIZE), bool)) == Augmentation(4, 4)
