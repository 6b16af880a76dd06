"""Pairs of chips of the same ground: their order, and batches that are the same place in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from geocyclegan.chips.pairs import Pairs
from geocyclegan.chips.reader import evenly
from geocyclegan.errors import ChipsError
from geocyclegan.methods.base import Batch
from geocyclegan.training.augment import centred
from geocyclegan.training.data import StepBatches, stack
from geocyclegan.training.levels import Budget, LevelReader, Levels, Valid
from geocyclegan.training.pairset import PairSet
from geocyclegan.training.radiometric import (
    Radiometric,
    RadiometricOptions,
    any_by_pixel,
    apply_all,
)
from geocyclegan.training.sampler import ChipSampler, epoch_order, random_of, scene_sets
from geocyclegan.training.skips import PAIR, first_readable, rotated
from geocyclegan.training.turning import Unturned, origins
from geocyclegan.training.warp import Geometry, Placement, place, upright

# Streams of random numbers, apart from those of the unpaired samplers.
_ORDER, _SAMPLES = 3, 4


@dataclass(frozen=True)
class PairSampler:
    """The order of pairs: all of them in a new random order in each epoch.

    Attributes:
        pairs: what `chips.pairs.find_pairs` found.
        batch: pairs per step.
        seed: of everything drawn.
    """

    pairs: Pairs
    batch: int
    seed: int

    def steps(self, epochs: int) -> int:
        """Return how many steps it takes to see so many epochs."""
        return -(-epochs * len(self.pairs) // self.batch)

    def epoch_of(self, steps: int) -> int:
        """Return the epoch, from 1, that the last of so many steps ends in."""
        return -(-steps * self.batch // len(self.pairs))

    def samples(self, step: int) -> range:
        """Return the numbers of the samples of a step, counted through the whole run."""
        return range(step * self.batch, (step + 1) * self.batch)

    def draw(self, sample: int) -> tuple[int, int, np.random.Generator]:
        """Choose index in A, index in B, and random numbers for the augmentation of a sample."""
        epoch, position = divmod(sample, len(self.pairs))
        pair = int(epoch_order(self.seed, epoch, len(self.pairs), _ORDER)[position])
        return *self.pairs[pair], random_of(self.seed, _SAMPLES, sample)


@dataclass(frozen=True)
class ScenePairSampler:
    """The order of pairs where a step sees several of one scene of A.

    Attributes:
        pairs: what `chips.pairs.find_pairs` found.
        scenes: numbers of the pairs, scene by scene.
        crops: pairs per step.
        seed: of everything drawn.
    """

    pairs: Pairs
    scenes: tuple[tuple[int, ...], ...]
    crops: int
    seed: int

    @property
    def sets(self) -> int:
        """Sets, and so steps, in an epoch."""
        return sum(-(-len(scene) // self.crops) for scene in self.scenes)

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
        """Choose index in A, index in B, and random numbers for the augmentation of a sample."""
        step, place = divmod(sample, self.crops)
        epoch, position = divmod(step, self.sets)
        chosen = scene_sets(self.scenes, self.crops, self.seed, epoch, _ORDER)[position][place]
        return *self.pairs[chosen], random_of(self.seed, _SAMPLES, sample)


def pair_sampler(
    pairs: Pairs, seed: int, *, batch: int = 1, scene_ids: Sequence[str] = (), crops: int = 0
) -> ChipSampler:
    """Return the order of pairs.

    Args:
        pairs: what `chips.pairs.find_pairs` found.
        seed: of everything drawn.
        batch: pairs per step.
        scene_ids: the scene of each chip of A; empty: all count as one.
        crops: more than 0: a step sees so many pairs of one scene, whatever `batch` says.
    """
    if not crops:
        return PairSampler(pairs, batch, seed)
    groups: dict[str, list[int]] = {}
    for number, (index, _) in enumerate(pairs):
        groups.setdefault(scene_ids[index] if scene_ids else "", []).append(number)
    return ScenePairSampler(pairs, tuple(map(tuple, groups.values())), crops, seed)


class PairedBatches:
    """The paired batch of each step, by its number: A and B are one place, laid down one way.

    Args:
        a: chips of A.
        b: chips of B.
        sampler: which pairs a step sees.
        crop: side of the crops in pixels.
        flip: mirror and turn them.
        pin: put them into page-locked memory, from where they move to CUDA in the background.
        turn_later: mirror and turn a batch where it moves to, not here; the values are the same.
        geometry: other scales and angles, the same for both; the default is none.
        radiometric: what happens to the values of A, of B, of both or of neither; the truth that a
            network is measured against is best left alone.
        pairs: what may be drawn instead of a pair that cannot be read; none or more.
        same_scene: only of these what is of the same scene of A.
    """

    def __init__(
        self,
        a: LevelReader,
        b: LevelReader,
        sampler: ChipSampler,
        *,
        crop: int,
        flip: bool,
        pin: bool = False,
        turn_later: bool = False,
        geometry: Geometry | None = None,
        radiometric: tuple[RadiometricOptions | None, RadiometricOptions | None] = (None, None),
        pairs: Pairs = (),
        same_scene: bool = False,
    ) -> None:
        self._a, self._b = a, b
        self._pairs, self._same_scene = pairs, same_scene
        self._sampler = sampler
        self._crop, self._flip, self._pin = crop, flip, pin
        self._geometry = geometry or Geometry()
        self._looks = (
            Radiometric.of(a.chips.domain, radiometric[0]),
            Radiometric.of(b.chips.domain, radiometric[1]),
        )
        self._turn_later = turn_later and flip and not any_by_pixel(self._looks)

    def load(self, step: int) -> Batch:
        """Make the batch of a step, on the CPU.

        Returns:
            Images (samples, bands, crop, crop) of both domains, 0 where not valid in both, and as
            both masks the pixels that are valid in A and B, see `Batch`; one that is to be turned
            later is an `Unturned`.

        Raises:
            ChipsError: a chip cannot be read, or two of a pair differ in size.
        """
        places, drawn, randoms = [], [], []
        for sample in self._sampler.samples(step):
            *drawn_pair, random = self._sampler.draw(sample)
            a, b, valid = self._read((drawn_pair[0], drawn_pair[1]), sample)
            where = place(
                *(random, self._a.chips.size, self._crop, self._geometry),
                flip=self._flip,
                valid=valid,
            )
            places.append((a, b, valid, upright(where) if self._turn_later else where))
            drawn.append(where)
            randoms.append(random)
        batch = stack_pairs(places, self._crop, self._pin)
        apply_all(self._looks, (batch.side("a"), batch.side("b")), randoms)
        if not self._turn_later:
            return batch
        both = origins(drawn, self._crop, self._pin)
        return Unturned.of(batch, both, both)

    def _read(self, pair: tuple[int, int], sample: int) -> tuple[Levels, Levels, Valid | None]:
        """Read a pair, or what replaces it."""
        tries = self._tries(pair, sample)
        return first_readable(tries, lambda each: read_pair(self._a, self._b, *each))[1]

    def _tries(self, pair: tuple[int, int], sample: int) -> Iterator[tuple[int, int]]:
        return self._a.skips.stand_ins(pair, partial(self._others, pair[0]), sample, PAIR)

    def _others(self, index: int) -> Sequence[tuple[int, int]]:
        """The pairs that may be drawn instead of one with this chip of A."""
        if not self._same_scene:
            return self._pairs
        scene = set(self._a.others(index, same_scene=True))
        return [pair for pair in self._pairs if pair[0] in scene]

    def names(self, step: int) -> str:
        """Return the files of a step's batch, for messages."""
        return ", ".join(self._name(sample) for sample in self._sampler.samples(step))

    def _name(self, sample: int) -> str:
        """The files that a sample was read from, once it was."""
        tries, out = self._tries(self._sampler.draw(sample)[:2], sample), self._a.skips.is_out
        files = ((self._a.chips.paths[i], self._b.chips.paths[j]) for i, j in tries)
        return " with ".join(map(str, next(pair for pair in files if not any(map(out, pair)))))


