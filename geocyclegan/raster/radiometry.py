"""Physical units ↔ [-1, 1], band by band: named, invertible, fitted on valid pixels in a stream.

The values are those that files store ("stored units"): a file's scale and offset are kept in
`domain.BandInfo` and not applied here.

A scaling is a monotone transform (none, decibel or logarithm) followed by a piecewise linear map
through a few knots. Values beyond the outer knots are clipped, so the knots of the default reach to
the extremes of the data it was fitted on:

- `auto`: the 1st and 99th percentile go to -0.9 and 0.9, the rest is squeezed, not cut, into the
  ends. A few glints cannot steal the contrast, and nothing seen in fitting is lost. A tail longer
  than a hundred times the bulk (a stray -9999) is cut there.
- `linear:LO,HI`: a fixed physical range.
- `percentile:LO,HI`: the range between two percentiles, what lies beyond is clipped.
- `db`: 10 log10, decibel for a power and half of it for an amplitude; then as `auto`, whose
  levels are the same for both.
- `log1p`: sign(x) log(1 + |x|), then as `auto`.
- `zscore`: the mean ± 3 standard deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.sketch import BandSketch

_BULK = (0.01, 0.99)
_BULK_LEVEL = 0.9
_LONGEST_TAIL = 100.0
_METHODS = ("auto", "linear", "percentile", "db", "log1p", "zscore")


@dataclass(frozen=True)
class ScaleSpec:
    """What `--scale` asks for.

    Attributes:
        method: the name of a scaling.
        bounds: the range of "linear", in stored units, or of "percentile", from 0 to 100; None for
            the others.
    """

    method: str
    bounds: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `auto`, `linear:LO,HI`, `percentile:LO,HI`, `db`, `log1p` or `zscore`.

        Raises:
            OptionError: it is none of these, or the range is not one.
        """
        method, colon, numbers = text.strip().partition(":")
        if method not in _METHODS:
            raise OptionError(
                f"--scale {text}: expected auto, linear:LO,HI, percentile:LO,HI, db, log1p"
                " or zscore"
            )
        wants_range = method in ("linear", "percentile")
        if wants_range != bool(colon):
            hint = f"{method}:LO,HI" if wants_range else f"plain {method}"
            raise OptionError(f"--scale {text}: expected {hint}")
        if not wants_range:
            return cls(method)
        try:
            low, high = (float(number) for number in numbers.split(","))
        except ValueError:
            raise OptionError(f"--scale {text}: expected {method}:LO,HI, two numbers") from None
        if not (np.isfinite([low, high]).all() and low < high):
            raise OptionError(f"--scale {text}: expected LO below HI")
        if method == "percentile" and (low < 0.0 or high > 100.0):
            raise OptionError(f"--scale {text}: percentiles lie between 0 and 100")
        return cls(method, (low, high))

    def __str__(self) -> str:
        if self.bounds is None:
            return self.method
        return f"{self.method}:{self.bounds[0]:g},{self.bounds[1]:g}"


@dataclass(frozen=True)
class BandScaling:
    """An invertible map of one band to [-1, 1].

    Attributes:
        method: the name of the method that made it.
        knots: increasing values, in the transformed unit (dB, log or stored units).
        levels: the increasing levels in [-1, 1] that they go to, as many as knots.

    Raises:
        ValueError: the method is not known, or knots and levels are not as described.
    """

    method: str
    knots: tuple[float, ...]
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"unknown scaling {self.method!r}")
        if len(self.knots) != len(self.levels) or len(self.knots) < 2:
            raise ValueError("a scaling needs as many levels as knots, two at least")
        if not (np.all(np.diff(self.knots) > 0) and np.all(np.diff(self.levels) > 0)):
            raise ValueError("the knots and levels of a scaling must increase")

    def forward(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Map values of any shape, in stored units, to levels in [-1, 1].

        Values beyond the outer knots are clipped.

        Returns:
            float32 of the shape of `values`.
        """
        wide = values.astype(self._working_dtype(values.dtype))
        if self.method == "db":
            # The lowest knot is the smallest power seen; nothing below it has a logarithm to give.
            wide = np.maximum(wide, wide.dtype.type(10.0 ** (self.knots[0] / 10.0)))
        levels = _interpolate(_transform(self.method, wide), self.knots, self.levels, self._bulk)
        return levels.astype(np.float32, copy=False)

    def inverse(self, levels: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Map levels of any shape to values; levels beyond the outer ones are clipped.

        Returns:
            Floating-point values of the shape of `levels`, in stored units.
        """
        wide = levels.astype(self._working_dtype(levels.dtype))
        return _untransform(self.method, _interpolate(wide, self.levels, self.knots, self._bulk))

    @property
    def _bulk(self) -> int:
        """Index of the segment that takes up most of the levels."""
        return int(np.argmax(np.diff(self.levels)))

    @property
    def bulk_levels(self) -> tuple[float, float]:
        """The levels (low, high) between which most pixels lie, squeezed tails left out."""
        levels, has_tails = self.levels, len(self.levels) > 2
        low = levels[1] if has_tails and levels[1] < 0 else levels[0]
        high = levels[-2] if has_tails and levels[-2] > 0 else levels[-1]
        return low, high

    def _working_dtype(self, dtype: np.dtype[Any]) -> npt.DTypeLike:
        # float32 resolves a 16-bit quantum in every segment; wider integers, doubles and ranges far
        # from zero need more.
        far = max(map(abs, self.knots)) > 1e5 * (self.knots[-1] - self.knots[0])
        wide = dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize > 2)
        return np.float64 if far or wide or self.knots[-1] - self.knots[0] > 1e5 else np.float32

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"method": self.method, "knots": list(self.knots), "levels": list(self.levels)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        return cls(str(value["method"]), tuple(value["knots"]), tuple(value["levels"]))


