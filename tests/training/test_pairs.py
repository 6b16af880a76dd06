"""Batches of pairs: one place, laid down one way, valid where both are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geocyclegan.chips.pairs import find_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import ChipsError
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.pairs import FixedPairs, PairedBatches, PairSampler, pair_sampler
from geocyclegan.training.radiometric import RadiometricOptions
from geocyclegan.training.warp import Geometry

SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose B is A upside down in value; some pixels are nodata in A, others in B."""
    root = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(2)
    for domain in "ab":
        (root / f"train_{domain}").mkdir()
    for i in range(4):
        pixels = random.uniform(-1, 1, (1, SIZE, SIZE)).astype(np.float32)
        pixels[:, 0, :2] = -1, 1  # so that both domains are scaled alike
        other = -pixels
        if i == 1:
            pixels[:, 4:9, 3:] = np.nan
            other[:, :, 12:] = np.nan
        np.save(root / "train_a" / f"{i}.npy", pixels)
        np.save(root / "train_b" / f"{i}.npy", other)
    return root


Make = Callable[..., PairedBatches]


@pytest.fixture(scope="module")
def readers(folder: Path) -> tuple[LevelReader, LevelReader]:
    a, b = ChipSet.open(folder, "a"), ChipSet.open(folder, "b")
    return LevelReader(a, Budget()), LevelReader(b, Budget())


@pytest.fixture(scope="module")
def make(folder: Path, readers: tuple[LevelReader, LevelReader]) -> Make:
    pairs = find_pairs(folder, readers[0].chips, readers[1].chips)
    assert len(pairs) == 4

    def batches(batch: int = 2, crop: int = 8, seed: int = 0) -> PairedBatches:
        return PairedBatches(*readers, PairSampler(pairs, batch, seed), crop=crop, flip=True)

    return batches


def test_both_sides_are_laid_down_alike(make: Make) -> None:
    batches, masked = make(), 0
    for step in range(24):
        batch = batches.load(step)
        assert batch.a.shape == batch.b.shape == (2, 1, 8, 8)
        # The scalings are fitted on slightly different pixels.
        assert torch.corrcoef(torch.stack([batch.a.flatten(), batch.b.flatten()]))[0, 1] < -0.99
        if batch.valid_a is not None:
            masked += 1
            assert batch.valid_b is batch.valid_a
            assert not batch.a[~batch.valid_a].any()
            assert not batch.b[~batch.valid_a].any()
    assert masked


def test_both_sides_are_warped_alike_and_only_the_asked_one_changes_values(
    readers: tuple[LevelReader, LevelReader],
) -> None:
    pairs = ((0, 0), (1, 1), (2, 2), (3, 3))
    sampler = PairSampler(pairs, 2, 0)
    given = {"crop": 8, "flip": True, "geometry": Geometry(1.5, 180.0)}
    plain = PairedBatches(*readers, sampler, **given)  # type: ignore[arg-type]
    jitter = (RadiometricOptions(jitter_gain=0.5), None)
    changed = PairedBatches(*readers, sampler, radiometric=jitter, **given)  # type: ignore[arg-type]
    masked = 0
    for step in range(12):
        one, two = plain.load(step), changed.load(step)
        assert torch.equal(one.b, two.b)
        assert not torch.equal(one.a, two.a)
        seen = slice(None) if one.valid_a is None else one.valid_a
        masked += one.valid_a is not None
        a, b = one.a[seen], one.b[seen]
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] < -0.98
        assert one.valid_b is one.valid_a
    assert masked


def test_a_pair_is_valid_where_both_are(readers: tuple[LevelReader, LevelReader]) -> None:
    batch = FixedPairs(*readers, ((1, 1), (0, 0)), SIZE).load(0)
    expected = torch.ones(SIZE, SIZE, dtype=torch.bool)
    expected[4:9, 3:] = False
    expected[:, 12:] = False
    assert batch.valid_a is not None
    assert torch.equal(batch.valid_a[0, 0], expected)


def test_a_batch_is_a_function_of_its_step(make: Make) -> None:
    one, two, other = make(), make(), make(seed=1)
    ahead = [one.load(step) for step in range(6)]
    for step in (5, 0, 3):
        assert torch.equal(ahead[step].a, two.load(step).a)
        assert torch.equal(ahead[step].b, two.load(step).b)
    assert any(not torch.equal(ahead[step].a, other.load(step).a) for step in range(6))
    assert one.names(0) == two.names(0)
    assert one.names(0).count(" with ") == 2


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 12), batch=st.integers(1, 5), seed=st.integers(0, 2**62))
def test_an_epoch_shows_each_pair_once(count: int, batch: int, seed: int) -> None:
    sampler = PairSampler(tuple((i, 2 * i) for i in range(count)), batch, seed)
    steps = sampler.steps(batch)  # `batch` epochs are whole steps
    assert sampler.epoch_of(steps) == batch
    drawn = [sampler.draw(sample)[:2] for step in range(steps) for sample in sampler.samples(step)]
    for epoch in range(batch):
        assert Counter(drawn[epoch * count : (epoch + 1) * count]) == Counter(sampler.pairs)


def test_a_step_of_several_pairs_of_one_scene() -> None:
    pairs = tuple((i, i) for i in range(7))
    ids = ("x", "x", "y", "y", "y", "y", "x")
    sampler = pair_sampler(pairs, 3, scene_ids=ids, crops=2)
    assert sampler.steps(1) == 4
    seen = Counter[int]()
    for step in range(4):
        chosen = [sampler.draw(sample)[0] for sample in sampler.samples(step)]
        assert len({ids[index] for index in chosen}) == 1
        seen.update(chosen)
    assert set(seen) == set(range(7))


def test_fixed_pairs_of_one_scene(readers: tuple[LevelReader, LevelReader]) -> None:
    a = LevelReader(replace(readers[0].chips, scene_ids=("x", "y", "x", "y")), Budget())
    fixed = FixedPairs(a, readers[1], ((0, 0), (1, 1), (2, 2), (3, 3)), 8, together=3)
    assert fixed.spread(2) == [0, 2]
    assert fixed.load(0).a.shape[0] == 2
    one = FixedPairs(a, readers[1], ((0, 0), (2, 2)), 8)
    assert torch.equal(fixed.load(0).a[1], one.load(1).a[0])


def test_sizes_that_differ(readers: tuple[LevelReader, LevelReader]) -> None:
    small = LevelReader(replace(readers[1].chips, size=8), Budget())
    with pytest.raises(ChipsError, match="a pair needs one size"):
        FixedPairs(readers[0], small, ((0, 0),), 8).load(0)
