"""What every discriminator has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """A network that says, patch by patch, whether an image is real.

    Attributes:
        in_channels: bands of the domain that is judged.
        min_size: smallest side of an input, in pixels.
    """

    in_channels: int
    min_size: int

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits of being real.

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width), bool or float; None: all are valid.

        Returns:
            Logits (samples, 1, rows, columns), one per patch; see `logit_weights`.

        Raises:
            ValueError: the shape of `x` or `valid` does not fit.
        """

    @abstractmethod
    def logit_weights(self, valid: Tensor) -> Tensor:
        """Share of valid pixels in what each logit sees, padding not counted.

        Args:
            valid: mask (samples, 1, height, width), bool or float.

        Returns:
            Weights (samples, 1, rows, columns) from 0 (no valid pixel) to 1 (all are valid).
        """

    def weights_for(self, images: Tensor, valid: Tensor | None) -> Tensor | None:
        """Weights with which the logits of images enter a mean; None: all alike.

        Args:
            images: (samples, in_channels, height, width).
            valid: mask (samples, 1, height, width); None: all are valid.

        Returns:
            Weights of the shape of the logits (samples, 1, rows, columns).
        """
        return None if valid is None else self.logit_weights(valid)

    def check(self, x: Tensor, valid: Tensor | None) -> None:
        """Refuse what the network cannot take.

        Args:
            x: should be (samples, in_channels, height, width), no side below `min_size`.
            valid: should be (samples, 1, height, width) or None.

        Raises:
            ValueError: says what was found and what is expected.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: expected (samples, {self.in_channels}, height, "
                f"width) with sides of at least {self.min_size} px"
            )
        if valid is not None and valid.shape != (x.shape[0], 1, *x.shape[-2:]):
            raise ValueError(
                f"valid mask of shape {tuple(valid.shape)}: "
                f"expected {(x.shape[0], 1, *x.shape[-2:])}"
            )

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""


def as_weight(valid: Tensor) -> Tensor:
    """A mask of any shape, bool or float, as floats of at least single precision."""
    return valid.to(torch.promote_types(valid.dtype, torch.float32))
