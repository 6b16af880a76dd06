"""Geometry of a plan: scales, receptive field, smallest input. Pure arithmetic, no tensors.

An interval of output pixels is carried back through the plan, step by step, to the interval of
input pixels that it sees. Along one axis, a convolution of kernel k, stride s and padding p reads,
for output pixel o, the inputs o·s − p … o·s − p + k − 1; a transposed one reads those inputs i with
i·s − p ≤ o ≤ i·s − p + k − 1. Enlarging by s reads as such a one: k = s, p = 0 for the nearest
pixel, and for even s k = 2s, p = s/2 where it is bilinear. Borders are left out: a clipped window
only ever sees less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from geocyclegan.models.layers import Step
from geocyclegan.models.norm import SceneNorm2d
from geocyclegan.models.sampling import BlurPool2d

_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Dropout, nn.Identity, SceneNorm2d)


def _same(values: Sequence[int] | int | str, what: str) -> int:
    """The one value of all axes."""
    if isinstance(values, int):
        return values
    if isinstance(values, str) or len(set(values)) != 1:
        raise ValueError(f"{what} {values!r} is not the same whole number on both axes")
    return values[0]


@dataclass(frozen=True)
class _Geometry:
    """What a module reads along one axis.

    Attributes:
        reach: size of the kernel less 1, dilated.
        stride: of the kernel.
        padding: of the input.
        enlarges: whether the stride counts pixels of the output, as in transposed convolutions.
    """

    reach: int = 0
    stride: int = 1
    padding: int = 0
    enlarges: bool = False


def _geometry(module: nn.Module) -> _Geometry:
    """What a module reads.

    Raises:
        TypeError: the module's geometry is not known; a halo is never guessed.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _Geometry(
            (_same(module.kernel_size, "kernel") - 1) * _same(module.dilation, "dilation"),
            _same(module.stride, "stride"),
            _same(module.padding, "padding"),
            isinstance(module, nn.ConvTranspose2d),
        )
    if isinstance(module, BlurPool2d):
        return _Geometry(reach=2, stride=2)
    if isinstance(module, nn.Upsample):
        return _enlargement(module)
    if isinstance(module, nn.ReflectionPad2d):
        return _Geometry(padding=_same(module.padding, "padding"))
    if isinstance(module, _POINTWISE):
        return _Geometry()
    raise TypeError(f"the receptive field of {type(module).__name__} is not known")


def _enlargement(module: nn.Upsample) -> _Geometry:
    factor = module.scale_factor
    if isinstance(factor, int | float) and factor == int(factor) and not module.align_corners:
        stride = int(factor)
        if module.mode == "nearest":
            return _Geometry(stride - 1, stride, 0, True)
        if module.mode == "bilinear" and stride % 2 == 0:
            return _Geometry(2 * stride - 1, stride, stride // 2, True)
    raise TypeError(f"the receptive field of {module} is not known")


def rescaling(module: nn.Module) -> tuple[int, int]:
    """By what a module divides the resolution, and by what it multiplies it.

    Raises:
        TypeError: what the module reads is not known.
        ValueError: its kernel, stride or padding differs between the axes, or is no whole number.
    """
    geometry = _geometry(module)
    return (1, geometry.stride) if geometry.enlarges else (geometry.stride, 1)


def _back(module: nn.Module, low: int, high: int) -> tuple[int, int]:
    """Input interval seen by the output interval [low, high] of one module."""
    g = _geometry(module)
    if g.enlarges:
        return -((g.reach - low - g.padding) // g.stride), (high + g.padding) // g.stride
    return low * g.stride - g.padding, high * g.stride - g.padding + g.reach


def scales(plan: Sequence[Step]) -> list[int]:
    """Side of a pixel after each step, in input pixels.

    Raises:
        TypeError, ValueError: see `rescaling`; or the plan upsamples beyond its input.
    """
    found: list[int] = []
    scale = 1
    for step in plan:
        if step.module is not None:
            coarser, finer = rescaling(step.module)
            if scale % finer:
                raise ValueError(f"{step.name} upsamples by {finer} at scale {scale}")
            scale = scale * coarser // finer
        found.append(scale)
    return found


def seen(plan: Sequence[Step], low: int, high: int) -> tuple[int, int]:
    """Interval of input pixels that the output pixels low … high depend on (norms set apart).

    Raises:
        TypeError, ValueError: see `rescaling`.
    """
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

    Raises:
        TypeError, ValueError: see `scales`.
    """
    phases = range(max(scales(plan), default=1))
    reaches = (seen(plan, phase, phase) for phase in phases)
    return max(
        max(phase - low, high - phase) for phase, (low, high) in zip(phases, reaches, strict=True)
    )


def min_size(plan: Sequence[Step]) -> int:
    """Smallest input side that the plan takes, a multiple of its stride.

    Reflection by p needs p + 1 pixels at its scale; the coarsest scale needs one.

    Raises:
        TypeError, ValueError: see `scales`.
    """
    at = scales(plan)
    side = stride = max(at, default=1)
    for step, scale in zip(plan, at, strict=True):
        if isinstance(step.module, nn.ReflectionPad2d):
            side = max(side, scale * (_geometry(step.module).padding + 1))
    return round_up(side, stride)


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step
