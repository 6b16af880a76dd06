"""How far translated images are from real ones, without a network that somebody else has trained.

Both sets of images become sets of small patches, and these are compared as distributions: by their
projections on random directions (sliced Wasserstein distance: Rabin et al., SSVM 2011; on patches:
Karras et al., ICLR 2018), and by a polynomial kernel (the unbiased squared maximum mean discrepancy
of Gretton et al., JMLR 2012, with the kernel of Bińkowski et al., ICLR 2018). Positions and
directions follow fixed seeds, so that two validations of the same weights agree to the last digit.

All of it is computed where the points are, in double precision, which no device rounds to less.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7
"""Side of the patches in pixels."""

_PER_IMAGE = 64
_DIRECTIONS = 256
_ROWS = 256
"""Rows of a kernel matrix that are in memory together; of its other side, all points are."""


def draw_places(shape: tuple[int, int, int], valid: Tensor | None, seed: int) -> Tensor:
    """Draw the places of patches of all-valid pixels at random.

    Args:
        shape: samples, height, width.
        valid: mask (samples, 1, height, width); None: all are valid.
        seed: of the places.

    Returns:
        Sample, first row and first column of each (patches, 3), int64, on the CPU; up to 64 of each
        sample, none where nothing is valid.
    """
    samples, height, width = shape
    random = torch.Generator().manual_seed(seed)
    if valid is None:
        across = width - PATCH + 1
        everywhere = torch.arange(max(height - PATCH + 1, 0) * max(across, 0))
        allowed = [everywhere] * samples
    else:
        whole = -F.max_pool2d(-valid.float().cpu(), PATCH, stride=1)[:, 0] > 0
        across = whole.shape[-1]
        allowed = [each.flatten().nonzero()[:, 0] for each in whole]
    found = [torch.empty(0, 3, dtype=torch.int64)]
    for sample, places in enumerate(allowed):
        if not len(places):
            continue
        drawn = places[torch.randperm(len(places), generator=random)[:_PER_IMAGE]]
        row = drawn.div(across, rounding_mode="floor")
        found.append(torch.stack([torch.full_like(row, sample), row, drawn % across], dim=1))
    return torch.cat(found)


def patches_at(images: Tensor, places: Tensor) -> Tensor:
    """Cut patches out of images.

    Args:
        images: (samples, bands, height, width).
        places: as `draw_places` gives them.

    Returns:
        (patches, bands · 7 · 7), float32, where the images are.
    """
    bands = images.shape[1]
    if not len(places):
        return images.new_empty(0, bands * PATCH * PATCH, dtype=torch.float32)
    windows = images.detach().unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    sample, row, column = places.to(images.device).unbind(1)
    return windows[sample, :, row, column].float().flatten(1)


def patches(images: Tensor, valid: Tensor | None, seed: int) -> Tensor:
    """Return patches of all-valid pixels at random places.

    Args:
        images: (samples, bands, height, width).
        valid: mask (samples, 1, height, width); None: all are valid.
        seed: of the places.

    Returns:
        (patches, bands · 7 · 7) where the images are, up to 64 of each image; none where nothing is
        valid.
    """
    samples, _, height, width = images.shape
    return patches_at(images, draw_places((samples, height, width), valid, seed))


class Reference:
    """A set of points that others are compared with, and what need be computed of it only once.

    Args:
        points: (points, dimensions), at least one; two for `kernel_distance`.
        seed: of the directions.
    """

    def __init__(self, points: Tensor, seed: int = 0) -> None:
        self.points = points
        self._seed = seed

    @property
    def nbytes(self) -> int:
        """Memory that it takes in the end."""
        return self.points.nbytes + 8 * _DIRECTIONS * len(self.points)

    def sliced_wasserstein(self, points: Tensor) -> float:
        """Return the mean 1-Wasserstein distance of projections on random directions.

        Args:
            points: (points, dimensions); as many dimensions, at least one point, on the same
                device.

        Returns:
            The distance, in the unit of the points.
        """
        one, two = self._project(points), self._projected
        # The quantile functions at the same places, whatever the numbers of points.
        count = max(one.shape[1], two.shape[1])
        at = (torch.arange(count, dtype=torch.float64, device=one.device) + 0.5) / count
        return float((_quantiles(one, at) - _quantiles(two, at)).abs().mean())

    def kernel_distance(self, points: Tensor) -> float:
        """Return the unbiased squared maximum mean discrepancy under (x·y / d + 1)³.

        Its mean is 0 where both sets are of one distribution, so it may be negative.

        Args:
            points: (points, dimensions); as many dimensions, at least two points, on the same
                device.
        """
        x, y = points.double(), self.points.double()
        across = _kernel_sum(x, y) / (len(x) * len(y))
        return float(_within(x) + self._within - 2 * across)

    @cached_property
    def _projected(self) -> Tensor:
        return self._project(self.points)

    @cached_property
    def _within(self) -> Tensor:
        return _within(self.points.double())

    def _project(self, points: Tensor) -> Tensor:
        """Projections in ascending order (directions, points)."""
        directions = _directions(points.shape[1], self._seed).to(points.device)
        return (directions @ points.double().T).sort(dim=1).values


def sliced_wasserstein(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Compare two sets of points, see `Reference.sliced_wasserstein`."""
    return Reference(y, seed).sliced_wasserstein(x)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Compare two sets of points, see `Reference.kernel_distance`."""
    return Reference(y).kernel_distance(x)


@lru_cache(maxsize=4)
def _directions(dimensions: int, seed: int) -> Tensor:
    """Random directions of length 1 (directions, dimensions), on the CPU."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randn(dimensions, _DIRECTIONS, generator=random, dtype=torch.float64)
    drawn /= drawn.norm(dim=0, keepdim=True)
    return drawn.T.contiguous()


def _quantiles(ordered: Tensor, at: Tensor) -> Tensor:
    count = ordered.shape[1]
    return ordered.index_select(1, (at * count).long().clamp_max(count - 1))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T).div_(a.shape[1]).add_(1.0).pow_(3)


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the kernel over all pairs of a point of each."""
    return torch.stack([_kernel(rows, b).sum() for rows in torch.split(a, _ROWS)]).sum()


def _within(a: Tensor) -> Tensor:
    """Mean of the kernel over all pairs of two points of one set."""
    sums = []
    for start in range(0, len(a), _ROWS):
        rows = a[start : start + _ROWS]
        among = _kernel(rows, rows)
        sums.append(among.sum() - among.diagonal().sum())
        if start:
            # Each pair once, counted for both orders.
            sums.append(2.0 * _kernel(rows, a[:start]).sum())
    return torch.stack(sums).sum() / (len(a) * (len(a) - 1))
