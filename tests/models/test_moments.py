"""Statistics that are merged are those of the union, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.models.moments import Moments


@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 1e3]), st.booleans())
def test_they_are_those_of_the_valid_pixels(seed: int, offset: float, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(offset, 2.0, (2, 3, 7, 5)).astype(np.float32)
    weight = (rng.random((2, 1, 7, 5)) > 0.4).astype(np.float32) if masked else None
    found = Moments.of(torch.from_numpy(x), None if weight is None else torch.from_numpy(weight))
    for sample in range(2):
        chosen = np.ones((7, 5), bool) if weight is None else weight[sample, 0] > 0
        values = x[sample][:, chosen].astype(np.float64)
        assert found.count[sample] == chosen.sum()
        if chosen.any():
            np.testing.assert_allclose(found.mean[sample], values.mean(1), rtol=1e-7, atol=1e-6)
            np.testing.assert_allclose(found.var[sample], values.var(1), rtol=1e-5)


def test_a_large_mean_does_not_cost_the_variance() -> None:
    x = torch.randn(1, 1, 64, 64) * 0.5 + 1000
    expected = x.double().var(correction=0)
    assert Moments.of(x).var[0, 0] == pytest.approx(float(expected), rel=1e-6)


@given(st.integers(0, 2**31), st.integers(2, 9))
def test_merging_does_not_depend_on_the_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        # Parts of very different size and level, empty ones among them.
        x = torch.from_numpy(rng.normal(rng.normal(0, 50), rng.random() + 0.01, (1, 2, 6, 4)))
        parts.append(Moments.of(x, torch.from_numpy(rng.random((1, 1, 6, 4)) > rng.random())))
    forward = parts[0]
    for part in parts[1:]:
        forward = forward.merge(part)
    backward = parts[-1]
    for part in parts[-2::-1]:
        backward = part.merge(backward)
    pooled = Moments.cat([parts[i] for i in rng.permutation(count)]).pooled()
    for other in (backward, pooled):
        torch.testing.assert_close(other.count, forward.count)
        torch.testing.assert_close(other.mean, forward.mean, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(other.m2, forward.m2, rtol=1e-11, atol=1e-11)


def test_empty_samples_are_neutral() -> None:
    empty = Moments.of(torch.randn(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))
    full = Moments.of(torch.randn(1, 2, 3, 3))
    assert not empty.count.any()
    assert not empty.mean.any()
    assert not empty.var.any()
    torch.testing.assert_close(full.merge(empty).var, full.var)
    torch.testing.assert_close(empty.merge(full).mean, full.mean)
    assert not Moments.cat([empty, empty]).pooled().var.any()


def test_variance_form_round_trip() -> None:
    full = Moments.of(torch.randn(1, 4, 5, 5)).pooled()
    again = Moments.of_variance(full.count[0], full.mean[0], full.var[0])
    torch.testing.assert_close(again.m2, full.m2)
    assert again.channels == 4
