"""The ResNet generator of the canonical CycleGAN."""

from __future__ import annotations

from typing import Any

from torch import nn

from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, require_positive, unit
from geocyclegan.models.norm import norm_layer


class ResNetGenerator(Generator):
    """Two halvings, `blocks` residual blocks at a quarter of the resolution, two doublings.

    Its receptive field has a radius of 8 · blocks + 12 pixels. Source: Johnson et al., "Perceptual
    Losses for Real-Time Style Transfer", ECCV 2016, as used by Zhu et al., ICCV 2017.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        width: channels of the first layer; the blocks have four times as many.
        blocks: number of residual blocks.
        norm: "instance", "scene" or "none".

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
    ) -> None:
        require_positive(
            in_channels=in_channels, out_channels=out_channels, width=width, blocks=blocks
        )
        plan = _plan(in_channels, out_channels, width, blocks, norm)
        super().__init__(in_channels, out_channels, plan)
        self.width = width
        self.blocks = blocks
        self.norm = norm

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "width": self.width,
            "blocks": self.blocks,
            "norm": self.norm,
        }


def _plan(in_channels: int, out_channels: int, width: int, blocks: int, norm: str) -> list[Step]:
    """The operations in order. ReLU works in place: nothing else reads what it overwrites."""
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
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            norm_layer(norm, coarse),
            nn.ReLU(inplace=True),
        )
    for number in range(1, blocks + 1):
        plan += _block(f"block{number}", width * 4, norm)
    for level in (2, 1):
        fine, coarse = width * 2 ** (level - 1), width * 2**level
        plan += unit(
            f"up{level}",
            nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1),
            norm_layer(norm, fine),
            nn.ReLU(inplace=True),
        )
    plan += unit("head", nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())
    return plan


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
