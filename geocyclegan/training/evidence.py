"""How sure a comparison with the truth is: what a warning of a flipped meaning needs.

Pixels beside each other are alike, so that thousands of them may be worth a handful. What a number
is worth is told by leaving parts out of it, one after the other: whole images where there are
enough, else blocks of them. That is the delete-one-group jackknife (Künsch, "The jackknife and the
bootstrap for general stationary observations", Annals of Statistics 17, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS = 4
"""Blocks along each side of an image."""

LEAST_PARTS = 8
"""Fewer parts tell nothing of how much a number varies; so many images are parts themselves."""

EARLIEST_STEP = 100
"""Before it a network has learnt so little that a sign means nothing."""

_MARGIN = 0.1
_STANDARD_ERRORS = 3.0  # a run looks many times, so the usual two would cry wolf


@dataclass(frozen=True)
class Finding:
    """What a comparison found.

    Attributes:
        columns: numbers by the names that `validation.csv` gives them.
        signs: what speaks for a flipped meaning, clearly; empty if nothing does.
    """

    columns: dict[str, float]
    signs: tuple[str, ...] = ()


def way_of(direction: str) -> str:
    """Return "A to B" of "a2b"."""
    return " to ".join(direction.upper().split("2"))


def is_clearly_negative(value: float, variance: float) -> bool:
    """Say whether a number lies below 0 by a margin, and by three standard errors."""
    return value < -_MARGIN and value < -_STANDARD_ERRORS * variance**0.5


def jackknife_variance(without: Tensor) -> float:
    """Return the variance of a number.

    Args:
        without: the number with each of the parts left out (parts,).

    Returns:
        (n - 1)/n times the sum of squared deviations from their mean; infinite for few parts.
    """
    count = len(without)
    if count < LEAST_PARTS:
        return float("inf")
    deviations = without.double() - without.double().mean()
    return float(deviations.square().sum() * (count - 1) / count)


def leave_out(sums: Tensor, weights: Tensor) -> Tensor:
    """Return the total of sums with each of their parts left out.

    Args:
        sums: over the blocks of images, (images, blocks, ...).
        weights: how much each of those blocks counts, (images, blocks).

    Returns:
        (parts, ...): a part is an image where there are enough, else a block. What counts nothing
        is no part.
    """
    images = weights.sum(1) > 0
    if int(images.sum()) >= LEAST_PARTS:
        parts = sums.sum(1)[images]
    else:
        parts = sums.flatten(0, 1)[weights.flatten() > 0]
    return sums.sum((0, 1)) - parts


def block_sums(x: Tensor) -> Tensor:
    """Return the sums over the blocks of images (..., height, width) as (..., blocks)."""
    height, width = x.shape[-2:]
    rows, cols = (_membership(side, x) for side in (height, width))
    return torch.einsum("kh,...hw,lw->...kl", rows, x, cols).flatten(-2)


def _membership(side: int, like: Tensor) -> Tensor:
    """Return which block each pixel of a side is in, (blocks, side), as 0 and 1."""
    block = torch.arange(side, device=like.device) * BLOCKS // side
    blocks = torch.arange(BLOCKS, device=like.device)
    return (block == blocks[:, None]).to(like.dtype)
