"""How far translated images are from real ones, without a network that somebody else has trained.

Both sets of images become sets of small patches, and these are compared as distributions: by their
projections on random directions (sliced Wasserstein distance: Rabin et al., SSVM 2011; on patches:
Karras et al., ICLR 2018), and by a polynomial kernel (the unbiased squared maximum mean discrepancy
of Gretton et al., JMLR 2012, with the kernel of Bińkowski et al., ICLR 2018). Positions and
directions follow fixed seeds, so that two validations of the same weights agree to the last digit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7
"""Side of the patches in pixels."""

_PER_IMAGE = 64
_DIRECTIONS = 256


def patches(images: Tensor, valid: Tensor | None, seed: int) -> Tensor:
    """Return patches of all-valid pixels at random places.

    Args:
        images: (samples, bands, height, width).
        valid: mask (samples, 1, height, width); None: all are valid.
        seed: of the places.

    Returns:
        (patches, bands · 7 · 7) on the CPU, up to 64 of each image; none where nothing is valid.
    """
    images = images.detach().float().cpu()
    bands = images.shape[1]
    mask = torch.ones_like(images[:, :1]) if valid is None else valid.float().cpu()
    whole = -F.max_pool2d(-mask, PATCH, stride=1)[:, 0] > 0
    random = torch.Generator().manual_seed(seed)
    found = [images.new_empty(0, bands * PATCH * PATCH)]
    for image, allowed in zip(images, whole, strict=True):
        places = allowed.nonzero()
        if not len(places):
            continue
        drawn = torch.randperm(len(places), generator=random)[:_PER_IMAGE]
        for row, col in places[drawn].tolist():
            found.append(image[:, row : row + PATCH, col : col + PATCH].reshape(1, -1))
    return torch.cat(found)


def sliced_wasserstein(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Return the mean 1-Wasserstein distance of projections on random directions.

    Args:
        x: (points, dimensions), at least one point, on the CPU.
        y: (points, dimensions); as many dimensions, at least one point, on the CPU.
        seed: of the directions.

    Returns:
        The distance, in the unit of the points.
    """
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], _DIRECTIONS, generator=random, dtype=torch.float64)
    directions /= directions.norm(dim=0, keepdim=True)
    count = max(len(x), len(y))
    # The quantile functions at the same places, whatever the numbers of points.
    at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    one, two = (_quantiles(points.double() @ directions, at) for points in (x, y))
    return float((one - two).abs().mean())


def _quantiles(projected: Tensor, at: Tensor) -> Tensor:
    ordered = projected.sort(dim=0).values
    return ordered[(at * len(ordered)).long().clamp_max(len(ordered) - 1)]


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy under (x·y / d + 1)³.

    Its mean is 0 where both sets are of one distribution, so it may be negative.

    Args:
        x: (points, dimensions), at least two points.
        y: (points, dimensions); as many dimensions, at least two points.
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        among = kernel(a, a)
        return (among.sum() - among.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())
