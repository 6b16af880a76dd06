"""Other scales and angles: pixels go where geometry says, and what is outside is not valid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocyclegan.errors import OptionError
from geocyclegan.training.augment import Augmentation, draw
from geocyclegan.training.warp import Geometry, Warp, place

SIZE = 24


def plane(size: int = SIZE) -> np.ndarray:
    """Two bands that hold the row and the column of each pixel's centre, which interpolate well."""
    rows, cols = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)
    return np.stack([rows, cols])


def test_without_scale_and_angle_no_pixel_is_interpolated() -> None:
    for seed in range(20):
        one, two = np.random.default_rng(seed), np.random.default_rng(seed)
        plain = draw(one, SIZE, 8, flip=True)
        assert place(two, SIZE, 8, Geometry(), flip=True) == plain
        assert one.random() == two.random()


@given(
    seed=st.integers(0, 10**6),
    zoom=st.floats(1.0, 2.0),
    rotate=st.floats(0.0, 180.0),
    flip=st.booleans(),
    crop=st.integers(4, SIZE),
)
@settings(max_examples=60, deadline=None)
def test_each_pixel_comes_from_where_it_should(
    seed: int, zoom: float, rotate: float, flip: bool, crop: int
) -> None:
    random = np.random.default_rng(seed)
    where = place(random, SIZE, crop, Geometry(zoom, rotate), flip=flip)
    if not isinstance(where, Warp):
        assert Geometry(zoom, rotate).resamples is False
        return
    levels, seen = where.cut(plane(), None, crop)
    assert levels.shape == (2, crop, crop)
    assert not levels[:, ~seen].any()
    # Undo the laying down, then compare neighbours: all steps are one turned, scaled vector.
    upright = np.rot90(levels, -where.turns, axes=(1, 2))
    mask = np.rot90(seen, -where.turns)
    if where.mirrored:
        upright, mask = upright[..., ::-1], mask[..., ::-1]
    step, angle = where.side / crop, math.radians(where.angle)
    inner = np.zeros_like(mask)
    rows, cols = upright
    # Pixels whose four sources lie inside the chip; at the rim values lean on what is there.
    inside = (rows > 1) & (rows < SIZE - 1) & (cols > 1) & (cols < SIZE - 1)
    inner[...] = mask & inside
    right = inner[:, :-1] & inner[:, 1:]
    below = inner[:-1] & inner[1:]
    np.testing.assert_allclose(
        (cols[:, 1:] - cols[:, :-1])[right], step * math.cos(angle), atol=1e-3
    )
    np.testing.assert_allclose(
        (rows[:, 1:] - rows[:, :-1])[right], -step * math.sin(angle), atol=1e-3
    )
    np.testing.assert_allclose((rows[1:] - rows[:-1])[below], step * math.cos(angle), atol=1e-3)
    np.testing.assert_allclose((cols[1:] - cols[:-1])[below], step * math.sin(angle), atol=1e-3)
    assert 1 / zoom - 1e-9 <= step <= zoom + 1e-9
    assert abs(where.angle) <= rotate


@given(seed=st.integers(0, 10**6), rotate=st.floats(1.0, 180.0), zoom=st.floats(1.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_invalid_pixels_do_not_leak(seed: int, rotate: float, zoom: float) -> None:
    random = np.random.default_rng(seed)
    valid = random.random((SIZE, SIZE)) < 0.8
    levels = np.where(valid, np.float32(0.25), np.float32(np.nan))[np.newaxis]
    levels = np.nan_to_num(levels, nan=99.0).astype(np.float32)
    where = place(random, SIZE, 10, Geometry(zoom, rotate), flip=True, valid=valid)
    cut, seen = where.cut(levels, valid, 10)
    assert seen is not None
    np.testing.assert_allclose(cut[0][seen], 0.25, atol=1e-5)
    assert not cut[0][~seen].any()


def test_outside_the_chip_nothing_is_valid() -> None:
    _, seen = Warp(SIZE / 2, SIZE / 2, SIZE, 45.0).cut(plane(), None, SIZE)
    assert not seen[0, 0]
    assert not seen[-1, -1]
    assert seen[SIZE // 2, SIZE // 2]
    # The share of a square that an equal square, turned by 45 degrees, covers: 2 (sqrt(2) - 1).
    assert seen.mean() == pytest.approx(2 * (math.sqrt(2) - 1), abs=0.05)
    _, larger = Warp(SIZE / 2, SIZE / 2, 2.0 * SIZE).cut(plane(), None, SIZE)
    assert larger.mean() == pytest.approx(0.25, abs=0.05)


def test_a_quarter_by_angle_is_a_quarter_turn() -> None:
    image = np.random.default_rng(0).random((2, SIZE, SIZE)).astype(np.float32)
    cut, seen = Warp(SIZE / 2, SIZE / 2, SIZE, 90.0).cut(image, None, SIZE)
    assert seen.all()
    turned = Augmentation(0, 0, turns=3).apply(image, SIZE)
    # Reading along a square that is turned one way shows the image turned the other way.
    np.testing.assert_allclose(cut, turned, atol=1e-4)
    same, _ = Warp(10.0, 9.0, 8.0).cut(image, None, 8)
    np.testing.assert_allclose(same, image[:, 6:14, 5:13], atol=1e-5)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_crop_stays_inside_where_it_can(seed: int) -> None:
    random = np.random.default_rng(seed)
    where = place(random, SIZE, 8, Geometry(1.2, 180.0), flip=True)
    _, seen = where.cut(plane(), None, 8)
    assert seen is not None
    assert seen.all()


def test_a_crop_sees_something() -> None:
    valid = np.zeros((SIZE, SIZE), np.bool_)
    valid[2:6, 17:21] = True
    for seed in range(30):
        random = np.random.default_rng(seed)
        where = place(random, SIZE, 8, Geometry(1.5, 90.0), flip=True, valid=valid)
        _, seen = where.cut(plane(), valid, 8)
        assert seen is not None
        assert seen.any()


@pytest.mark.parametrize("wrong", [{"zoom": 0.9}, {"zoom": 3.0}, {"rotate": -1.0}])
def test_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        Geometry(**wrong)
