"""The ResNet generator of the canonical CycleGAN."""

from __future__ import annotations

from typing import Any

from torch import nn

from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, require_positive, unit
from geocyclegan.models.norm import norm_layer
from geocyclegan.models.sampling import resolve_upsample, way_down, way_up


class ResNetGenerator(Generator):
    """Two halvings, `blocks` residual blocks at a quarter of the resolution, two doublings.

    As it stands in the paper, its receptive field has a radius of 8 · blocks + 12 pixels. Source:
    Johnson et al., "Perceptual Losses for Real-Time Style Transfer", ECCV 2016, as used by Zhu et
    al., ICCV 2017.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        width: channels of the first layer; the blocks have four times as many.
        blocks: number of residual blocks.
        norm: "instance", "scene" or "none".
        antialias: blur before every second pixel is dropped.
        upsample: how resolution is doubled: "transpose", a transposed convolution, or "nearest" or
            "bilinear" enlargement and a convolution; None: "bilinear" with `antialias`, else
            "transpose".

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        antialias: bool = False,
        upsample: str | None = None,
    ) -> None:
        require_positive(
            in_channels=in_channels, out_channels=out_channels, width=width, blocks=blocks
        )
        upsample = resolve_upsample(upsample, antialias)
        # ReLU works in place: nothing else reads what it overwrites.
        plan = way_down(in_channels, width, norm, antialias)
        for number in range(1, blocks + 1):
            plan += _block(f"block{number}", width * 4, norm)
        plan += way_up(width, out_channels, norm, upsample)
        super().__init__(in_channels, out_channels, plan)
        self.width = width
        self.blocks = blocks
        self.norm = norm
        self.antialias = antialias
        self.upsample = upsample

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "width": self.width,
            "blocks": self.blocks,
            "norm": self.norm,
            "antialias": self.antialias,
            "upsample": self.upsample,
        }


def _block(name: str, channels: int, norm: str) -> list[Step]:
    """A residual block; its sum is not rectified."""
    first = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm_layer(norm, channels))
    second = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm_layer(norm, channels))
    return [
        Step("save"),
        *unit(f"{name}a", *first, nn.ReLU(inplace=True)),
        *unit(f"{name}b", *second),
        Step("add"),
    ]