class HintedBatches:
    """Unpaired batches with pairs beside them.

    Args:
        batches: the unpaired ones.
        pairs: pairs that agree pixel by pixel; None: none.
        every: steps from one batch of those to the next; the first step has one.
        weak: pairs that agree roughly, in every step; None: none.
        passes: batches in a step, each of which has pairs of its own where the step has any.
    """

    def __init__(
        self,
        batches: StepBatches,
        pairs: PairedBatches | None,
        every: int = 1,
        weak: PairedBatches | None = None,
        passes: int = 1,
    ) -> None:
        self._batches, self._pairs, self._every, self._weak = batches, pairs, every, weak
        self._passes = passes

    def load(self, number: int) -> Batch:
        """Make a batch, with its `pairs` and `weak` pairs where it has any; see `Batch`.

        Args:
            number: of the batch, counted through the whole run, `passes` to a step.

        Raises:
            ChipsError: a chip cannot be read.
        """
        batch, paired = self._batches.load(number), self._paired(number)
        if self._pairs is not None and paired is not None:
            batch = replace(batch, pairs=self._pairs.load(paired))
        if self._weak is not None:
            batch = replace(batch, weak=self._weak.load(number))
        return batch

    def names(self, number: int) -> str:
        """Return the files of a batch, for messages."""
        names, paired = [self._batches.names(number)], self._paired(number)
        if self._pairs is not None and paired is not None:
            names.append(f"the pairs {self._pairs.names(paired)}")
        if self._weak is not None:
            names.append(f"the weak pairs {self._weak.names(number)}")
        return ", ".join(names)

    def _paired(self, number: int) -> int | None:
        """The number of the batch of pairs that goes with a batch; None: its step has none."""
        step, place = divmod(number, self._passes)
        turn, waits = divmod(step, self._every)
        return None if waits else turn * self._passes + place


