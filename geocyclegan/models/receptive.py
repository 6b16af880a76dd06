"""Geometry of a plan: scales, receptive field, smallest input. Pure arithmetic, no tensors.

An interval of output pixels is carried back through the plan, step by step, to the interval of
input pixels that it sees. Along one axis, a convolution of kernel k, stride s and padding p reads,
for output pixel o, the inputs o·s − p … o·s − p + k − 1; a transposed one reads those inputs i with
i·s − p ≤ o ≤ i·s − p + k − 1. Borders are left out: a clipped window only ever sees less.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geocyclegan.models.layers import Step
from geocyclegan.models.norm import SceneNorm2d

_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Dropout, nn.Identity, SceneNorm2d)


def _same(values: Sequence[int] | int | str, what: str) -> int:
    """The one value of all axes."""
    if isinstance(values, int):
        return values
    if isinstance(values, str) or len(set(values)) != 1:
        raise ValueError(f"{what} {values!r} is not the same whole number on both axes")
    return values[0]


def _geometry(module: nn.Module) -> tuple[int, int, int]:
    """Reach of the kernel (k − 1, dilated), stride and padding of a module.

    Raises:
        TypeError: the module's geometry is not known; a halo is never guessed.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        reach = (_same(module.kernel_size, "kernel") - 1) * _same(module.dilation, "dilation")
        return reach, _same(module.stride, "stride"), _same(module.padding, "padding")
    if isinstance(module, nn.ReflectionPad2d):
        return 0, 1, _same(module.padding, "padding")
    if isinstance(module, _POINTWISE):
        return 0, 1, 0
    raise TypeError(f"the receptive field of {type(module).__name__} is not known")


def _back(module: nn.Module, low: int, high: int) -> tuple[int, int]:
    """Input interval seen by the output interval [low, high] of one module."""
    reach, stride, padding = _geometry(module)
    if isinstance(module, nn.ConvTranspose2d):
        return -((reach - low - padding) // stride), (high + padding) // stride
    return low * stride - padding, high * stride - padding + reach


def scales(plan: Sequence[Step]) -> list[int]:
    """Side of a pixel after each step, in input pixels.

    Raises:
        ValueError: the plan upsamples beyond its input.
    """
    found: list[int] = []
    scale = 1
    for step in plan:
        if isinstance(step.module, nn.ConvTranspose2d):
            stride = _geometry(step.module)[1]
            if scale % stride:
                raise ValueError(f"{step.name} upsamples by {stride} at scale {scale}")
            scale //= stride
        elif step.module is not None:
            scale *= _geometry(step.module)[1]
        found.append(scale)
    return found


def seen(plan: Sequence[Step], low: int, high: int) -> tuple[int, int]:
    """Interval of input pixels that the output pixels low … high depend on (norms set apart)."""
    branches: list[tuple[int, int]] = []
    for step in reversed(plan):
        if step.kind in ("add", "concat"):
            branches.append((low, high))
        elif step.kind == "save":
            other_low, other_high = branches.pop()
            low, high = min(low, other_low), max(high, other_high)
        elif step.module is not None:
            low, high = _back(step.module, low, high)
    return low, high


def radius(plan: Sequence[Step]) -> int:
    """Greatest distance, in pixels, from an output pixel to an input pixel that it depends on.

    For plans whose output has the scale of their input. Each phase within the stride is tried,
    since an upsampled pixel sees more to one side than to the other.
    """
    phases = range(max(scales(plan), default=1))
    reaches = (seen(plan, phase, phase) for phase in phases)
    return max(
        max(phase - low, high - phase) for phase, (low, high) in zip(phases, reaches, strict=True)
    )


def min_size(plan: Sequence[Step]) -> int:
    """Smallest input side that the plan takes, a multiple of its stride.

    Reflection by p needs p + 1 pixels at its scale; the coarsest scale needs one.
    """
    at = scales(plan)
    side = stride = max(at, default=1)
    for step, scale in zip(plan, at, strict=True):
        if isinstance(step.module, nn.ReflectionPad2d):
            side = max(side, scale * (_geometry(step.module)[2] + 1))
    return round_up(side, stride)


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step
