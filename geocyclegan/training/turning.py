"""Mirrors and quarter turns of crops: while they are copied, or later, a whole batch at once.

On a CPU a crop is turned while it is copied into its batch. For a CUDA device it is copied as it
lies in its chip, and the batch is turned where it has moved to, which frees the threads that read.
Turning only says where each pixel comes from, so the bits are the same in both places; whatever
works on each pixel by itself (a mask, gain, the class with the largest share) may come before or
after it, and so may interpolation, whose last act it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.methods.base import Batch
from geocyclegan.training.augment import ScalarT, mirror_and_turn
from geocyclegan.training.warp import Placement


def fill(target: npt.NDArray[ScalarT], view: npt.NDArray[ScalarT]) -> None:
    """Copy a view of a chip, also one that is turned and thus lies badly in memory, in little time.

    Args:
        target: where to, `(bands, side, side)`; changed in place.
        view: what, of the same shape and type.
    """
    if abs(view.strides[-1]) <= abs(view.strides[-2]):
        target[...] = view
        return
    # Its rows are columns of the chip. These lie a power of two apart in chips of the usual sizes,
    # and so push each other out of the cache; in rows of an odd length they do not. Copying a band
    # into such rows first, as it lies in memory, takes half to two thirds of the time at 256 px.
    side = view.shape[-1]
    upright = np.empty((side, side | 1), view.dtype)[:, :side]
    for out, band in zip(target, view, strict=True):
        upright[...] = band.T
        out[...] = upright.T


def origins(places: Sequence[Placement], crop: int, pin: bool = False) -> Tensor:
    """Say where the pixels of mirrored and turned crops lie in crops that are neither.

    Args:
        places: how each crop is to be laid down.
        crop: side of the crops in pixels.
        pin: put the numbers into page-locked memory.

    Returns:
        int64 (samples, 2, crop): the pixel in row `i` and column `j` comes from the pixel whose
        number, counted row by row, is `[sample, 0, i] + [sample, 1, j]`.
    """
    out = torch.empty(len(places), 2, crop, dtype=torch.int64, pin_memory=pin)
    numbers = out.numpy()
    for i, where in enumerate(places):
        numbers[i] = _origins(where.mirrored, where.turns, crop)
    return out


@lru_cache(maxsize=32)
def _origins(mirrored: bool, turns: int, crop: int) -> npt.NDArray[np.int64]:
    laid = mirror_and_turn(
        np.arange(crop * crop, dtype=np.int64).reshape(crop, crop), mirrored, turns
    )
    return np.stack([laid[:, 0], laid[0] - laid[0, 0]])


def turn(images: Tensor, pixels: Tensor) -> Tensor:
    """Mirror and turn images where they are; nothing waits for their device.

    Args:
        images: (samples, bands, crop, crop).
        pixels: number, counted row by row, of the pixel that each comes from (samples, crop, crop),
            int64, on the same device.

    Returns:
        Images of the same shape.
    """
    flat = images.flatten(2)
    return flat.gather(2, pixels.flatten(1)[:, None].expand_as(flat)).view_as(images)


@dataclass(frozen=True, kw_only=True)
class Unturned(Batch):
    """A batch whose crops lie as in their chips until it moves; where it arrives, it is turned.

    Args:
        origins_a: where the pixels of `a` come from (samples, 2, crop), as `origins` says it.
        origins_b: the same for `b`.
    """

    origins_a: Tensor
    origins_b: Tensor

    @classmethod
    def of(cls, batch: Batch, origins_a: Tensor, origins_b: Tensor) -> Self:
        """Return a batch without pairs, together with what it takes to turn it.

        Args:
            batch: images of both domains, their masks and labels; its pairs are not taken over.
            origins_a: (samples, 2, crop), see `origins`.
            origins_b: the same for `b`; the same tensor, where `b` is laid down as `a` is.
        """
        return cls(
            *(batch.a, batch.b, batch.valid_a, batch.valid_b),
            labels_a=batch.labels_a,
            origins_a=origins_a,
            origins_b=origins_b,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device, mirrored and turned there, and so are its pairs; a plain `Batch`.

        Shapes stay as they are.
        """
        moved = super().to(device, non_blocking)
        from_a = _pixels(self.origins_a.to(device, non_blocking=non_blocking))
        from_b = from_a
        if self.origins_b is not self.origins_a:
            from_b = _pixels(self.origins_b.to(device, non_blocking=non_blocking))
        a, valid_a = turn(moved.a, from_a), _turned(moved.valid_a, from_a)
        labels = moved.labels_a
        return replace(
            moved,
            a=a,
            # What is one tensor on both sides stays one.
            b=a if moved.b is moved.a else turn(moved.b, from_b),
            valid_a=valid_a,
            valid_b=valid_a if moved.valid_b is moved.valid_a else _turned(moved.valid_b, from_b),
            labels_a=None if labels is None else turn(labels[:, None], from_a)[:, 0],
        )


def _pixels(origins: Tensor) -> Tensor:
    """The number of the pixel that each pixel comes from: (samples, crop, crop)."""
    return origins[:, 0, :, None] + origins[:, 1, None, :]


def _turned(mask: Tensor | None, pixels: Tensor) -> Tensor | None:
    return None if mask is None else turn(mask, pixels)
