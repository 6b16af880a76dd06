"""Batches: chips as levels in memory, cropped and turned, ahead of the step that needs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from geocyclegan.chips.labels import UNKNOWN, LabelSet
from geocyclegan.chips.manifest import DomainName, Split
from geocyclegan.chips.pairs import Pairs, find_pairs, require_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.methods.base import Batch
from geocyclegan.training.levels import Classes, LevelReader, Levels, Valid
from geocyclegan.training.pairset import Hints
from geocyclegan.training.radiometric import (
    Radiometric,
    RadiometricOptions,
    any_by_pixel,
    apply_all,
)
from geocyclegan.training.sampler import ChipSampler
from geocyclegan.training.skips import A_SIDE, B_SIDE, first_readable
from geocyclegan.training.turning import Unturned, fill, origins
from geocyclegan.training.warp import Geometry, Placement, place, upright

Crop = tuple[Levels, Valid | None, Placement]
"""A chip, where it is valid, and which part of it is meant."""

T = TypeVar("T")


@dataclass(frozen=True)
class Chips:
    """All chips of a run.

    Attributes:
        folder: where they lie.
        train_a: training chips of domain A.
        train_b: training chips of domain B.
        val_a: validation chips of domain A, none or more.
        val_b: validation chips of domain B, none or more.
        hints: pairs of other chips that are mixed in (`--pairs`), if any.
        weak: pairs of other chips that agree roughly (`--weak-pairs`), if any.
    """

    folder: Path
    train_a: ChipSet
    train_b: ChipSet
    val_a: ChipSet
    val_b: ChipSet
    hints: Hints | None = None
    weak: Hints | None = None

    @classmethod
    def open(
        cls, folder: Path, sides: Sequence[DomainName] = ("a", "b"), *, absent: int = 0
    ) -> Self:
        """Open both domains of a chip folder.

        Args:
            folder: where they lie.
            sides: those that a method looks at; one that looks at A only has A on both sides.
            absent: how many listed chips of each set may be missing.

        Raises:
            ChipsError: a domain is missing, empty or mixed.
        """

        def sets(domain: DomainName) -> list[ChipSet]:
            splits: tuple[Split, ...] = ("train", "val")
            return [ChipSet.open(folder, domain, split, absent=absent) for split in splits]

        a, val_a = sets("a")
        b, val_b = sets("b") if "b" in sides else (a, val_a)
        return cls(folder, a, b, val_a, val_b)

    def with_hints(self, pairs: Path | None, weak: Path | None, *, absent: int = 0) -> Self:
        """Return the same with the pairs of other chip folders.

        Args:
            pairs: a folder with pairs that agree pixel by pixel, if any.
            weak: a folder with pairs that agree roughly, if any.
            absent: how many listed chips of each set may be missing.

        Raises:
            ChipsError: a folder has no pairs, or is damaged.
            OptionError: its images are not of these domains.
        """
        domains = self.train_a.domain, self.train_b.domain
        return replace(
            self,
            hints=None if pairs is None else Hints.open(pairs, "--pairs", domains, absent),
            weak=None if weak is None else Hints.open(weak, "--weak-pairs", domains, absent),
        )

    @property
    def size(self) -> int:
        """Side of the smaller chips."""
        return min(self.train_a.size, self.train_b.size)

    @cached_property
    def pairs(self) -> Pairs:
        """Which training chips show the same ground.

        Raises:
            ChipsError: none do, or see `val_pairs`.
        """
        return require_pairs(self.folder, self.train_a, self.train_b)

    @cached_property
    def val_pairs(self) -> Pairs:
        """Which validation chips show the same ground; none or more.

        Raises:
            ChipsError: the folder or a chip is damaged, or paired chips differ in size.
        """
        return find_pairs(self.folder, self.val_a, self.val_b)

    @cached_property
    def labels(self) -> LabelSet | None:
        """Labels of the training chips of A; None: there are none.

        Raises:
            ChipsError: a label chip is damaged, or holds something else than classes.
        """
        return LabelSet.open(self.folder, self.train_a)

    def counts(self) -> dict[str, int]:
        """Return how many chips each set has."""
        sets = (self.train_a, self.train_b, self.val_a, self.val_b)
        return dict(zip(("train_a", "train_b", "val_a", "val_b"), map(len, sets), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return what a bundle records about the chips."""
        hints = {"pairs": self.hints, "weak_pairs": self.weak}
        return {
            **{
                name: {"folder": str(h.train.folder.resolve()), "train": len(h.train)}
                for name, h in hints.items()
                if h is not None
            },
            "folder": str(self.folder.resolve()),
            **self.counts(),
            "size": {"a": self.train_a.size, "b": self.train_b.size},
            "fingerprint": self.fingerprint(),
        }

    def fingerprint(self) -> str:
        """Return a hash of what a resumed run must find unchanged: the lists and the radiometry."""
        described: list[Any] = [
            [[path.name for path in chips.paths], chips.size, chips.domain.to_json()]
            for chips in (self.train_a, self.train_b, self.val_a, self.val_b)
        ]
        # Only where there are any: a run without them has the hash that it always had.
        described += [h.train.to_json() for h in (self.hints, self.weak) if h is not None]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


