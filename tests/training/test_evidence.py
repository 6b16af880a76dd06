"""How sure a comparison is, where pixels beside each other are alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geocyclegan.training.agreement import Correlation
from geocyclegan.training.evidence import (
    BLOCKS,
    LEAST_PARTS,
    block_sums,
    is_clearly_negative,
    jackknife_variance,
    leave_out,
    way_of,
)


def smooth(seed: int, count: int, side: int = 64, grain: int = 8) -> Tensor:
    """Images whose pixels are like their neighbours."""
    random = torch.Generator().manual_seed(seed)
    rough = torch.randn(count, 1, side // grain, side // grain, generator=random)
    return interpolate(rough, size=(side, side), mode="bilinear")


def is_flip(x: Tensor, y: Tensor, valid: Tensor | None = None) -> bool:
    correlation = Correlation()
    for i in range(len(x)):
        part = None if valid is None else valid[i : i + 1]
        correlation.update(x[i : i + 1], y[i : i + 1], part)
    return is_clearly_negative(correlation.mean(), jackknife_variance(correlation.without()))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 13), (3, 2)])
def test_blocks_hold_each_pixel_once(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    sums = block_sums(x)
    assert sums.shape == (2, 3, BLOCKS**2)
    torch.testing.assert_close(sums.sum(-1), x.sum((-1, -2)))


def test_the_jackknife_of_a_mean_is_its_textbook_variance() -> None:
    values = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = (values.sum() - values) / 19
    assert jackknife_variance(without) == pytest.approx(float(values.var()) / 20)
    assert jackknife_variance(without[: LEAST_PARTS - 1]) == float("inf")


def test_parts_are_images_where_there_are_enough_and_blocks_where_not() -> None:
    sums = torch.ones(LEAST_PARTS + 1, 16, 2)
    weights = torch.ones(LEAST_PARTS + 1, 16)
    weights[0] = 0
    assert leave_out(sums, weights).shape == (LEAST_PARTS, 2)
    assert leave_out(sums[:2], weights[:2]).shape == (16, 2)
    assert torch.equal(leave_out(sums[1:], weights[1:]), torch.full((LEAST_PARTS, 2), 16.0 * 7))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_flip_is_seen_and_chance_is_not(count: int) -> None:
    """Unrelated images that vary smoothly correlate by more than independent pixels would."""
    noisy, chance = 0, 0
    for seed in range(40):
        x = smooth(2 * seed, count)
        y = smooth(2 * seed + 1, count)
        noisy += is_flip(x, -x + 0.8 * y)
        chance += is_flip(x, y)
    assert noisy == 40
    assert chance <= 1


def test_next_to_nothing_is_no_flip_however_sure() -> None:
    x = smooth(0, 12)
    assert not is_flip(x, smooth(1, 12) - 0.02 * x)
    y = torch.randn(64, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not is_flip(y.roll(1, 0), y - 0.05 * y.roll(1, 0))


def test_what_is_not_valid_is_no_evidence() -> None:
    x = smooth(0, 1)
    valid = torch.zeros(1, 1, 64, 64)
    valid[..., :16, :16] = 1  # one block
    assert is_flip(x, -x)
    assert not is_flip(x, -x, valid)


def test_the_way_in_words() -> None:
    assert way_of("a2b") == "A to B"
