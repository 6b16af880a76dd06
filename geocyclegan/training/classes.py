"""Whether translations agree with labels: the check for a flipped meaning where nothing is paired.

Where chips of both domains have labels of the same classes, their places need not be the same: what
a class looks like, translated, should be like what it looks like in the other domain. A model that
draws fields as water and water as fields has the classes the wrong way round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geocyclegan.catalogue import method_info
from geocyclegan.chips.labels import LabelSet
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import ChipsError
from geocyclegan.methods.base import Method, Side, ends
from geocyclegan.training.augment import centred
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Budget, Chips, LevelReader, stack
from geocyclegan.training.validate import MOST_PAIRS

log = logging.getLogger(__name__)

_NO_CLASS = torch.iinfo(torch.int64).min

_LEAST_CONTRAST = 0.02
"""Classes whose mean levels differ by less, of [-1, 1], look alike, and say nothing."""


@dataclass(frozen=True)
class LabelledCrops:
    """The middles of chips that have labels.

    Attributes:
        reader: the chips.
        labels: their labels.
        indices: those of the chips to look at.
        crop: side of the crops in pixels.
    """

    reader: LevelReader
    labels: LabelSet
    indices: tuple[int, ...]
    crop: int

    def load(self, index: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Read a chip.

        Returns:
            Levels (1, bands, crop, crop) in [−1, 1], mask (1, 1, crop, crop) or None where all
            pixels are valid, and codes of classes (crop, crop), int64; the smallest number of that
            type is no class.

        Raises:
            ChipsError: the chip or its label chip cannot be read.
        """
        levels, valid = self.reader.read(index)
        where = centred(self.reader.chips.size, self.crop, valid)
        images, mask = stack([(levels, valid, where)], self.crop)
        classes = self.labels.read(index)
        # Numbers of classes are small, and the middle of a chip is cut without interpolation.
        cut, _ = where.cut(classes[np.newaxis].astype(np.float32), None, self.crop)
        numbers = torch.from_numpy(np.rint(cut[0]).astype(np.int64))
        codes = torch.tensor([*self.labels.codes, _NO_CLASS])
        return images, mask, codes[numbers]


class ClassMeans:
    """The mean of each band over the pixels of each class.

    Args:
        codes: the classes.
    """

    def __init__(self, codes: tuple[int, ...]) -> None:
        self._codes = codes
        self._sums: dict[int, Tensor] = {}
        self._counts = dict.fromkeys(codes, 0)

    def update(self, images: Tensor, valid: Tensor | None, codes: Tensor) -> None:
        """Take an image in.

        Args:
            images: (1, bands, height, width).
            valid: mask (1, 1, height, width); None: all are valid.
            codes: classes (height, width).
        """
        values = images[0].double().cpu()
        for code in self._codes:
            chosen = codes == code
            if valid is not None:
                chosen &= valid[0, 0].cpu().bool()
            self._counts[code] += int(chosen.sum())
            self._sums[code] = values[:, chosen].sum(1) + self._sums.get(code, 0.0)

    def of(self, codes: tuple[int, ...]) -> Tensor:
        """Return the means (classes, bands) of classes that were seen."""
        return torch.stack([self._sums[code] / self._counts[code] for code in codes])

    @property
    def seen(self) -> tuple[int, ...]:
        """Classes with any pixels."""
        return tuple(code for code in self._codes if self._counts[code])


class ClassCheck:
    """Compares what classes look like, translated and real.

    Args:
        a: labelled chips of A.
        b: labelled chips of B, with the same codes.
    """

    def __init__(self, a: LabelledCrops, b: LabelledCrops) -> None:
        self._crops: dict[Side, LabelledCrops] = {"a": a, "b": b}
        shared = set(a.labels.codes) & set(b.labels.codes)
        self.codes = tuple(sorted(shared))
        self._real: dict[Side, ClassMeans] = {}

    def __call__(
        self, method: Method, device: torch.device, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Compare them now.

        Args:
            method: the networks.
            device: where they are.
            stop: ends it early.

        Returns:
            For each direction, `classes_a2b`: the correlation of the class means of translations
            with those of real images, over classes and bands, each band less its mean over the
            classes; left out where the classes look alike. None if `stop` came true.

        Raises:
            ChipsError: a chip cannot be read.
        """
        found: dict[str, float] = {}
        for direction in method.generators():
            home, away, _ = ends(direction)
            made, crops = ClassMeans(self.codes), self._crops[home]
            for index in crops.indices:
                if stop():
                    return None
                images, valid, codes = crops.load(index)
                there = None if valid is None else valid.to(device)
                made.update(method.translate(images.to(device), there, direction), valid, codes)
            real = self._means(away)
            codes_seen = tuple(code for code in made.seen if code in real.seen)
            value = _correlation(made, real, codes_seen) if len(codes_seen) > 1 else None
            if value is not None:
                found[f"classes_{direction}"] = value
        return found

    def _means(self, side: Side) -> ClassMeans:
        """Those of real images, which stay the same."""
        if side not in self._real:
            means, crops = ClassMeans(self.codes), self._crops[side]
            for index in crops.indices:
                means.update(*crops.load(index))
            self._real[side] = means
        return self._real[side]


def _correlation(made: ClassMeans, real: ClassMeans, codes: tuple[int, ...]) -> float | None:
    x, y = (means.of(codes) for means in (made, real))
    x, y = x - x.mean(0), y - y.mean(0)
    if float(y.abs().max()) < _LEAST_CONTRAST or not x.any():
        return None
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


def class_check(config: TrainConfig, chips: Chips, budget: Budget) -> ClassCheck | None:
    """Return the check of a run whose chips of both domains have labels of the same classes.

    Held-out chips where those of both domains have labels, else those that training sees. Labels
    that cannot be read are told of, and end nothing.
    """
    if not config.val_every or not method_info(config.method).directions:
        return None
    for pair in ((chips.val_a, chips.val_b), (chips.train_a, chips.train_b)):
        try:
            sides = [_labelled(chips, each, budget, config.crop or 0) for each in pair]
        except ChipsError as error:
            log.info("classes are not compared: %s", error)
            continue
        a, b = sides
        if a is not None and b is not None and len(set(a.labels.codes) & set(b.labels.codes)) > 1:
            return ClassCheck(a, b)
    return None


def _labelled(chips: Chips, own: ChipSet, budget: Budget, crop: int) -> LabelledCrops | None:
    labels = LabelSet.open(chips.folder, own, MOST_PAIRS) if len(own) else None
    if labels is None:
        return None
    there = tuple(i for i, path in enumerate(labels.paths) if path is not None)
    return LabelledCrops(LevelReader(own, budget), labels, there, crop)


def signs_of_swapped_classes(columns: dict[str, float]) -> str | None:
    """Say what is wrong with what a `ClassCheck` found, or None."""
    for direction in ("a2b", "b2a"):
        found = columns.get(f"classes_{direction}")
        if found is not None and found < 0.0:
            way = " to ".join(direction.upper().split("2"))
            return f"classes, translated {way}, look the other way round ({found:.2f})"
    return None