def _transform(method: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if method == "db":
        return np.asarray(10.0 * np.log10(values))
    if method == "log1p":
        return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
    return values


def _untransform(method: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if method == "db":
        return np.asarray(np.power(10.0, values / 10.0))
    if method == "log1p":
        return np.asarray(np.sign(values) * np.expm1(np.abs(values)))
    return values


def _interpolate(
    values: npt.NDArray[Any], xs: Sequence[float], ys: Sequence[float], base: int
) -> npt.NDArray[Any]:
    """Piecewise linear map, clipped at its ends.

    A sum of clipped segments, which unlike `numpy.interp` keeps float32. It is anchored at the
    segment `base`, so that the rounding of a steep tail stays in that tail.
    """
    result = np.zeros_like(values)
    real = values.dtype.type
    for k, (x0, x1, y0, y1) in enumerate(zip(xs[:-1], xs[1:], ys[:-1], ys[1:], strict=True)):
        segment = np.clip(values, real(x0), real(x1))
        segment -= real(x0 if k >= base else x1)
        segment *= real((y1 - y0) / (x1 - x0))
        result += segment
    result += real(ys[base])
    return np.asarray(np.clip(result, real(ys[0]), real(ys[-1])))


def fit_scaling(spec: ScaleSpec, sketch: BandSketch, label: str) -> BandScaling:
    """Fit a scaling to the statistics of a band's valid pixels.

    Args:
        spec: the method asked for.
        sketch: statistics of the valid pixels.
        label: what to call the band in an error.

    Raises:
        SceneError: there is no valid pixel, or `db` was asked for values that are not power.
    """
    if not sketch.count:
        raise SceneError(f"{label}: no valid pixel, so there is nothing to fit a scaling on")
    if spec.method == "linear":
        return BandScaling("linear", spec.bounds or (-1.0, 1.0), (-1.0, 1.0))
    if spec.method == "percentile":
        low, high = (sketch.quantile(percent / 100) for percent in spec.bounds or (2.0, 98.0))
        return _two_knots("percentile", low, high)
    if spec.method == "zscore":
        reach = 3.0 * sketch.std
        return _two_knots("zscore", sketch.mean - reach, sketch.mean + reach)
    minimum = sketch.minimum
    if spec.method == "db":
        if sketch.positive < 0.5 * sketch.count:
            share = 1.0 - sketch.positive / sketch.count
            if sketch.minimum < 0.0:
                raise SceneError(
                    f"{label}: {share:.0%} of the valid pixels are zero or negative, so they are no"
                    " power; if they are in dB already, use --scale auto --unit dB"
                )
            raise SceneError(
                f"{label}: {share:.0%} of the valid pixels are zero, which has no decibel; if zero"
                " stands for no data, give --nodata 0, or say so in the file:"
                " gdal_edit.py -a_nodata 0 FILE"
            )
        minimum = sketch.smallest_positive
    # A monotone transform carries quantiles along.
    values = np.array([minimum, *(sketch.quantile(q) for q in _BULK), sketch.maximum])
    knots = _transform(spec.method, np.maximum(values, minimum))
    return _with_tails(spec.method, *(float(knot) for knot in knots))


def _with_tails(method: str, lowest: float, low: float, high: float, highest: float) -> BandScaling:
    width = high - low
    if width <= 0.0:
        return _two_knots(method, lowest, highest)
    knots, levels = [low, high], [-_BULK_LEVEL, _BULK_LEVEL]
    # A tail so short that float32 could not step through it is no tail.
    shortest = 1e-4 * width
    if low - lowest > shortest:
        knots.insert(0, max(lowest, low - _LONGEST_TAIL * width))
        levels.insert(0, -1.0)
    else:
        knots[0], levels[0] = lowest, -1.0
    if highest - high > shortest:
        knots.append(min(highest, high + _LONGEST_TAIL * width))
        levels.append(1.0)
    else:
        knots[-1], levels[-1] = highest, 1.0
    return BandScaling(method, tuple(knots), tuple(levels))


def _two_knots(method: str, low: float, high: float) -> BandScaling:
    if not high > low:
        # A constant band goes to level 0 and comes back as the same constant.
        reach = max(1.0, abs(low) * 1e-3)
        low, high = low - reach, low + reach
    return BandScaling(method, (low, high), (-1.0, 1.0))


@dataclass(frozen=True)
class Radiometry:
    """The scalings of all bands of a domain.

    Attributes:
        scalings: one for each band, in order.
    """

    scalings: tuple[BandScaling, ...]

    def forward(
        self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float32]:
        """Map pixels to levels.

        Args:
            pixels: `(bands, height, width)`, in stored units.
            valid: `(height, width)`; invalid pixels, whatever they hold, become 0. None: all are
                valid.

        Returns:
            float32 `(bands, height, width)` in [-1, 1].

        Raises:
            ValueError: there is not one scaling for each band.
        """
        if valid is not None and not valid.all():
            pixels = np.where(valid, pixels, np.zeros((), pixels.dtype))
        levels = np.stack(
            [scaling.forward(band) for scaling, band in zip(self.scalings, pixels, strict=True)]
        )
        if valid is not None:
            levels *= valid
        return levels

    def inverse(self, levels: npt.NDArray[np.floating[Any]]) -> list[npt.NDArray[np.floating[Any]]]:
        """Map levels `(bands, height, width)` to values.

        Returns:
            A floating-point array `(height, width)` for each band, in stored units.

        Raises:
            ValueError: there is not one scaling for each band.
        """
        return [scaling.inverse(band) for scaling, band in zip(self.scalings, levels, strict=True)]
