"""Which chips a step sees: a pure function of the seed and the step, so that nothing is to save."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

# Streams of random numbers that do not touch each other.
_ORDER, _SAMPLES, _SETS = 0, 1, 2


class ChipSampler(Protocol):
    """What training asks of an order of chips."""

    def steps(self, epochs: int) -> int:
        """Return how many steps it takes to see so many epochs."""
        ...

    def epoch_of(self, steps: int) -> int:
        """Return the epoch, from 1, that the last of so many steps ends in."""
        ...

    def samples(self, step: int) -> range:
        """Return the numbers of the samples of a step, counted through the whole run."""
        ...

    def draw(self, sample: int) -> tuple[int, int, np.random.Generator]:
        """Choose index in A, index in B, and random numbers for the augmentation of a sample."""
        ...


@dataclass(frozen=True)
class Sampler:
    """The order of the chips, as the canonical CycleGAN has it.

    An epoch is max(|A|, |B|) samples. A is gone through in a new random order in each, as evenly
    as the numbers allow; B is drawn at random for each sample, so that no pairs form.

    Attributes:
        count_a: chips of A.
        count_b: chips of B.
        batch: samples per step.
        seed: of everything drawn.
    """

    count_a: int
    count_b: int
    batch: int
    seed: int

    @property
    def epoch(self) -> int:
        """Samples in an epoch."""
        return max(self.count_a, self.count_b)

    def steps(self, epochs: int) -> int:
        """Return how many steps it takes to see so many epochs."""
        return -(-epochs * self.epoch // self.batch)

    def epoch_of(self, steps: int) -> int:
        """Return the epoch, from 1, that the last of so many steps ends in."""
        return -(-steps * self.batch // self.epoch)

    def samples(self, step: int) -> range:
        """Return the numbers of the samples of a step, counted through the whole run."""
        return range(step * self.batch, (step + 1) * self.batch)

    def draw(self, sample: int) -> tuple[int, int, np.random.Generator]:
        """Choose the chips of a sample.

        Returns:
            Index in A, index in B, and the random numbers for its augmentation.
        """
        epoch, position = divmod(sample, self.epoch)
        index_a = int(epoch_order(self.seed, epoch, self.epoch)[position]) % self.count_a
        random = random_of(self.seed, _SAMPLES, sample)
        return index_a, int(random.integers(self.count_b)), random


@dataclass(frozen=True)
class SceneSampler:
    """The order of the chips where a step sees several crops of one scene of each domain.

    An epoch goes through all chips of A in sets of one scene each, put together anew every time; a
    set that a scene cannot fill has some of its chips twice. B's set is drawn at random for each
    step, larger scenes more often.

    Attributes:
        scenes_a: numbers of the chips of A, scene by scene.
        scenes_b: the same for B.
        crops: samples per step.
        seed: of everything drawn.
    """

    scenes_a: tuple[tuple[int, ...], ...]
    scenes_b: tuple[tuple[int, ...], ...]
    crops: int
    seed: int

    @property
    def sets(self) -> int:
        """Sets, and so steps, in an epoch."""
        return max(
            sum(-(-len(scene) // self.crops) for scene in scenes)
            for scenes in (self.scenes_a, self.scenes_b)
        )

    def steps(self, epochs: int) -> int:
        """Return how many steps it takes to see so many epochs."""
        return epochs * self.sets

    def epoch_of(self, steps: int) -> int:
        """Return the epoch, from 1, that the last of so many steps ends in."""
        return -(-steps // self.sets)

    def samples(self, step: int) -> range:
        """Return the numbers of the samples of a step, counted through the whole run."""
        return range(step * self.crops, (step + 1) * self.crops)

    def draw(self, sample: int) -> tuple[int, int, np.random.Generator]:
        """Choose the chips of a sample.

        Returns:
            Index in A, index in B, and the random numbers for its augmentation.
        """
        step, place = divmod(sample, self.crops)
        epoch, position = divmod(step, self.sets)
        sets = scene_sets(self.scenes_a, self.crops, self.seed, epoch)
        set_b = _drawn(self.scenes_b, self.crops, random_of(self.seed, _SETS, step))
        random = random_of(self.seed, _SAMPLES, sample)
        return sets[position % len(sets)][place], set_b[place], random


@dataclass(frozen=True)
class PassSampler:
    """Steps of several passes, each of them what is a step to another sampler.

    Attributes:
        passes: the order of the chips, pass by pass.
        count: passes in a step.
        rank: which part of each pass is ours.
        ranks: parts of a pass, as large as each other; together they are the pass.
    """

    passes: ChipSampler
    count: int = 1
    rank: int = 0
    ranks: int = 1

    def steps(self, epochs: int) -> int:
        """Return how many steps it takes to see so many epochs."""
        return -(-self.passes.steps(epochs) // self.count)

    def epoch_of(self, steps: int) -> int:
        """Return the epoch, from 1, that the last of so many steps ends in."""
        return self.passes.epoch_of(steps * self.count)

    def part(self, rank: int, ranks: int) -> PassSampler:
        """Return the same, for one of several processes."""
        return replace(self, rank=rank, ranks=ranks)

    def samples(self, number: int) -> range:
        """Return our samples of a pass, by its number in the whole run."""
        whole = self.passes.samples(number)
        share = len(whole) // self.ranks
        return whole[self.rank * share : (self.rank + 1) * share]

    def draw(self, sample: int) -> tuple[int, int, np.random.Generator]:
        """Choose index in A, index in B, and random numbers for the augmentation of a sample."""
        return self.passes.draw(sample)


@lru_cache(maxsize=4)
def scene_sets(
    scenes: tuple[tuple[int, ...], ...], crops: int, seed: int, epoch: int, stream: int = _ORDER
) -> list[tuple[int, ...]]:
    """Put all chips into sets of one scene, in random order."""
    random = random_of(seed, stream, epoch)
    found = []
    for scene in scenes:
        order = random.permutation(scene)
        padded = np.resize(order, -(-len(order) // crops) * crops)
        found += [tuple(int(chip) for chip in part) for part in padded.reshape(-1, crops)]
    return [found[i] for i in random.permutation(len(found))]


def _drawn(
    scenes: tuple[tuple[int, ...], ...], crops: int, random: np.random.Generator
) -> list[int]:
    """A set of chips of one scene, drawn by its share of the chips."""
    ends = np.cumsum([len(scene) for scene in scenes])
    scene = scenes[int(np.searchsorted(ends, random.integers(ends[-1]), side="right"))]
    return [int(chip) for chip in np.resize(random.permutation(scene), crops)]


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int, stream: int = _ORDER) -> npt.NDArray[np.int64]:
    """Return the random order in which an epoch sees `count` things.

    Returns:
        The numbers from 0 to below `count`, `(count,)`; kept for later calls, so not to be changed.
    """
    return random_of(seed, stream, epoch).permutation(count)


def random_of(seed: int, stream: int, number: int) -> np.random.Generator:
    """Return the random numbers of one thing, such as a sample, in a stream of its own."""
    # Philox is made for this: the counter's upper words name a stream of 2^128 numbers.
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, number, 0]))
