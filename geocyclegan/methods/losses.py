"""Losses over valid pixels only, in single precision whatever the networks run in."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError

GanKind = Literal["lsgan", "vanilla"]
GAN_KINDS: tuple[str, ...] = get_args(GanKind)


def masked_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean sum(w · v) / sum(w); 0 where nothing has weight.

    Args:
        values: (samples, channels, height, width).
        weights: (samples, 1, height, width), bool or float, the same for all channels; None: the
            plain mean.

    Returns:
        A scalar.
    """
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype)
    # Any weight there is lies far above 1e-12, so only an empty batch meets the clamp.
    total = (weights.sum() * values.shape[1]).clamp_min(1e-12)
    return (values * weights).sum() / total


def masked_l1(x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """Mean absolute difference of valid pixels.

    Args:
        x: images (samples, bands, height, width).
        y: images of the same shape.
        valid: mask (samples, 1, height, width); None: all are valid.

    Returns:
        A scalar.
    """
    return masked_mean((_single(x) - _single(y)).abs(), valid)


class GanLoss(nn.Module):
    """Distance of a discriminator's logits from what they should say.

    Args:
        kind: "lsgan", the squared distance to 1 (real) or 0 (Mao et al., ICCV 2017), or
            "vanilla", the cross-entropy (Goodfellow et al., NeurIPS 2014).

    Raises:
        OptionError: `kind` is not known.
    """

    def __init__(self, kind: GanKind = "lsgan") -> None:
        super().__init__()
        if kind not in GAN_KINDS:
            raise OptionError(
                f"gan_loss {kind!r} is not known; choose one of: {', '.join(GAN_KINDS)}"
            )
        self.kind = kind

    def forward(self, logits: Tensor, is_real: bool, weights: Tensor | None = None) -> Tensor:
        """Mean loss.

        Args:
            logits: (samples, 1, rows, columns).
            is_real: what the logits should say.
            weights: valid share of each logit's patch, of the shape of `logits`; None: all valid.

        Returns:
            A scalar.
        """
        logits = _single(logits)
        target = torch.full_like(logits, float(is_real))
        if self.kind == "lsgan":
            values = (logits - target).square()
        else:
            values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return masked_mean(values, weights)


def _single(x: Tensor) -> Tensor:
    """The same values in single precision or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
