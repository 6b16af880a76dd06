"""Distances between images beside the mean absolute one: edges, spectra, coarse agreement.

All see valid pixels only, in single precision or better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geocyclegan.methods.losses import masked_mean, single

COARSE = (8, 16, 32)
"""Sides in pixels of the blocks whose means `coarse_distance` compares."""

_CHANGE = 0.25
_EPS = 1e-12


def gradient_difference(x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """Mean absolute difference of how steep two images are, across and down.

    Where edges are, not which way they go: the difference of absolute differences of neighbours,
    between two valid pixels. Source: Mathieu, Couprie, LeCun, "Deep multi-scale video prediction
    beyond mean square error", ICLR 2016, with exponent 1.

    Args:
        x: images (samples, bands, height, width).
        y: images of the same shape.
        valid: mask (samples, 1, height, width); None: all are valid.

    Returns:
        A scalar, the sum of the means across and down.
    """
    total = []
    for axis in (-1, -2):
        steep_x, steep_y = (single(image).diff(dim=axis).abs() for image in (x, y))
        total.append(masked_mean((steep_x - steep_y).abs(), _both(valid, axis)))
    return total[0] + total[1]


def _both(valid: Tensor | None, axis: int) -> Tensor | None:
    """Where a pixel and the next one along an axis are valid."""
    if valid is None:
        return None
    count = valid.shape[axis] - 1
    return valid.narrow(axis, 0, count).bool() & valid.narrow(axis, 1, count).bool()


def spectral_angle(x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """Mean angle between the spectra of two images, in radians.

    Levels are counted from -1, the darkest that a band gets, so a spectrum has no negative part and
    the angle lies between 0 and π/2; a common factor of all bands (shade, slope) does not change
    it. Source: Kruse et al., "The spectral image processing system (SIPS)", Remote Sensing of
    Environment 44, 1993; computed by Kahan's formula, which unlike the arc cosine has a slope
    everywhere.

    Args:
        x: images (samples, bands, height, width) in [-1, 1], two bands or more.
        y: images of the same shape.
        valid: mask (samples, 1, height, width); None: all are valid.

    Returns:
        A scalar.
    """
    u, v = (_direction(single(image) + 1.0) for image in (x, y))
    angle = 2.0 * torch.atan2(_length(u - v), _length(u + v))
    return masked_mean(angle, valid)


def _length(x: Tensor) -> Tensor:
    return (x.square().sum(dim=1, keepdim=True) + _EPS).sqrt()


def _direction(x: Tensor) -> Tensor:
    return x / _length(x)


def coarse_distance(
    x: Tensor, y: Tensor, valid: Tensor | None, sides: Sequence[int] = COARSE
) -> Tensor:
    """Robust distance between the means of blocks, averaged over several block sizes.

    For two images of one place that need not agree pixel by pixel: details, shifts of a few pixels
    and places that changed between the dates. A difference d of block means costs
    log(1 + (d/c)²/2), c = 0.25, which grows ever more slowly (the Cauchy loss, see Barron, "A
    general and adaptive robust loss function", CVPR 2019). A block counts by its valid share, if
    half of it is valid.

    Args:
        x: images (samples, bands, height, width) in [-1, 1], 0 where not valid.
        y: images of the same shape.
        valid: mask (samples, 1, height, width); None: all are valid.
        sides: sides of the blocks in pixels; those larger than the images are left out.

    Returns:
        A scalar; 0 where no block fits.
    """
    x, y = single(x), single(y)
    weight = x.new_ones(x.shape[0], 1, *x.shape[-2:]) if valid is None else valid.to(x.dtype)
    costs = []
    for side in sides:
        if side > min(x.shape[-2:]):
            continue
        share = F.avg_pool2d(weight, side)
        # The same divisor for both, so empty blocks are 0 in both.
        divisor = share.clamp_min(1e-6)
        mean_x, mean_y = (F.avg_pool2d(image * weight, side) / divisor for image in (x, y))
        cost = torch.log1p(0.5 * ((mean_x - mean_y) / _CHANGE).square())
        costs.append(masked_mean(cost, share * (share >= 0.5)))
    return torch.stack(costs).mean() if costs else x.sum() * 0.0
