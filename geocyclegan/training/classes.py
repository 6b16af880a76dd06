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
from geocyclegan.training.data import Chips, stack
from geocyclegan.training.evidence import (
    Finding,
    block_sums,
    is_clearly_negative,
    jackknife_variance,
    leave_out,
    way_of,
)
from geocyclegan.training.levels import Budget, Classes, LevelReader, Levels, Valid
from geocyclegan.training.skips import first_readable, rotated
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
        """Read a chip, or the next one that can be read.

        Returns:
            Levels (1, bands, crop, crop) in [−1, 1], mask (1, 1, crop, crop) or None where all
            pixels are valid, and codes of classes (crop, crop), int64; the smallest number of that
            type is no class.

        Raises:
            ChipsError: no chip with its label chip can be read, or more are bad than may be.
        """

        def read(each: int) -> tuple[Levels, Valid | None, Classes]:
            return *self.reader.read(each), self.reader.read_labels(self.labels, each)

        tries = rotated(self.indices, self.indices.index(index))
        levels, valid, classes = first_readable(tries, read)[1]
        where = centred(self.reader.chips.size, self.crop, valid)
        images, mask = stack([(levels, valid, where)], self.crop)
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
        self._sums: list[Tensor] = []

    def update(self, images: Tensor, valid: Tensor | None, codes: Tensor) -> None:
        """Take an image in.

        Args:
            images: (1, bands, height, width).
            valid: mask (1, 1, height, width); None: all are valid.
            codes: classes (height, width).
        """
        # The last row counts the pixels.
        values = torch.cat([images[0].double().cpu(), torch.ones(1, *codes.shape).double()])
        found = []
        for code in self._codes:
            chosen = codes == code
            if valid is not None:
                chosen &= valid[0, 0].cpu().bool()
            found.append(block_sums(values * chosen))
        self._sums.append(torch.stack(found).permute(2, 0, 1))

    @property
    def seen(self) -> tuple[bool, ...]:
        """Whether each class has any pixels."""
        return tuple((self._all().sum((0, 1))[:, -1] > 0).tolist())

    def whole(self) -> Tensor:
        """Return the means (classes, bands); those of classes without pixels are not finite."""
        return _means(self._all().sum((0, 1)))

    def without(self) -> Tensor:
        """Return the means with each part left out, (parts, classes, bands)."""
        sums = self._all()
        return _means(leave_out(sums, sums[..., -1].sum(-1)))

    def _all(self) -> Tensor:
        """Sums over blocks, the last of them counts: (images, blocks, classes, bands + 1)."""
        return torch.stack(self._sums)


def _means(sums: Tensor) -> Tensor:
    return sums[..., :-1] / sums[..., -1:]


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
    ) -> Finding | None:
        """Compare them now.

        Args:
            method: the networks.
            device: where they are.
            stop: ends it early.

        Returns:
            For each direction, `classes_a2b`: the correlation of the class means of translations
            with those of real images, over classes and bands, each band less its mean over the
            classes; left out where the classes look alike. None if `stop` came true. A sign of a
            flip is a correlation that is clearly below 0.

        Raises:
            ChipsError: a chip cannot be read.
        """
        columns: dict[str, float] = {}
        signs: list[str] = []
        for direction in method.generators():
            home, away, _ = ends(direction)
            made, crops = ClassMeans(self.codes), self._crops[home]
            for index in crops.indices:
                if stop():
                    return None
                images, valid, codes = crops.load(index)
                there = None if valid is None else valid.to(device)
                made.update(method.translate(images.to(device), there, direction), valid, codes)
            contrast = _Contrast.of(made, self._means(away))
            if contrast is None:
                continue
            value = columns[f"classes_{direction}"] = contrast.correlation()
            if is_clearly_negative(value, contrast.variance()):
                signs.append(
                    f"classes, translated {way_of(direction)}, look the other way round"
                    f" ({value:.2f})"
                )
        return Finding(columns, tuple(signs))

    def _means(self, side: Side) -> ClassMeans:
        """Those of real images, which stay the same."""
        if side not in self._real:
            means, crops = ClassMeans(self.codes), self._crops[side]
            for index in crops.indices:
                means.update(*crops.load(index))
            self._real[side] = means
        return self._real[side]


@dataclass(frozen=True)
class _Contrast:
    """How the classes differ in translations and in real images.

    Attributes:
        made: of translations.
        real: of real images.
        chosen: classes that both have.
    """

    made: ClassMeans
    real: ClassMeans
    chosen: Tensor

    @classmethod
    def of(cls, made: ClassMeans, real: ClassMeans) -> _Contrast | None:
        """Return what can be compared; None where the classes look alike."""
        both = [a and b for a, b in zip(made.seen, real.seen, strict=True)]
        found = cls(made, real, torch.tensor(both))
        if sum(both) < 2:
            return None
        x, y = found._whole()
        return None if float(y.abs().max()) < _LEAST_CONTRAST or not x.any() else found

    def correlation(self) -> float:
        """Return the correlation over classes and bands."""
        x, y = self._whole()
        return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())

    def variance(self) -> float:
        """Return the variance of the correlation, by that of a slope.

        Of two classes in one band the correlation is 1 or -1 however little they differ. The slope
        of the translations' contrast over the real one has its sign and tells how little that is;
        its relative error stands for that of the correlation.
        """
        x, y = self._whole()
        slope = float(_slope(x, y))
        variance = jackknife_variance(
            torch.stack([_slope(_centred(means[self.chosen]), y) for means in self.made.without()])
        ) + jackknife_variance(
            torch.stack([_slope(x, _centred(means[self.chosen])) for means in self.real.without()])
        )
        return variance * (self.correlation() / slope) ** 2 if slope else float("inf")

    def _whole(self) -> tuple[Tensor, Tensor]:
        x, y = self.made.whole()[self.chosen], self.real.whole()[self.chosen]
        return _centred(x), _centred(y)


def _centred(means: Tensor) -> Tensor:
    """Take from each band its mean over the classes; a class that is not there is 0 then."""
    known = means.isfinite()
    middle = means.nan_to_num(0.0).sum(0) / known.sum(0).clamp_min(1)
    return torch.where(known, means - middle, 0.0)


def _slope(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / y.square().sum().clamp_min(1e-30)


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
