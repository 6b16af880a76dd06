"""The learning rate is constant, then falls linearly to exactly zero."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.training.schedule import LinearDecay


@given(total=st.integers(1, 10_000), decay=st.floats(0.0, 1.0))
def test_it_ends_at_exactly_zero(total: int, decay: float) -> None:
    schedule = LinearDecay(total, decay)
    if round(decay * total):
        assert schedule.factor(total) == 0.0
        assert schedule.factor(total - 1) > 0.0
    else:
        assert schedule.factor(total) == 1.0
    assert schedule.factor(0) == 1.0


def test_the_canonical_shape() -> None:
    schedule = LinearDecay(200, 0.5)
    factors = [schedule.factor(step) for step in range(201)]
    assert factors[:101] == [1.0] * 101
    assert factors[101:] == pytest.approx([1 - step / 100 for step in range(1, 101)])
    falls = [a - b for a, b in pairwise(factors[100:])]
    assert falls == pytest.approx([0.01] * 100)


def test_apply_sets_every_group() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.Adam([{"params": [weight]} for weight in weights], lr=1.0)
    assert LinearDecay(10, 0.5).apply([optimizer], 0.2, 10) == 0.0
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