class Batches:
    """The batch of each step, by its number.

    Args:
        a: training chips of A.
        b: training chips of B.
        sampler: which of them a step sees.
        crop: side of the crops in pixels.
        flip: mirror and turn them.
        pin: put them into page-locked memory, from where they move to CUDA in the background.
        turn_later: mirror and turn a batch where it moves to, not here; the values are the same.
        geometry: other scales and angles; the default is none.
        radiometric: what happens to their values; the default is nothing.
        labels: classes of the chips of A, to go along with them.
        same_scene: what replaces a chip that cannot be read is of its scene.
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
        radiometric: RadiometricOptions | None = None,
        labels: LabelSet | None = None,
        same_scene: bool = False,
    ) -> None:
        self._a, self._b = a, b
        self._labels, self._same_scene = labels, same_scene
        self._sampler = sampler
        self._crop, self._flip, self._pin = crop, flip, pin
        self._geometry = geometry or Geometry()
        self._looks = Radiometric.both(a.chips.domain, b.chips.domain, radiometric)
        # Speckle is drawn pixel by pixel, so that its pixels must lie as they will stay.
        self._turn_later = turn_later and flip and not any_by_pixel(self._looks)

    def load(self, step: int) -> Batch:
        """Make the batch of a step, on the CPU.

        Returns:
            Images (samples, bands, crop, crop) of both domains, masks and labels, see `Batch`; one
            that is to be turned later is an `Unturned`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        crops_a, crops_b, classes, randoms = [], [], [], []
        for sample in self._sampler.samples(step):
            index_a, index_b, random = self._sampler.draw(sample)
            # What comes of reading must not change what is drawn, so the order is fixed here.
            levels, valid, labels = self._read(self._a, index_a, sample, A_SIDE, self._labels)
            crops_a.append(self._crop_of(self._a, levels, valid, random))
            if self._b is not self._a:
                levels, valid, _ = self._read(self._b, index_b, sample, B_SIDE)
                crops_b.append(self._crop_of(self._b, levels, valid, random))
            if labels is not None:
                classes.append(labels)
            randoms.append(random)
        if not self._turn_later:
            return self._batch(crops_a, crops_b, classes, randoms)
        batch = self._batch(_upright(crops_a), _upright(crops_b), classes, randoms)
        from_a = self._origins(crops_a)
        return Unturned.of(batch, from_a, self._origins(crops_b) if crops_b else from_a)

    def names(self, step: int) -> str:
        """Return the files of a step's batch, for messages."""
        samples = self._sampler.samples(step)
        drawn = [(sample, *self._sampler.draw(sample)[:2]) for sample in samples]
        a = ", ".join(self._name(self._a, index, sample, A_SIDE) for sample, index, _ in drawn)
        b = ", ".join(self._name(self._b, index, sample, B_SIDE) for sample, _, index in drawn)
        return f"{a} and {b}"

    def _name(self, reader: LevelReader, index: int, sample: int, stream: int) -> str:
        """The file that a sample was read from, once it was."""
        tries = (reader.chips.paths[each] for each in self._tries(reader, index, sample, stream))
        return str(next(path for path in tries if not reader.skips.is_out(path)))

    def _tries(self, reader: LevelReader, index: int, sample: int, stream: int) -> Iterator[int]:
        others = partial(reader.others, index, same_scene=self._same_scene)
        return reader.skips.stand_ins(index, others, sample, stream)

    def _batch(
        self,
        crops_a: Sequence[Crop],
        crops_b: Sequence[Crop],
        classes: Sequence[Classes],
        randoms: Sequence[np.random.Generator],
    ) -> Batch:
        """Cut crops, and the labels of A, if any; without B, A is on both sides."""
        a, valid_a = stack(crops_a, self._crop, self._pin)
        if not crops_b:
            # A method that looks at one domain.
            apply_all(self._looks[:1], ((a, valid_a),), randoms)
            return Batch(a, a, valid_a, valid_a)
        b, valid_b = stack(crops_b, self._crop, self._pin)
        apply_all(self._looks, ((a, valid_a), (b, valid_b)), randoms)
        labels = None
        if self._labels is not None:
            pairs = zip(classes, crops_a, strict=True)
            count = len(self._labels.codes)
            labels = torch.stack([self._labels_of(c, count, crop[2]) for c, crop in pairs])
            labels = labels.pin_memory() if self._pin else labels
        return Batch(a, b, valid_a, valid_b, labels_a=labels)

    def _origins(self, crops: Sequence[Crop]) -> Tensor:
        return origins([where for _, _, where in crops], self._crop, self._pin)

    def _read(
        self,
        reader: LevelReader,
        index: int,
        sample: int,
        stream: int,
        labels: LabelSet | None = None,
    ) -> tuple[Levels, Valid | None, Classes | None]:
        """Read a chip, or what replaces it."""

        def read(each: int) -> tuple[Levels, Valid | None, Classes | None]:
            found = reader.read(each)
            return *found, None if labels is None else reader.read_labels(labels, each)

        return first_readable(self._tries(reader, index, sample, stream), read)[1]

    def _crop_of(
        self,
        reader: LevelReader,
        levels: Levels,
        valid: Valid | None,
        random: np.random.Generator,
    ) -> Crop:
        where = place(
            random, reader.chips.size, self._crop, self._geometry, flip=self._flip, valid=valid
        )
        return levels, valid, where

    def _labels_of(self, classes: Classes, count: int, where: Placement) -> Tensor:
        """Cut the classes of a crop out of its chip; of interpolated ones the largest share."""
        shares = classes == np.arange(count)[:, np.newaxis, np.newaxis]
        cut, seen = where.cut(shares.astype(np.float32), classes != UNKNOWN, self._crop)
        most = cut.argmax(axis=0)
        return torch.from_numpy(most if seen is None else np.where(seen, most, UNKNOWN))


