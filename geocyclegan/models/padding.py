"""Reflection at the borders that leaves features in their order, and adds gradients in one order.

On CUDA PyTorch's own answers with pixels together whatever it was given, so that features of
networks with channels together are copied into the other order before it and back after it; and in
its backward pass threads add to the same pixel in any order. Here the features are copied once, as
they lie, and the borders follow in copies and sums of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_MANY = 2**22
"""Values from which on one copy less outweighs several small launches more."""


def reflect(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Reflect the borders of features.

    Args:
        x: (samples, channels, height, width).
        padding: left, right, top, bottom; each less than the side that it lengthens.

    Returns:
        Features (samples, channels, top + height + bottom, left + width + right) in the order of
        pixels and channels of `x`. Their gradients are the same every time, on CUDA, too.
    """
    out: Tensor = _Reflect.apply(x, *padding)
    return out


class _Reflect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        samples, channels, height, width = x.shape
        ctx.padding, ctx.order = (left, right, top, bottom), _order(x)
        out = torch.empty(
            (samples, channels, top + height + bottom, left + width + right),
            dtype=x.dtype,
            device=x.device,
            memory_format=ctx.order,
        )
        middle = out.narrow(2, top, height)
        middle.narrow(3, left, width).copy_(x)
        if left:
            middle.narrow(3, 0, left).copy_(_turned(x.narrow(3, 1, left), 3))
        if right:
            middle.narrow(3, left + width, right).copy_(
                _turned(x.narrow(3, width - right - 1, right), 3)
            )
        if top:
            out.narrow(2, 0, top).copy_(_turned(middle.narrow(2, 1, top), 2))
        if bottom:
            out.narrow(2, top + height, bottom).copy_(
                _turned(middle.narrow(2, height - bottom - 1, bottom), 2)
            )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        left, right, top, bottom = ctx.padding
        height, width = grad.shape[2] - top - bottom, grad.shape[3] - left - right
        middle = grad.narrow(2, top, height)
        # Three parts of each row: what is padded left and right has rows above and below, too.
        parts = [
            (start, middle.narrow(3, start, count).clone(memory_format=ctx.order))
            for start, count in ((0, left), (left, width), (left + width, right))
        ]
        for start, part in parts:
            columns = grad.narrow(3, start, part.shape[3])
            if top:
                part.narrow(2, 1, top).add_(_turned(columns.narrow(2, 0, top), 2))
            if bottom:
                part.narrow(2, height - bottom - 1, bottom).add_(
                    _turned(columns.narrow(2, top + height, bottom), 2)
                )
        (_, before), (_, out), (_, after) = parts
        if left:
            out.narrow(3, 1, left).add_(_turned(before, 3))
        if right:
            out.narrow(3, width - right - 1, right).add_(_turned(after, 3))
        return out, None, None, None, None


def _turned(x: Tensor, axis: int) -> Tensor:
    return x if x.shape[axis] == 1 else x.flip(axis)


def _is_together(x: Tensor) -> bool:
    """Whether channels lie together, and pixels do not."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _order(x: Tensor) -> torch.memory_format:
    return torch.channels_last if _is_together(x) else torch.contiguous_format


def replace_padding(networks: Iterable[nn.Module], *, repeatable: bool = False) -> None:
    """Let networks on CUDA reflect as here where that is faster.

    Args:
        networks: whose layers of reflection are meant.
        repeatable: everywhere, since gradients shall be the same every time.
    """
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.ReflectionPad2d):
                module.forward = partial(  # type: ignore[method-assign]
                    _forward, module, repeatable
                )


def _forward(module: nn.ReflectionPad2d, repeatable: bool, x: Tensor) -> Tensor:
    # A compiler makes the padding a part of what comes before or after it.
    worthwhile = _is_together(x) and x.numel() >= _MANY and not torch.compiler.is_compiling()
    if repeatable or worthwhile:
        return reflect(x, module.padding)
    return nn.ReflectionPad2d.forward(module, x)
