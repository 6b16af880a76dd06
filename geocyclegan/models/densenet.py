"""A generator of densely connected blocks between the way down and the way up of the ResNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, require_positive, unit
from geocyclegan.models.norm import norm_layer
from geocyclegan.models.sampling import resolve_upsample, way_down, way_up


class DenseNetGenerator(Generator):
    """Two halvings, dense blocks at a quarter of the resolution, two doublings.

    Each layer of a block reads what all layers before it gave, and adds `width` / 2 channels; after
    each block a 1 × 1 convolution brings them back to 4 · `width`. Source of the blocks: Huang et
    al., "Densely Connected Convolutional Networks", CVPR 2017 (DenseNet-BC).

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        width: channels of the first layer; half as many are the growth of a dense layer.
        blocks: number of dense blocks.
        layers: layers of a block.
        norm: "instance", "scene" or "none".
        antialias: blur before every second pixel is dropped.
        upsample: how resolution is doubled; see `ResNetGenerator`.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        blocks: int = 3,
        layers: int = 6,
        norm: str = "instance",
        antialias: bool = False,
        upsample: str | None = None,
    ) -> None:
        require_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            width=width,
            blocks=blocks,
            layers=layers,
        )
        upsample = resolve_upsample(upsample, antialias)
        plan = way_down(in_channels, width, norm, antialias)
        for number in range(1, blocks + 1):
            plan += _block(f"block{number}", width, layers, norm)
        plan += unit("last", norm_layer(norm, width * 4), nn.ReLU(inplace=True))
        plan += way_up(width, out_channels, norm, upsample)
        super().__init__(in_channels, out_channels, plan)
        self.width = width
        self.blocks = blocks
        self.block_layers = layers
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
            "layers": self.block_layers,
            "norm": self.norm,
            "antialias": self.antialias,
            "upsample": self.upsample,
        }


def _block(name: str, width: int, layers: int, norm: str) -> list[Step]:
    """A dense block with its transition; norm and activation come before each convolution."""
    growth = max(width // 2, 1)
    plan: list[Step] = []
    channels = width * 4
    for layer in range(1, layers + 1):
        plan += [
            Step("save"),
            # Not in place: without a norm it would overwrite what was saved.
            *unit(f"{name}_{layer}a", norm_layer(norm, channels), nn.ReLU()),
            *unit(f"{name}_{layer}b", nn.Conv2d(channels, growth * 4, 1)),
            *unit(f"{name}_{layer}c", norm_layer(norm, growth * 4), nn.ReLU(inplace=True)),
            *unit(f"{name}_{layer}d", nn.ReflectionPad2d(1), nn.Conv2d(growth * 4, growth, 3)),
            Step("concat"),
        ]
        channels += growth
    return [
        *plan,
        *unit(f"{name}_end_a", norm_layer(norm, channels), nn.ReLU(inplace=True)),
        *unit(f"{name}_end_b", nn.Conv2d(channels, width * 4, 1)),
    ]
