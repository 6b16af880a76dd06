"""Which chips a step sees: a pure function of the seed and the step, so that nothing is to save."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Streams of random numbers that do not touch each other.
_ORDER, _SAMPLES = 0, 1


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
        index_a = int(_order(self.seed, epoch, self.epoch)[position]) % self.count_a
        random = _random(self.seed, _SAMPLES, sample)
        return index_a, int(random.integers(self.count_b)), random


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return _random(seed, _ORDER, epoch).permutation(count)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    # Philox is made for this: the counter's upper words name a stream of 2^128 numbers.
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, number, 0]))
