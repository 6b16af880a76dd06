"""What every generator has in common: a plan, and all that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geocyclegan.models import receptive
from geocyclegan.models.dense import At
from geocyclegan.models.init import init_weights
from geocyclegan.models.layers import Step, advance, modules_of
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import SceneNorm2d


class Generator(nn.Module):
    """A network from an image of one domain to an image of the other, run by its plan.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        plan: the operations, whose output has the size of their input; none where a subclass runs
            a network that is no plan (see `opaque`).

    Attributes:
        plan: the operations in order.
        stride: input sides must be multiples of it.
        halo: radius of the receptive field in pixels, rounded up to a multiple of `stride`; None
            where windows cannot be made independent of their surroundings.
        min_size: smallest side of an input, in pixels.
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        memory_saving: compute activations again in the backward pass instead of keeping them.
    """

    bounded: ClassVar[bool] = True
    """Whether a halo of the receptive field's size is a sensible tile margin."""

    def __init__(self, in_channels: int, out_channels: int, plan: Sequence[Step]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.plan = tuple(plan)
        # Here, since compilers do not follow `groupby`.
        self._runs = tuple(
            tuple(g) for _, g in groupby(self.plan, lambda step: step.module is None)
        )
        self.layers = modules_of(self.plan)
        at = receptive.scales(self.plan)
        for step, scale in zip(self.plan, at, strict=True):
            if isinstance(step.module, SceneNorm2d):
                step.module.scale = scale
        self.stride = max(at, default=1)
        self.min_size = receptive.min_size(self.plan)
        self.halo: int | None = None
        self.memory_saving = False
        if self.bounded:
            self.halo = receptive.round_up(receptive.radius(self.plan), self.stride)
        init_weights(self)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        """Translate images.

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width), bool or float; None: all are valid.
            at: row and column of each sample in its scene, which norm layers in mode "dense" need.

        Returns:
            Images (samples, out_channels, height, width) in [−1, 1].

        Raises:
            ValueError: the shape of `x` or `valid` does not fit; or norm layers are in mode "dense"
                and `at` is missing or names a place that has not been measured.
        """
        self.check(x, valid)
        weights = self.weights(valid)
        if self.memory_saving and self.training and torch.is_grad_enabled():
            return self._recomputed(x, weights, at)
        stack: list[Tensor] = []
        for step in self.plan:
            x = advance(step, x, stack, weights, at)
        return x

    def _recomputed(
        self, x: Tensor, weights: dict[int, Tensor] | None, at: Sequence[At] | None
    ) -> Tensor:
        """The same, keeping only what lies on the stack and enters each run of modules."""
        stack: list[Tensor] = []

        def run(steps: Sequence[Step], x: Tensor) -> Tensor:
            for step in steps:
                x = advance(step, x, [], weights, at)
            return x

        for steps in self._runs:
            if steps[0].module is None:
                for step in steps:
                    x = advance(step, x, stack, weights, at)
            else:
                x = checkpoint(run, steps, x, use_reentrant=False)
        return x

    def weights(self, valid: Tensor | None) -> dict[int, Tensor] | None:
        """Valid share of each pixel at each scale that has a norm layer.

        The share, not "any" or "all": so each valid pixel counts once at every scale, and
        statistics of disjoint windows add up to those of their union.

        Args:
            valid: mask (samples, 1, height, width) with sides that are multiples of the stride.

        Returns:
            Weights (samples, 1, height/scale, width/scale) by scale; None for None.
        """
        if valid is None:
            return None
        mask = valid.to(torch.promote_types(valid.dtype, torch.float32))
        return {s: F.avg_pool2d(mask, s) for s in {norm.scale for norm in self.norm_layers()}}

    def check(self, x: Tensor, valid: Tensor | None) -> None:
        """Refuse what the plan cannot take.

        Args:
            x: should be (samples, in_channels, height, width), whose sides are multiples of
                `stride` and not below `min_size`.
            valid: should be (samples, 1, height, width) or None.

        Raises:
            ValueError: says what was found and what is expected.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: "
                f"expected (samples, {self.in_channels}, height, width)"
            )
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride or min(height, width) < self.min_size:
            raise ValueError(
                f"input of {height} × {width} px: expected sides that are multiples of the "
                f"stride {self.stride} and at least {self.min_size}; pad them first"
            )
        if valid is not None and valid.shape != (x.shape[0], 1, height, width):
            raise ValueError(
                f"valid mask of shape {tuple(valid.shape)}: "
                f"expected {(x.shape[0], 1, height, width)}"
            )

    def norm_layers(self) -> list[SceneNorm2d]:
        """The norm layers in the order in which the plan meets them."""
        return [step.module for step in self.plan if isinstance(step.module, SceneNorm2d)]

    def freeze(self, statistics: Sequence[Moments]) -> None:
        """Use these statistics for every pixel from now on.

        Args:
            statistics: of one sample, for each norm layer in the order of `norm_layers`.

        Raises:
            ValueError: they are not those of this architecture.
        """
        norms = self.norm_layers()
        if len(statistics) != len(norms):
            raise ValueError(f"statistics of {len(statistics)} layers: expected {len(norms)}")
        for norm, found in zip(norms, statistics, strict=True):
            norm.freeze(found)

    def frozen(self) -> tuple[Moments, ...]:
        """Return the statistics of each norm layer, which must be frozen.

        Raises:
            ValueError: one is not.
        """
        return tuple(norm.frozen() for norm in self.norm_layers())

    def thaw(self) -> None:
        """Let each sample have its own statistics again."""
        for norm in self.norm_layers():
            norm.thaw()

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        raise NotImplementedError
