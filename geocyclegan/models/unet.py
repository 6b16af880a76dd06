"""The U-Net generator of pix2pix, the alternative to the ResNet."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, require_positive, unit
from geocyclegan.models.norm import norm_layer


class UNetGenerator(Generator):
    """`depth` halvings down to one pixel per 2^depth, and back with a skip at each level.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
    2017, appendix. Each output pixel sees more than a window's side in every direction, so there is
    no halo that would make tiles independent: such a generator needs overlap and blending.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        width: channels of the first layer; deeper ones have up to eight times as many.
        depth: number of halvings; 8 for crops of 256 px, 7 for 128.
        norm: "instance", "scene" or "none".
        dropout: drop half of the features in the inner levels while training.

    Raises:
        OptionError: an argument is out of range.
    """

    bounded: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        depth: int = 8,
        norm: str = "instance",
        dropout: bool = False,
    ) -> None:
        require_positive(
            in_channels=in_channels, out_channels=out_channels, width=width, depth=depth
        )
        if depth < 2:
            raise OptionError(f"depth is {depth}; expected at least 2 halvings")
        plan = _plan((in_channels, out_channels), width, depth, norm, dropout)
        super().__init__(in_channels, out_channels, plan)
        self.width = width
        self.depth = depth
        self.norm = norm
        self.dropout = dropout

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "width": self.width,
            "depth": self.depth,
            "norm": self.norm,
            "dropout": self.dropout,
        }


def _plan(ends: tuple[int, int], width: int, depth: int, norm: str, dropout: bool) -> list[Step]:
    """The operations in order. No activation works in place: skips are saved before it."""
    channels = [width * min(2**level, 8) for level in range(depth)]
    innermost = depth - 1

    # No norm on the outermost level, and none on the innermost, which may be a single pixel.
    plan = unit("down1", nn.Conv2d(ends[0], channels[0], 4, stride=2, padding=1))
    for level in range(1, depth):
        down = nn.Conv2d(channels[level - 1], channels[level], 4, stride=2, padding=1)
        after = None if level == innermost else norm_layer(norm, channels[level])
        plan += [Step("save"), *unit(f"down{level + 1}", nn.LeakyReLU(0.2), down, after)]

    for level in range(innermost, 0, -1):
        entering = channels[level] * (1 if level == innermost else 2)
        up = nn.ConvTranspose2d(entering, channels[level - 1], 4, stride=2, padding=1)
        drop = nn.Dropout(0.5) if dropout and 4 <= level < innermost else None
        after = norm_layer(norm, channels[level - 1])
        plan += [*unit(f"up{level + 1}", nn.ReLU(), up, after, drop), Step("concat")]

    last = nn.ConvTranspose2d(channels[0] * 2, ends[1], 4, stride=2, padding=1)
    return plan + unit("up1", nn.ReLU(), last) + unit("head", nn.Tanh())
