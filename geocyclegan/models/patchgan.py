"""The PatchGAN discriminator."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.models import receptive
from geocyclegan.models.discriminator import Discriminator
from geocyclegan.models.init import init_weights
from geocyclegan.models.layers import Step, modules_of, require_positive, unit
from geocyclegan.models.norm import SceneNorm2d, norm_layer


class PatchDiscriminator(Discriminator):
    """Judges overlapping patches: one logit per patch, 70 × 70 px with three halvings.

    Source: Isola et al., CVPR 2017, appendix: kernels of 4, LeakyReLU 0.2, no norm on the first and
    the last layer.

    Args:
        in_channels: bands of the domain that is judged.
        width: channels of the first layer.
        layers: number of halvings.
        norm: "instance", "scene" or "none".

    Attributes:
        plan: the operations in order.
        patch: side of the patch that one logit sees, in pixels.
        min_size: smallest side of an input, in pixels.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self, in_channels: int, *, width: int = 64, layers: int = 3, norm: str = "instance"
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, width=width, layers=layers)
        self.in_channels = in_channels
        self.width = width
        self.depth = layers
        self.norm = norm
        self.plan = tuple(_plan(in_channels, width, layers, norm))
        self.layers = modules_of(self.plan)
        for step, scale in zip(self.plan, receptive.scales(self.plan), strict=True):
            if isinstance(step.module, SceneNorm2d):
                step.module.scale = scale
        low, high = receptive.seen(self.plan, 0, 0)
        self.patch = high - low + 1
        # The two layers of stride 1 each take a pixel off, and one must remain.
        self.min_size = 3 * 2**layers
        init_weights(self)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits of being real, one per patch."""
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
        weight = None if valid is None else _as_weight(valid)
        for step in self.plan:
            if isinstance(step.module, SceneNorm2d):
                x = step.module(x, weight)
            elif step.module is not None:
                x = step.module(x)
                weight = None if weight is None else _reduced(weight, step.module)
        return x

    def logit_weights(self, valid: Tensor) -> Tensor:
        """Share of valid pixels in each patch: the mask pooled through the same windows."""
        weight = _as_weight(valid)
        for step in self.plan:
            if step.module is not None:
                weight = _reduced(weight, step.module)
        return weight

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "width": self.width,
            "layers": self.depth,
            "norm": self.norm,
        }


def _plan(in_channels: int, width: int, layers: int, norm: str) -> list[Step]:
    """The operations in order."""
    first = nn.Conv2d(in_channels, width, 4, stride=2, padding=1)
    plan = unit("conv1", first, nn.LeakyReLU(0.2, inplace=True))
    channels = width
    for level in range(1, layers + 1):
        wider = width * min(2**level, 8)
        conv = nn.Conv2d(channels, wider, 4, stride=2 if level < layers else 1, padding=1)
        activation = nn.LeakyReLU(0.2, inplace=True)
        plan += unit(f"conv{level + 1}", conv, norm_layer(norm, wider), activation)
        channels = wider
    return plan + unit("head", nn.Conv2d(channels, 1, 4, padding=1))


def _as_weight(valid: Tensor) -> Tensor:
    """A mask as floats of at least single precision."""
    return valid.to(torch.promote_types(valid.dtype, torch.float32))


def _reduced(weight: Tensor, module: nn.Module) -> Tensor:
    """The valid share seen through one more module."""
    if not isinstance(module, nn.Conv2d):
        return weight
    size, stride = module.kernel_size, module.stride
    padding = (int(module.padding[0]), int(module.padding[1]))
    return F.avg_pool2d(weight, size, stride, padding, count_include_pad=False)
