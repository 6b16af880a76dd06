"""Discriminators that judge patches: PatchGAN, and its limit of single pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.models import receptive
from geocyclegan.models.discriminator import Discriminator, as_weight
from geocyclegan.models.init import init_weights
from geocyclegan.models.layers import Step, modules_of, require_positive, unit
from geocyclegan.models.norm import SceneNorm2d, norm_layer


class PlannedDiscriminator(Discriminator):
    """A discriminator run by its plan.

    Args:
        in_channels: bands of the domain that is judged.
        plan: the operations in order.
        min_size: smallest side of an input, in pixels.
        spectral_norm: divide the weight of each convolution by its largest singular value.

    Attributes:
        plan: the operations in order.
        patch: side of the patch that one logit sees, in pixels.
        min_size: smallest side of an input, in pixels.
    """

    def __init__(
        self, in_channels: int, plan: Sequence[Step], min_size: int, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.spectral_norm = spectral_norm
        self.plan = tuple(plan)
        self.layers = modules_of(self.plan)
        for step, scale in zip(self.plan, receptive.scales(self.plan), strict=True):
            if isinstance(step.module, SceneNorm2d):
                step.module.scale = scale
        low, high = receptive.seen(self.plan, 0, 0)
        self.patch = high - low + 1
        self.min_size = min_size
        init_weights(self)
        if spectral_norm:
            for step in self.plan:
                if isinstance(step.module, nn.Conv2d):
                    # Miyato et al., ICLR 2018; the power iteration's vectors are in the state.
                    nn.utils.parametrizations.spectral_norm(step.module)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits of being real.

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width), bool or float; None: all are valid.

        Returns:
            Logits (samples, 1, rows, columns), one per patch.

        Raises:
            ValueError: the shape of `x` or `valid` does not fit.
        """
        self.check(x, valid)
        weight = None if valid is None else as_weight(valid)
        for step in self.plan:
            if isinstance(step.module, SceneNorm2d):
                x = step.module(x, weight)
            elif step.module is not None:
                x = step.module(x)
                weight = None if weight is None else _reduced(weight, step.module)
        return x

    def logit_weights(self, valid: Tensor) -> Tensor:
        """Share of valid pixels in each patch: the mask pooled through the same windows.

        Args:
            valid: mask (samples, 1, height, width), bool or float.

        Returns:
            Weights (samples, 1, rows, columns) from 0 to 1.
        """
        weight = as_weight(valid)
        for step in self.plan:
            if step.module is not None:
                weight = _reduced(weight, step.module)
        return weight


class PatchDiscriminator(PlannedDiscriminator):
    """Judges overlapping patches: one logit per patch, 70 × 70 px with three halvings.

    Source: Isola et al., CVPR 2017, appendix: kernels of 4, LeakyReLU 0.2, no norm on the first and
    the last layer.

    Args:
        in_channels: bands of the domain that is judged.
        width: channels of the first layer.
        layers: number of halvings; patches of 16, 34, 70, 142 or 286 px with 1 to 5.
        norm: "instance", "scene" or "none".
        spectral_norm: divide the weight of each convolution by its largest singular value.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 64,
        layers: int = 3,
        norm: str = "instance",
        spectral_norm: bool = False,
    ) -> None:
        require_positive(in_channels=in_channels, width=width, layers=layers)
        # The two layers of stride 1 each take a pixel off, and one must remain.
        plan = _plan(in_channels, width, layers, norm)
        super().__init__(in_channels, plan, 3 * 2**layers, spectral_norm)
        self.width = width
        self.depth = layers
        self.norm = norm

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "width": self.width,
            "layers": self.depth,
            "norm": self.norm,
            "spectral_norm": self.spectral_norm,
        }


class PixelDiscriminator(PlannedDiscriminator):
    """Judges each pixel by itself: colours, not textures or shapes.

    Source: Isola et al., CVPR 2017, appendix (1 × 1 discriminator).

    Args:
        in_channels: bands of the domain that is judged.
        width: channels of the first layer.
        norm: "instance", "scene" or "none".
        spectral_norm: divide the weight of each convolution by its largest singular value.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 64,
        norm: str = "instance",
        spectral_norm: bool = False,
    ) -> None:
        require_positive(in_channels=in_channels, width=width)
        plan = [
            *unit("conv1", nn.Conv2d(in_channels, width, 1), nn.LeakyReLU(0.2, inplace=True)),
            *unit(
                "conv2",
                nn.Conv2d(width, width * 2, 1),
                norm_layer(norm, width * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ),
            *unit("head", nn.Conv2d(width * 2, 1, 1)),
        ]
        super().__init__(in_channels, plan, 1, spectral_norm)
        self.width = width
        self.norm = norm

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "width": self.width,
            "norm": self.norm,
            "spectral_norm": self.spectral_norm,
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


def _reduced(weight: Tensor, module: nn.Module) -> Tensor:
    """The valid share seen through one more module."""
    if not isinstance(module, nn.Conv2d):
        return weight
    size, stride = module.kernel_size, module.stride
    padding = (int(module.padding[0]), int(module.padding[1]))
    return F.avg_pool2d(weight, size, stride, padding, count_include_pad=False)
