"""Count, mean and sum of squared deviations per channel: statistics that can be merged.

Source of the merging rule: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances", 1979. All in float64, so that the order of merging does not show.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of the channels of some samples, each over its valid pixels.

    Attributes:
        count: valid pixels of each sample (samples,), which may be fractions; float64.
        mean: (samples, channels), 0 where the count is 0; float64.
        m2: sum of squared deviations from the mean (samples, channels); float64.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def var(self) -> Tensor:
        """Population variance (samples, channels), 0 where the count is 0."""
        return self.m2 / _at_least_some(self.count)[:, None]

    @property
    def channels(self) -> int:
        """How many channels."""
        return self.mean.shape[1]

    @classmethod
    def of(cls, x: Tensor, weight: Tensor | None = None) -> Moments:
        """Measure features.

        Args:
            x: (samples, channels, height, width), single precision or better.
            weight: valid share of each pixel (samples, 1, height, width); None: all are valid.

        Returns:
            The statistics of each sample.
        """
        # Deviations from a mean in x's own precision, then corrected by what that mean lacks: no
        # cancellation at large means, and no copy of the features in double precision.
        if weight is None:
            count = x.new_full((x.shape[0], 1), x.shape[2] * x.shape[3], dtype=torch.float64)
            centre = x.mean(dim=(2, 3), keepdim=True)
            deviation = weighted = x - centre
        else:
            weight = weight.to(x.dtype)
            count = weight.sum(dim=(2, 3), dtype=torch.float64)
            total = _at_least_some(count).to(x.dtype)[:, :, None, None]
            centre = (x * weight).sum(dim=(2, 3), keepdim=True) / total
            deviation = x - centre
            weighted = deviation * weight
        first = weighted.sum(dim=(2, 3)).double()
        second = (weighted * deviation).sum(dim=(2, 3)).double()
        shift = first / _at_least_some(count)
        mean = centre[:, :, 0, 0].double() + shift
        m2 = (second - first * shift).clamp_min(0.0)
        return cls(count[:, 0], mean * (count > 0), m2)

    @classmethod
    def of_variance(cls, count: Tensor, mean: Tensor, var: Tensor) -> Moments:
        """Make statistics of one sample, on the CPU.

        Args:
            count: valid pixels, a scalar.
            mean: (channels,).
            var: population variances (channels,).
        """
        count, mean, var = (t.detach().to("cpu", torch.float64) for t in (count, mean, var))
        return cls(count.reshape(1), mean.reshape(1, -1), var.reshape(1, -1) * count)

    @classmethod
    def cat(cls, parts: Iterable[Moments]) -> Moments:
        """All samples of several statistics, one after the other."""
        found = list(parts)
        return cls(
            torch.cat([part.count for part in found]),
            torch.cat([part.mean for part in found]),
            torch.cat([part.m2 for part in found]),
        )

    def merge(self, other: Moments) -> Moments:
        """Statistics of the union, sample by sample (Chan's formula); as many samples in both."""
        count = self.count + other.count
        share = (other.count / _at_least_some(count))[:, None]
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * share,
            self.m2 + other.m2 + delta.square() * self.count[:, None] * share,
        )

    def pooled(self) -> Moments:
        """Statistics of all samples together, as one sample."""
        weight = self.count[:, None]
        total = _at_least_some(weight.sum(dim=0, keepdim=True))
        mean = (self.mean * weight).sum(dim=0, keepdim=True) / total
        between = ((self.mean - mean).square() * weight).sum(dim=0, keepdim=True)
        return Moments(
            self.count.sum(dim=0, keepdim=True),
            mean,
            self.m2.sum(dim=0, keepdim=True) + between,
        )

    def to(self, device: torch.device | str) -> Moments:
        """The same on another device."""
        return Moments(self.count.to(device), self.mean.to(device), self.m2.to(device))


def _at_least_some(count: Tensor) -> Tensor:
    """A count to divide by: the smallest real one is far above, so only empty samples meet it."""
    return count.clamp_min(1e-12)
