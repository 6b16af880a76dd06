"""The order of chips is a pure function of seed and step."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.training.sampler import Sampler, SceneSampler


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


SCENES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def _numbered(sizes: list[int]) -> tuple[tuple[int, ...], ...]:
    ends = list(accumulate(sizes, initial=0))
    return tuple(tuple(range(start, stop)) for start, stop in pairwise(ends))


@given(a=SCENES, b=SCENES, crops=st.integers(1, 5), seed=st.integers(0, 2**62))
def test_a_step_sees_one_scene_of_each_domain(
    a: list[int], b: list[int], crops: int, seed: int
) -> None:
    scenes_a, scenes_b = _numbered(a), _numbered(b)
    sampler = SceneSampler(scenes_a, scenes_b, crops, seed)
    scene_of_a = {chip: i for i, scene in enumerate(scenes_a) for chip in scene}
    scene_of_b = {chip: i for i, scene in enumerate(scenes_b) for chip in scene}
    for epoch in range(2):
        seen = []
        for step in range(epoch * sampler.sets, (epoch + 1) * sampler.sets):
            drawn = [sampler.draw(sample) for sample in sampler.samples(step)]
            assert len(drawn) == crops
            for chips, scenes, scene_of in (
                ([i for i, _, _ in drawn], scenes_a, scene_of_a),
                ([i for _, i, _ in drawn], scenes_b, scene_of_b),
            ):
                assert len({scene_of[chip] for chip in chips}) == 1
                # No chip twice while its scene has others.
                assert len(set(chips)) == min(crops, len(scenes[scene_of[chips[0]]]))
            seen += [i for i, _, _ in drawn]
        # An epoch leaves no chip of A out.
        assert set(seen) == set(scene_of_a)
        assert sampler.epoch_of(sampler.steps(epoch + 1)) == epoch + 1


def test_scene_sets_are_a_function_of_seed_and_step() -> None:
    scenes = _numbered([7, 3, 12])

    def drawn(seed: int, step: int) -> list[tuple[int, int, int]]:
        sampler = SceneSampler(scenes, scenes, 4, seed)
        found = [sampler.draw(sample) for sample in sampler.samples(step)]
        return [(a, b, int(random.integers(1000))) for a, b, random in found]

    assert drawn(1, 30) == drawn(1, 30)
    assert drawn(1, 30) != drawn(2, 30)
    assert [drawn(1, step) for step in range(6)] != [drawn(1, step) for step in range(6, 12)]
    # Larger scenes come up more often in B.
    counts = Counter(scene for step in range(300) for scene in [drawn(0, step)[0][1] >= 10])
    assert 120 < counts[True] < 210
