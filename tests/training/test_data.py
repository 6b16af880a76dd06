"""Batches: levels and masks of the right chips, decoded once, loaded ahead in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import ChipsError
from geocyclegan.threads import prefetched
from geocyclegan.training.data import Batches, Chips
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.sampler import Sampler

SIZE = 32


@pytest.fixture(scope="module")
def chips(chips_folder: Path) -> Chips:
    return Chips.open(chips_folder)


def _batches(chips: Chips, crop: int, batch: int = 1, *, flip: bool = True) -> Batches:
    budget = Budget()
    sampler = Sampler(len(chips.train_a), len(chips.train_b), batch, 0)
    a, b = LevelReader(chips.train_a, budget), LevelReader(chips.train_b, budget)
    return Batches(a, b, sampler, crop=crop, flip=flip)


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []
    read = ChipSet.read

    def counted(self: ChipSet, index: int) -> Any:
        reads.append(self.paths[index])
        return read(self, index)

    monkeypatch.setattr(ChipSet, "read", counted)
    return reads


def test_levels_and_masks(chips: Chips) -> None:
    reader = LevelReader(chips.train_a, Budget())
    for index in range(len(reader)):
        levels, valid = reader.read(index)
        assert levels.dtype == np.float32
        assert levels.min() >= -1
        assert levels.max() <= 1
        assert (valid is None) == (index != 1)
        if valid is not None:
            assert valid.sum() == SIZE * SIZE // 2
            assert not levels[:, ~valid].any()


def test_whole_chips_without_flips_come_as_they_are(chips: Chips) -> None:
    batches = _batches(chips, SIZE, flip=False)
    sampler = Sampler(len(chips.train_a), len(chips.train_b), 1, 0)
    for step in range(5):
        index_a, index_b, _ = sampler.draw(step)
        batch = batches.load(step)
        for image, mask, chipset, index in (
            (batch.a, batch.valid_a, chips.train_a, index_a),
            (batch.b, batch.valid_b, chips.train_b, index_b),
        ):
            levels, valid = LevelReader(chipset, Budget()).read(index)
            assert np.array_equal(image[0].numpy(), levels)
            assert (mask is None) == (valid is None)
            if mask is not None and valid is not None:
                assert np.array_equal(mask[0, 0].numpy(), valid)
        assert str(chips.train_a.paths[index_a]) in batches.names(step)
        assert str(chips.train_b.paths[index_b]) in batches.names(step)


def test_a_batch_is_a_function_of_its_step(chips: Chips) -> None:
    one, two = _batches(chips, 24, 3), _batches(chips, 24, 3)
    ahead = [one.load(step) for step in range(6)]
    again = two.load(5)
    assert torch.equal(ahead[5].a, again.a)
    assert torch.equal(ahead[5].b, again.b)
    assert again.a.shape == (3, 2, 24, 24)
    assert again.b.shape == (3, 3, 24, 24)
    # Invalid pixels are 0, in every batch.
    for batch in ahead:
        for image, valid in ((batch.a, batch.valid_a), (batch.b, batch.valid_b)):
            if valid is not None:
                assert valid.shape == (3, 1, 24, 24)
                assert not (image * ~valid).any()


def test_what_is_kept_is_the_chip_and_not_the_crop(
    chips: Chips, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, reads = _batches(chips, 24), _count_reads(monkeypatch)
    crops = {batches.load(step).a.numpy().tobytes() for step in range(30)}
    assert len(crops) == 30
    assert len(reads) == len(set(reads)) == len(chips.train_a) + len(chips.train_b)


def test_a_spent_budget_reads_again(chips: Chips, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 2 * SIZE * SIZE * 4
    reader, reads = LevelReader(chips.train_a, Budget(one)), _count_reads(monkeypatch)
    for index in (0, 2, 0, 2):
        reader.read(index)
    assert reads == [chips.train_a.paths[index] for index in (0, 2, 2)]


def test_prefetching_keeps_the_order_and_the_error() -> None:
    def load(step: int) -> int:
        time.sleep(0.01 if step % 2 else 0.0)
        if step == 7:
            raise ChipsError("seven")
        return step * step

    ahead = prefetched(load, range(20), threads=3)
    assert [next(ahead) for _ in range(7)] == [(step, step * step) for step in range(7)]
    with pytest.raises(ChipsError, match="seven"):
        next(ahead)


def test_prefetching_stops_with_its_consumer() -> None:
    started: list[int] = []

    def steps() -> Iterator[int]:
        for step in range(1000):
            started.append(step)
            yield step

    ahead = prefetched(lambda step: step, steps(), threads=2)
    next(ahead)
    ahead.close()
    assert len(started) < 10


def test_the_fingerprint_tells_sets_apart(chips: Chips, chips_folder: Path) -> None:
    assert chips.fingerprint() == Chips.open(chips_folder).fingerprint()
    fewer: Any = ChipSet(chips.train_a.paths[1:], chips.train_a.domain, chips.train_a.size)
    others = Chips(chips.folder, fewer, chips.train_b, chips.val_a, chips.val_b)
    assert others.fingerprint() != chips.fingerprint()
