"""What every discriminator has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """A network that says, patch by patch, whether an image is real."""

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

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""
