"""Halvings and doublings of the resolution that generators share, and the blur that goes with them.

A convolution that keeps every second pixel folds what is finer than its grid into coarse patterns;
a binomial blur before it removes most of that (Zhang, "Making Convolutional Networks
Shift-Invariant Again", ICML 2019). A transposed convolution whose kernel is no multiple of its
stride covers some pixels more often than others, which shows as a checkerboard; enlarging first and
convolving then does not (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.layers import Step, unit
from geocyclegan.models.norm import norm_layer

UPSAMPLINGS = ("transpose", "nearest", "bilinear")
"""What the `upsample` argument of a generator may be."""


class BlurPool2d(nn.Module):
    """A binomial blur (1 2 1) of which every second pixel is kept; nothing in it is learnt.

    It does not pad: a reflection by 1 belongs before it. Enlarging with the binomial (1 3 3 1) is
    bilinear interpolation, so the way back up needs no layer of its own.

    Args:
        channels: number of channels.

    Attributes:
        kernel: the blur's weights (1, 1, 3, 3), which sum to one.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        line = torch.tensor([1.0, 2.0, 1.0]) / 4.0
        # Not persistent: a constant has no place among the weights.
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blur and halve features (samples, channels, height, width).

        Returns:
            (samples, channels, (height - 1) // 2, (width - 1) // 2).
        """
        kernel = self.kernel.to(x.dtype).expand(self.channels, 1, 3, 3)
        return F.conv2d(x, kernel, stride=2, groups=self.channels)

    def extra_repr(self) -> str:
        """Show the arguments in the network's printout."""
        return str(self.channels)


def resolve_upsample(upsample: str | None, antialias: bool) -> str:
    """Choose how to double the resolution: the given way, or the one that goes with `antialias`.

    Raises:
        OptionError: `upsample` is not known.
    """
    if upsample is None:
        return "bilinear" if antialias else "transpose"
    if upsample not in UPSAMPLINGS:
        raise OptionError(
            f"upsample {upsample!r} is not known; choose one of: {', '.join(UPSAMPLINGS)}"
        )
    return upsample


def way_down(in_channels: int, width: int, norm: str, antialias: bool) -> list[Step]:
    """Steps from an image to features of 4 · width channels at a quarter of its resolution.

    Raises:
        OptionError: `norm` is not known.
    """
    plan = unit(
        "stem",
        nn.ReflectionPad2d(3),
        nn.Conv2d(in_channels, width, 7),
        norm_layer(norm, width),
        nn.ReLU(inplace=True),
    )
    for level in (1, 2):
        fine, coarse = width * 2 ** (level - 1), width * 2**level
        plan += unit(
            f"down{level}",
            nn.Conv2d(fine, coarse, 3, stride=1 if antialias else 2, padding=1),
            norm_layer(norm, coarse),
            nn.ReLU(inplace=True),
        )
        if antialias:
            plan += unit(f"blur{level}", nn.ReflectionPad2d(1), BlurPool2d(coarse))
    return plan


def way_up(width: int, out_channels: int, norm: str, upsample: str) -> list[Step]:
    """Steps from features of 4 · width channels back to an image, through tanh.

    Raises:
        OptionError: `norm` is not known.
    """
    plan: list[Step] = []
    for level in (2, 1):
        fine, coarse = width * 2 ** (level - 1), width * 2**level
        plan += unit(
            f"up{level}",
            *_doubling(coarse, fine, upsample),
            norm_layer(norm, fine),
            nn.ReLU(inplace=True),
        )
    return plan + unit("head", nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())


def _doubling(coarse: int, fine: int, upsample: str) -> tuple[nn.Module, ...]:
    if upsample == "transpose":
        return (nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1),)
    return (
        nn.Upsample(scale_factor=2, mode=upsample),
        nn.Conv2d(coarse, fine, 3, padding=1),
    )