class StepBatches(Protocol):
    """The batch of each step, by its number."""

    def load(self, step: int) -> Batch:
        """Make the batch of a step, on the CPU; shapes are those of `Batch`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        ...

    def names(self, step: int) -> str:
        """Return the files of a step's batch, for messages."""
        ...


def _upright(crops: Sequence[Crop]) -> list[Crop]:
    return [(levels, valid, upright(where)) for levels, valid, where in crops]


def stack(crops: Sequence[Crop], crop: int, pin: bool = False) -> tuple[Tensor, Tensor | None]:
    """Cut crops out of chips, straight into the tensors of a batch.

    Args:
        crops: for each sample the levels `(bands, height, width)` and mask `(height, width)` of a
            chip, None where all pixels are valid, and where the crop lies.
        crop: side of the crops in pixels.
        pin: put the batch into page-locked memory.

    Returns:
        Levels (samples, bands, crop, crop), float32, and masks (samples, 1, crop, crop) or None
        where every pixel is valid.
    """
    bands = crops[0][0].shape[0]
    out = torch.empty(len(crops), bands, crop, crop, pin_memory=pin)
    mask = torch.ones(len(crops), 1, crop, crop, dtype=torch.bool, pin_memory=pin)
    # Views of the tensors' memory, which is aligned; an array that became a tensor may not be.
    levels_out, mask_out = out.numpy(), mask.numpy()
    whole = True
    for i, (levels, valid, where) in enumerate(crops):
        cut, seen = where.cut(levels, valid, crop)
        fill(levels_out[i], cut)
        if seen is not None:
            fill(mask_out[i], seen[np.newaxis])
            whole = whole and bool(seen.all())
    return out, None if whole else mask
