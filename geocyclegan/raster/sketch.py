"""One-pass, mergeable statistics of a band: moments, range and quantiles in bounded memory.

Integers of up to 16 bits are counted exactly, one bin per value. Everything else is counted by the
leading bits of its float32 pattern, made monotone (sign, exponent and nine mantissa bits), so that
a quantile is right to 0.2 % of its own value whatever the range, and the result depends neither on
the order of the pixels nor on how they were spread over processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_DROPPED_BITS = 14
_FLOAT_BINS = 1 << (32 - _DROPPED_BITS)
# Pixels that are looked at in one go: wider copies of them stay in a core's cache.
_AT_ONCE = 1 << 16
# Networks compute in float32; doubles beyond it stand for no data that nobody declared.
_LARGEST = float(np.finfo(np.float32).max)
# What programs write where there is no data.
_FILLERS = (
    *(-999.0, -9999.0, -99999.0, -32767.0, -32768.0, -2147483648.0),
    *(-1e20, 1e20, -_LARGEST, _LARGEST, 9.96921e36),
)


def usual_filler(*values: float) -> float | None:
    """Return the first of some values that programs usually write where there is no data."""
    for value in values:
        if any(abs(value - known) <= 1e-5 * abs(known) for known in _FILLERS):
            return value
    return None


def _float_bins(values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Negative floats grow with the pattern of their magnitude: flip them all; positive ones only
    # need to stand above them.
    sign = (bits.view(np.int32) >> 31).view(np.uint32)  # all ones or none
    sign |= np.uint32(1 << 31)
    sign ^= bits
    sign >>= np.uint32(_DROPPED_BITS)
    return sign.astype(np.intp)


def _add_bins(bins: npt.NDArray[np.int64], indexes: npt.NDArray[np.intp]) -> None:
    """Count indexes into bins; they are overwritten. Most lie close together, far from zero."""
    first = int(indexes.min())
    indexes -= first
    found = np.bincount(indexes)
    bins[first : first + found.size] += found


def _float_edges(bins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    ordered = np.minimum(bins.astype(np.uint64) << _DROPPED_BITS, 0xFFFFFFFF).astype(np.uint32)
    bits = np.where(ordered >> 31 == 1, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    return np.asarray(bits.astype(np.uint32).view(np.float32), np.float64)


@dataclass
class BandSketch:
    """Statistics of the valid pixels of one band.

    Attributes:
        dtype: pixel type; decides between exact and logarithmic bins.
        count: pixels seen.
        mean: their mean.
        m2: their sum of squared deviations from the mean.
        minimum: smallest value.
        maximum: largest value.
        smallest_positive: smallest value above zero, infinite if there is none.
        positive: pixels above zero.
        bins: pixels in each bin `(bins,)`: one bin per value of an integer type of up to 16 bits,
            2^18 for all other types.
    """

    dtype: str
    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    smallest_positive: float = float("inf")
    positive: int = 0
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    def __post_init__(self) -> None:
        if not len(self.bins):
            self.bins = np.zeros(self._bin_count, np.int64)

    @property
    def is_exact(self) -> bool:
        """True if every value has a bin of its own."""
        kind = np.dtype(self.dtype)
        return kind.kind in "iu" and kind.itemsize <= 2

    @property
    def _bin_count(self) -> int:
        return 1 << 8 * np.dtype(self.dtype).itemsize if self.is_exact else _FLOAT_BINS

    def update(self, values: npt.NDArray[Any]) -> None:
        """Add pixels of `dtype` (any shape, all of them valid and finite, stored units)."""
        flat = values.ravel()
        if not flat.size:
            return
        if flat.dtype == np.float64:
            flat = np.clip(flat, -_LARGEST, _LARGEST)
        if self.is_exact:
            self._count(flat)
        for start in range(0, flat.size if not self.is_exact else 0, _AT_ONCE):
            self._measure(flat[start : start + _AT_ONCE])

    def _count(self, values: npt.NDArray[Any]) -> None:
        """Add values that have bins of their own: the histogram holds all there is to know."""
        lowest = int(np.iinfo(self.dtype).min)
        if lowest:
            # Shifted bits count from the lowest value on, without a wider type.
            unsigned = np.dtype(self.dtype.replace("int", "uint"))
            values = values.view(unsigned) ^ unsigned.type(-lowest)
        bins = np.zeros(self._bin_count, np.int64)
        indexes = np.empty(min(_AT_ONCE, values.size), np.intp)
        for start in range(0, values.size, _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            indexes[: part.size] = part
            found = np.bincount(indexes[: part.size])
            bins[: found.size] += found
        used = np.flatnonzero(bins)
        seen, times = (used + lowest).astype(np.float64), bins[used]
        mean = float((seen * times).sum()) / values.size
        self._merge_moments(values.size, mean, float((np.square(seen - mean) * times).sum()))
        self.minimum = min(self.minimum, float(seen[0]))
        self.maximum = max(self.maximum, float(seen[-1]))
        above = seen > 0
        if above.any():
            self.positive += int(times[above].sum())
            self.smallest_positive = min(self.smallest_positive, float(seen[above][0]))
        self.bins += bins

    def _measure(self, values: npt.NDArray[Any]) -> None:
        wide = values.astype(np.float64)
        mean = float(wide.mean())
        wide -= mean
        # Not np.dot, whose threads wait for each other longer than they work on so few values.
        self._merge_moments(values.size, mean, float(np.square(wide, out=wide).sum()))
        lowest = float(values.min())
        self.minimum = min(self.minimum, lowest)
        self.maximum = max(self.maximum, float(values.max()))
        above = values if lowest > 0 else values[values > 0]
        if above.size:
            self.positive += above.size
            smallest = lowest if lowest > 0 else float(above.min())
            self.smallest_positive = min(self.smallest_positive, smallest)
        _add_bins(self.bins, _float_bins(values))

    def merge(self, other: BandSketch) -> None:
        """Add another sketch of the same pixel type (Chan et al. 1979 for the moments)."""
        if other.count == 0:
            return
        self._merge_moments(other.count, other.mean, other.m2)
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.smallest_positive = min(self.smallest_positive, other.smallest_positive)
        self.positive += other.positive
        self.bins += other.bins

    def _merge_moments(self, count: int, mean: float, m2: float) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.m2 += m2 + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0

    @property
    def filler(self) -> float | None:
        """The smallest or largest value, if it is one that usually stands for no data."""
        return usual_filler(self.minimum, self.maximum) if self.count else None

    def quantile(self, share: float) -> float:
        """Return the value below which `share` (0 to 1) of the pixels lie.

        Raises:
            ValueError: no pixel was seen.
        """
        if not self.count:
            raise ValueError("a band without a valid pixel has no quantiles")
        if share <= 0.0:
            return self.minimum
        if share >= 1.0:
            return self.maximum
        cumulative = np.cumsum(self.bins)
        # The value of the pixel with this rank, counted from 0, as numpy's "linear" method ranks.
        rank = share * (self.count - 1)
        found = int(np.searchsorted(cumulative, rank, side="right"))
        if self.is_exact:
            return float(found + int(np.iinfo(self.dtype).min))
        before = float(cumulative[found - 1]) if found else 0.0
        low, high = _float_edges(np.array([found, found + 1]))
        value = low + (high - low) * (rank - before + 0.5) / float(self.bins[found])
        return float(min(max(value, self.minimum), self.maximum))

    def histogram(self, low: float, high: float, columns: int) -> npt.NDArray[np.int64]:
        """Count pixels in equal columns between two values; what lies beyond is left out.

        Returns:
            Counts `(columns,)`; of integers with fewer values than columns, one for each value.
        """
        used = np.flatnonzero(self.bins)
        if self.is_exact:
            values = used.astype(np.float64) + int(np.iinfo(self.dtype).min)
            first, last = round(low), round(high)
            if last - first < columns:
                return np.histogram(
                    values, last - first + 1, (first - 0.5, last + 0.5), weights=self.bins[used]
                )[0].astype(np.int64)
        else:
            values = (_float_edges(used) + _float_edges(used + 1)) / 2
            values = np.clip(values, self.minimum, self.maximum)
        found = np.histogram(values, columns, (low, high), weights=self.bins[used])[0]
        return np.asarray(found, np.int64)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return compact arrays that `from_arrays` reads back.

        Returns:
            By name: "dtype" `()`; "counts" `(2,)`, `count` and `positive`; "moments" `(5,)`,
            `mean`, `m2`, `minimum`, `maximum` and `smallest_positive`; "bin_index" and "bin_count",
            each `(n,)`, number and count of the bins that are not empty.
        """
        used = np.flatnonzero(self.bins)
        moments = [self.mean, self.m2, self.minimum, self.maximum, self.smallest_positive]
        return {
            "dtype": np.array(self.dtype),
            "counts": np.array([self.count, self.positive], np.int64),
            "moments": np.array(moments, np.float64),
            "bin_index": used.astype(np.int32),
            "bin_count": self.bins[used],
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """Read what `to_arrays` gave; shapes are as described there.

        Raises:
            KeyError, IndexError, ValueError, TypeError: an array is missing or damaged.
        """
        sketch = cls(str(arrays["dtype"]))
        sketch.count, sketch.positive = (int(v) for v in arrays["counts"])
        sketch.mean, sketch.m2, sketch.minimum, sketch.maximum, sketch.smallest_positive = (
            float(v) for v in arrays["moments"]
        )
        sketch.bins[arrays["bin_index"]] = arrays["bin_count"]
        return sketch


def quantiles_of(
    arrays: Mapping[str, npt.NDArray[Any]], shares: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return quantiles of what `BandSketch.to_arrays` gave, without unfolding it.

    Args:
        arrays: shapes are described there; one pixel was seen at least.
        shares: from 0 to 1.

    Returns:
        The lower edge of the bin of each quantile `(shares,)`; exact where values have their own.
    """
    dtype, index = np.dtype(str(arrays["dtype"])), arrays["bin_index"].astype(np.int64)
    cumulative = np.cumsum(arrays["bin_count"])
    ranks = np.asarray(shares) * (cumulative[-1] - 1)
    found = index[np.searchsorted(cumulative, ranks, side="right").clip(max=len(index) - 1)]
    if BandSketch(dtype.name, bins=np.zeros(1, np.int64)).is_exact:
        return np.asarray(found + int(np.iinfo(dtype).min), np.float64)
    return _float_edges(found)
