"""Random changes of values that a sensor could have made: gain, offset, speckle, a lost band.

They work on physical values: levels go through the domain's radiometry and back. Each is off unless
asked for, since each is a claim about the sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from geocyclegan.errors import OptionError
from geocyclegan.ranges import require_in_range
from geocyclegan.raster.domain import BandInfo, Domain

Kind = Literal["power", "amplitude", "decibel", "linear"]
"""What the stored numbers of a band are: power (or, of complex images, amplitude) that is scaled in
decibel or by its logarithm, decibel themselves, or anything else."""

_BULK = 0.9


@dataclass(frozen=True)
class RadiometricOptions:
    """What may happen to the values of a crop.

    Attributes:
        jitter_db: largest change of a band in decibel, for bands in or scaled by decibel.
        jitter_gain: largest relative change of a band, for all others.
        jitter_offset: largest shift of a band, for all others, as a share of the range that holds
            most of its values.
        speckle: looks of the speckle that multiplies radar bands; None: none.
        band_dropout: chance of each band to be lost (level 0); one band is always kept.

    Raises:
        OptionError: a number is out of range.
    """

    jitter_db: float = 0.0
    jitter_gain: float = 0.0
    jitter_offset: float = 0.0
    speckle: float | None = None
    band_dropout: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            require_in_range(entry.name, getattr(self, entry.name))


def kind_of(domain: Domain, band: BandInfo) -> Kind:
    """Return what the numbers of a band are, as far as its radiometry says."""
    if (band.unit or "").strip().casefold() == "db":
        return "decibel"
    if band.scaling.method in ("db", "log1p") or domain.amplitude:
        return "amplitude" if domain.amplitude else "power"
    return "linear"


def check_radiometric(options: RadiometricOptions, domains: Sequence[Domain]) -> None:
    """Refuse an option that has nothing to work on in any domain.

    Raises:
        OptionError: says which, and why.
    """
    kinds = {kind_of(domain, band) for domain in domains for band in domain.bands}
    radar = kinds - {"linear"}
    if options.speckle is not None and not radar:
        raise OptionError(
            f"--speckle {options.speckle:g}: no band is power, amplitude or decibel (chip --scale"
            " db, or --unit dB where values are in dB already), and speckle multiplies power"
        )
    if options.jitter_db and not radar:
        raise OptionError(
            f"--jitter-db {options.jitter_db:g}: no band is in decibel (chip --scale db, or"
            " --unit dB where values are in dB already); --jitter-gain and --jitter-offset are for"
            " the others"
        )
    for name in ("jitter_gain", "jitter_offset"):
        value = getattr(options, name)
        if value and "linear" not in kinds:
            raise OptionError(
                f"--{name.replace('_', '-')} {value:g}: all bands are power or decibel; use"
                " --jitter-db"
            )
    if options.band_dropout and max(domain.count for domain in domains) == 1:
        raise OptionError(
            f"--band-dropout {options.band_dropout:g}: both domains have one band, and one is"
            " always kept"
        )


@dataclass(frozen=True)
class Radiometric:
    """The changes of one domain.

    Attributes:
        domain: whose radiometry levels go through.
        options: how much of what.
    """

    domain: Domain
    options: RadiometricOptions

    @classmethod
    def of(cls, domain: Domain, options: RadiometricOptions | None) -> Self | None:
        """Return the changes of a domain; None where there are none."""
        if options is None or options == RadiometricOptions():
            return None
        return cls(domain, options)

    @classmethod
    def both(
        cls, a: Domain, b: Domain, options: RadiometricOptions | None
    ) -> tuple[Self | None, Self | None]:
        """Return the changes of both domains."""
        return cls.of(a, options), cls.of(b, options)

    @property
    def by_pixel(self) -> bool:
        """Whether numbers are drawn for each pixel, in the order in which the pixels lie."""
        return self.options.speckle is not None

    def apply(
        self,
        levels: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_] | None,
        random: np.random.Generator,
    ) -> None:
        """Change a crop in place.

        Args:
            levels: `(bands, height, width)` in [-1, 1], 0 where not valid.
            valid: `(height, width)`; None: all are valid.
            random: where the numbers come from; as many are drawn whatever the levels are.
        """
        for band, values in zip(self.domain.bands, levels, strict=True):
            self._change(band, values, random)
        options = self.options
        if options.band_dropout and self.domain.count > 1:
            lost = random.random(self.domain.count) < options.band_dropout
            lost[random.integers(self.domain.count)] = False
            levels[lost] = 0.0
        if valid is not None:
            levels *= valid

    def _change(
        self, band: BandInfo, levels: npt.NDArray[np.float32], random: np.random.Generator
    ) -> None:
        """Change a band `(height, width)` in place, if any of the options is about its kind."""
        options, kind = self.options, kind_of(self.domain, band)
        if kind == "linear":
            if not (options.jitter_gain or options.jitter_offset):
                return
            gain, shift = (float(number) for number in random.uniform(-1.0, 1.0, 2))
            values = _physical(band, levels)
            low, high = _physical(band, np.array([-_BULK, _BULK], np.float32))
            values *= 1.0 + gain * options.jitter_gain
            values += shift * options.jitter_offset * (high - low)
            levels[...] = _to_levels(band, values)
            return
        if not options.jitter_db and options.speckle is None:
            return
        decibel = float(random.uniform(-1.0, 1.0)) * options.jitter_db
        power: Any = 10.0 ** (decibel / 10.0)
        if options.speckle is not None:
            looks = options.speckle
            # A mean of 1 leaves the backscatter what it is.
            power = power * random.gamma(looks, 1.0 / looks, levels.shape)
        stored = band.scaling.inverse(levels).astype(np.float64)
        if kind == "decibel":
            stored += 10.0 * np.log10(np.maximum(power, 1e-12))
        else:
            stored *= power if kind == "power" else np.sqrt(power)
        levels[...] = band.scaling.forward(stored)


def _physical(band: BandInfo, levels: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Physical values, scale and offset of the file applied: where zero is zero."""
    return band.scaling.inverse(levels).astype(np.float64) * band.scale + band.offset


def _to_levels(band: BandInfo, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return band.scaling.forward((values - band.offset) / (band.scale or 1.0))


def any_by_pixel(looks: Sequence[Radiometric | None]) -> bool:
    """Return whether numbers are drawn for each pixel in any of the domains."""
    return any(look is not None and look.by_pixel for look in looks)


def apply_all(
    looks: Sequence[Radiometric | None],
    sides: Sequence[tuple[Tensor, Tensor | None]],
    randoms: Sequence[np.random.Generator],
) -> None:
    """Change the images of a batch in place, each sample with its own random numbers.

    Args:
        looks: the changes of each domain; None: none.
        sides: levels (samples, bands, height, width), float32 on the CPU, and mask (samples, 1,
            height, width) or None of each domain.
        randoms: of each sample.
    """
    for look, (levels, valid) in zip(looks, sides, strict=True):
        if look is None:
            continue
        for i, random in enumerate(randoms):
            look.apply(levels[i].numpy(), None if valid is None else valid[i, 0].numpy(), random)
