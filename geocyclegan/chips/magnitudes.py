"""Scenes of one domain whose numbers are of different kinds: decibels beside power, for one.

Values of sound scenes may have little in common: night and day, water and snow, coast and
mountains. What is told here is only what no scenery explains: fractions beside numbers in the tens
or more (reflectance from 0 to 1 beside 0 to 10 000 or 0 to 255, calibrated beside raw radar),
negative numbers beside small positive ones (decibels beside power), and a thousandfold difference.
The middle half of the pixels counts, so that collars, clouds and single targets do not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.statistics import Statistics
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.sketch import quantiles_of

log = logging.getLogger(__name__)

_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.999)
# Reflectance and the power of radar hardly exceed it.
_FRACTION = 2.0
# From here on numbers are no fractions; and how many times the one scene's middle half exceeds the
# other's. Snow reflects up to a hundred times what water does, both in one unit.
_LARGE, _TIMES_FRACTION, _TIMES = 10.0, 20.0, 1000.0
# By how much the size of decibels exceeds that of power.
_TIMES_NEGATIVE = 10.0


@dataclass(frozen=True)
class Spread:
    """Where most values of a band of a scene lie, in stored units.

    Attributes:
        p10: a tenth of the pixels lies below it; so with the others.
        p25: a quarter.
        median: half.
        p75: three quarters.
        p90: nine tenths.
        top: nearly all.
        is_float: the pixels are floating numbers.
    """

    p10: float
    p25: float
    median: float
    p75: float
    p90: float
    top: float
    is_float: bool

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what `BandSketch.to_arrays` gave; shapes are described there."""
        p10, p25, median, p75, p90, top = map(float, quantiles_of(arrays, _SHARES))
        is_float = np.dtype(str(arrays["dtype"])).kind == "f"
        return cls(p10, p25, median, p75, p90, top, is_float)

    @property
    def is_fraction(self) -> bool:
        """Say whether nearly all values are small, of a type that has fractions."""
        return self.is_float and self.top <= _FRACTION

    def is_apart_from(self, other: Spread) -> bool:
        """Say whether the values of two scenes are of different kinds."""
        low, high = sorted((self, other), key=lambda spread: spread.median)
        if low.p75 < 0.0 <= high.p10:
            small = high.is_float and high.p75 <= _FRACTION
            return small and -low.median >= _TIMES_NEGATIVE * high.median
        if low.p75 <= 0.0:
            return False
        times = high.p25 / low.p75
        mixed = low.is_fraction and high.p25 >= _LARGE and times >= _TIMES_FRACTION
        return mixed or times >= _TIMES


class Magnitudes:
    """Where the values of the scenes of a domain lie.

    Args:
        labels: what to call its bands.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._spreads: dict[str, list[Spread]] = {}

    def add(self, path: str, statistics: Statistics) -> None:
        """Add a scene; of one that is there already, as at another angle, nothing new is learnt."""
        if path not in self._spreads and all(int(band["counts"][0]) for band in statistics):
            self._spreads[path] = [Spread.of(band) for band in statistics]

    def warn(self) -> None:
        """Say so once if a scene is apart from the one in the middle, in any band."""
        for number, label in enumerate(self._labels):
            bands = {path: spreads[number] for path, spreads in self._spreads.items()}
            if len(bands) < 2:
                return
            order = sorted(bands, key=lambda path: bands[path].median)
            usual = order[(len(order) - 1) // 2]
            odd = [path for path in bands if bands[path].is_apart_from(bands[usual])]
            if not odd:
                continue
            ours, theirs = bands[odd[0]], bands[usual]
            more = f" So it is with {len(odd) - 1} more." if len(odd) > 1 else ""
            log.warning(
                "%s: most of %s lies from %.4g to %.4g, in %s from %.4g to %.4g; are both in one"
                " unit (decibels, power, reflectance, stored numbers)? They share one scaling;"
                " bring them to one unit, or chip them into another --out.%s",
                *(told(odd[0]), label, ours.p10, ours.p90),
                *(told(usual), theirs.p10, theirs.p90, more),
            )
            return
