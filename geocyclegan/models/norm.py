"""Instance normalisation whose statistics see valid pixels only.

The layer is the place where a scene's tiles come to agree or to differ, so it is a room of its own:
it knows its `scale` (how many input pixels one of its pixels spans), takes the valid mask at that
scale, and keeps its arithmetic in single precision or better whatever the network runs in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError

NORMS = ("instance", "none")
"""What the `norm` argument of a network may be."""


class SceneNorm2d(nn.Module):
    """Instance normalisation without affine parameters and without running statistics.

    `valid` carries the weight of each pixel in the statistics: 0 is nodata, 1 is valid, and what
    lies between is the valid share of a coarse pixel. Pixels of weight 0 come out as 0, which is
    the mean of the valid ones, so that nodata can neither shift the statistics nor grow from layer
    to layer where the valid pixels are flat.

    Args:
        channels: number of channels.
        eps: added to the variance.
        pool: which pixels share statistics; "crop": those of one sample.

    Attributes:
        scale: side of one pixel of this layer in input pixels; set by the network it belongs to.

    Raises:
        ValueError: `pool` is not known.
    """

    def __init__(self, channels: int, eps: float = 1e-5, pool: str = "crop") -> None:
        super().__init__()
        if pool != "crop":
            raise ValueError(f"pool={pool!r} is not known; expected 'crop'")
        self.channels = channels
        self.eps = eps
        self.pool = pool
        self.scale = 1

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise each channel of each sample.

        Args:
            x: features (samples, channels, height, width).
            valid: weights (samples, 1, height, width), bool or float; None: all are valid.

        Returns:
            Features of the same shape, dtype and memory format as `x`.
        """
        # Half precision loses the variance of flat tiles (NaN); statistics stay fp32 or better.
        features = x.to(torch.promote_types(x.dtype, torch.float32))
        if valid is None and x.shape[-2] * x.shape[-1] > 1:
            out = F.instance_norm(features, eps=self.eps)
        else:
            out = _weighted_norm(features, valid, self.eps)
        out = out.to(x.dtype)
        if x.is_contiguous(memory_format=torch.channels_last):
            # F.instance_norm answers in NCHW; the convolution that follows wants what it gave.
            out = out.contiguous(memory_format=torch.channels_last)
        return out

    def extra_repr(self) -> str:
        """Show the arguments in the network's printout."""
        return f"{self.channels}, eps={self.eps}, pool={self.pool!r}, scale={self.scale}"


def _weighted_norm(x: Tensor, valid: Tensor | None, eps: float) -> Tensor:
    """Two-pass weighted mean and population variance, which does not cancel at large means."""
    weight = x.new_ones(x.shape[0], 1, *x.shape[-2:]) if valid is None else valid.to(x.dtype)
    # The smallest weight that is not zero is far above 1e-12, so only empty samples meet the clamp.
    total = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-12)
    mean = (x * weight).sum(dim=(2, 3), keepdim=True) / total
    centred = x - mean
    var = (centred.square() * weight).sum(dim=(2, 3), keepdim=True) / total
    return centred * torch.rsqrt(var + eps) * (weight > 0)


def norm_layer(norm: str, channels: int) -> SceneNorm2d | None:
    """The layer that `norm` names, or None for "none".

    Raises:
        OptionError: `norm` is not known.
    """
    if norm not in NORMS:
        raise OptionError(f"norm {norm!r} is not known; choose one of: {', '.join(NORMS)}")
    return SceneNorm2d(channels) if norm == "instance" else None
