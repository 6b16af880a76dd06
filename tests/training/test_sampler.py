"""The order of chips is a pure function of seed and step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.training.sampler import Sampler


@given(a=st.integers(1, 9), b=st.integers(1, 9), seed=st.integers(0, 2**62))
def test_an_epoch_sees_every_chip_of_a_evenly(a: int, b: int, seed: int) -> None:
    sampler = Sampler(a, b, 1, seed)
    for epoch in range(3):
        drawn = [sampler.draw(epoch * sampler.epoch + i)[:2] for i in range(sampler.epoch)]
        counts = Counter(index for index, _ in drawn)
        assert len(counts) == a
        assert max(counts.values()) - min(counts.values()) <= 1
        assert all(0 <= index < b for _, index in drawn)


def test_a_draw_depends_on_its_number_only() -> None:
    def draws(sampler: Sampler, samples: range) -> list[tuple[int, int, float]]:
        return [(a, b, random.random()) for a, b, random in map(sampler.draw, samples)]

    one, two = Sampler(7, 5, 2, 3), Sampler(7, 5, 2, 3)
    assert draws(one, range(40))[30:] == draws(two, range(30, 40))
    assert draws(one, range(40)) != draws(Sampler(7, 5, 2, 4), range(40))


def test_epochs_differ_and_b_is_drawn_at_random() -> None:
    sampler = Sampler(20, 20, 1, 0)
    first, second = ([sampler.draw(e * 20 + i)[:2] for i in range(20)] for e in range(2))
    assert [a for a, _ in first] != [a for a, _ in second]
    assert len({b for _, b in first}) < 20


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(1, 1, 7), (2, 1, 14), (3, 2, 11)])
def test_epochs_as_steps(epochs: int, batch: int, steps: int) -> None:
    sampler = Sampler(7, 3, batch, 0)
    assert sampler.steps(epochs) == steps
    assert sampler.epoch_of(1) == 1
    assert list(sampler.samples(2)) == list(range(2 * batch, 3 * batch))