@dataclass(frozen=True)
class FixedPairs:
    """The middle of each pair, the same every time; used like `validate.FixedCrops`.

    Attributes:
        a: chips of A.
        b: chips of B.
        pairs: what `chips.pairs.find_pairs` found.
        crop: side of the crops in pixels.
        together: pairs in a batch, for networks that pool their statistics.
    """

    a: LevelReader
    b: LevelReader
    pairs: Pairs
    crop: int
    together: int = 1

    def __len__(self) -> int:
        return len(self.pairs)

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of pairs, evenly spread."""
        return evenly(len(self), most)

    def load(self, index: int) -> Batch:
        """Read a pair, with the next ones of its scene if `together` asks for them.

        One that is skipped gives way to the next one that can be read.

        Returns:
            Images (samples, bands, crop, crop) of both domains, see `stack_pairs`.

        Raises:
            ChipsError: a chip cannot be read, or two of a pair differ in size.
        """
        places = []
        companions = self._companions(index)
        among = self.pairs if self.together == 1 else self._of_scene(index)
        for pair in companions:
            tries = rotated(among, among.index(pair))
            a, b, valid = first_readable(tries, lambda each: read_pair(self.a, self.b, *each))[1]
            places.append((a, b, valid, centred(self.a.chips.size, self.crop, valid)))
        return stack_pairs(places, self.crop)

    def _companions(self, index: int) -> list[tuple[int, int]]:
        if self.together == 1:
            return [self.pairs[index]]
        scene = self._of_scene(index)
        first = scene.index(self.pairs[index])
        return [scene[(first + i) % len(scene)] for i in range(min(self.together, len(scene)))]

    def _of_scene(self, index: int) -> list[tuple[int, int]]:
        ids = self.a.chips.scene_ids
        return [p for p in self.pairs if not ids or ids[p[0]] == ids[self.pairs[index][0]]]


def fixed_pairs(chips: PairSet, budget: Budget, crop: int, together: int = 1) -> FixedPairs:
    """Return the middles of the pairs of a set."""
    readers = LevelReader(chips.a, budget), LevelReader(chips.b, budget)
    return FixedPairs(*readers, chips.pairs, crop, together)


def read_pair(
    a: LevelReader, b: LevelReader, index_a: int, index_b: int
) -> tuple[Levels, Levels, Valid | None]:
    """Read two chips of one ground.

    Returns:
        Levels of A and of B, each `(bands, size, size)` in [-1, 1], and where both are valid
        `(size, size)`; None: everywhere.

    Raises:
        ChipsError: a chip cannot be read, or they differ in size.
    """
    if a.chips.size != b.chips.size:
        raise ChipsError(
            f"{a.chips.paths[index_a]} has {a.chips.size} px, {b.chips.paths[index_b]} has"
            f" {b.chips.size} px; a pair needs one size"
        )
    levels_a, valid_a = a.read(index_a)
    levels_b, valid_b = b.read(index_b)
    if valid_a is None or valid_b is None:
        return levels_a, levels_b, valid_b if valid_a is None else valid_a
    return levels_a, levels_b, valid_a & valid_b


def stack_pairs(
    places: Sequence[tuple[Levels, Levels, Valid | None, Placement]],
    crop: int,
    pin: bool = False,
) -> Batch:
    """Cut the same crops out of both chips of each pair.

    Args:
        places: levels of A and of B, each `(bands, size, size)`, the mask of both `(size, size)`,
            None where all pixels are valid, and where the crop lies, for each pair.
        crop: side of the crops in pixels.
        pin: put the batch into page-locked memory.

    Returns:
        Images (samples, bands, crop, crop) of both domains, 0 where one of them is not valid, and
        as both masks one tensor (samples, 1, crop, crop) or None.
    """
    a, valid = stack([(levels, mask, where) for levels, _, mask, where in places], crop, pin)
    b, _ = stack([(levels, mask, where) for _, levels, mask, where in places], crop, pin)
    if valid is not None:
        a *= valid
        b *= valid
    return Batch(a, b, valid, valid)
