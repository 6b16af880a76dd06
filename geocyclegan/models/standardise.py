"""Features less their mean, over their deviation, with gradients that flat ground cannot blow up.

A channel without any contrast comes out as 0, but its gradient is multiplied by 1/sqrt(eps), 316 at
eps = 1e-5; and the next layers see flat channels, too. Behind fifteen layers a single flat chip, of
water or of an empty part of a map, has gradients of 1e6 in single precision and infinite ones in
bf16, whose rounding leaves flat features exactly flat. Adam's second moment remembers the former
for tens of thousands of steps, in which the layers barely learn; the latter end the run.

So where the variance is below a hundredth of eps, gradients are multiplied by 100 variance / eps.
What comes out, and gradients elsewhere, stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Sum = Callable[[Tensor], Tensor]

_FAINT = 0.01
"""Share of eps below which a variance is no contrast. New narrow networks have channels not far
above it, which must train as anybody's do."""


def standardise(x: Tensor, eps: float, *, together: bool) -> Tensor:
    """Standardise each channel.

    Args:
        x: features (samples, channels, height, width) of more than one value per channel, in any
            precision; the statistics are computed in single precision or better.
        eps: added to the variance.
        together: with the statistics of all samples; else, each sample with its own.

    Returns:
        Features of the same shape and dtype; in the order of pixels and channels of `x`, but for
        several samples on a GPU that are not `together`, which come with pixels together.
    """
    samples, channels, height, width = x.shape
    parts = 1 if together else samples
    # One launch instead of one for each sample; on a CPU it is the copies that cost, but where a
    # compiler (2.10) does not trace what takes their place.
    one_by_one = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    if parts > 1 and (not one_by_one or torch.compiler.is_compiling()):
        flat = x.reshape(1, samples * channels, height, width)
        return standardise(flat, eps, together=True).view(x.shape)
    if torch.is_grad_enabled() and x.requires_grad:
        out: Tensor = _Standardise.apply(x, eps, parts)
        return out
    return _standardised(x, eps, parts)[0]


def standardise_weighted(
    x: Tensor,
    valid: Tensor | None,
    eps: float,
    *,
    together: bool,
    across: Sum | None = None,
) -> Tensor:
    """Standardise each channel with statistics that see valid pixels only.

    Two passes, mean and population variance, do not cancel at large means.

    Args:
        x: features (samples, channels, height, width) in single precision or better.
        valid: weights (samples, 1, height, width); None: all are valid.
        eps: added to the variance.
        together: with the statistics of all samples; else, each sample with its own.
        across: sums statistics over processes, in two messages; None: there is one process.

    Returns:
        Features of the same shape and dtype, 0 where the weight is.
    """
    over = (0, 2, 3) if together else (2, 3)
    weight = x.new_ones(x.shape[0], 1, *x.shape[-2:]) if valid is None else valid.to(x.dtype)
    count = weight.sum(dim=over, keepdim=True)
    total = (x * weight).sum(dim=over, keepdim=True)
    if across is not None:
        # One message for both.
        count, total = torch.split(across(torch.cat((count, total), 1)), [1, x.shape[1]], 1)
    # The smallest weight that is not zero is far above 1e-12, so only empty samples meet the clamp.
    count = count.clamp_min(1e-12)
    centred = x - total / count
    squares = (centred.square() * weight).sum(dim=over, keepdim=True)
    var = (squares if across is None else across(squares)) / count
    out: Tensor = _Damped.apply(
        centred * torch.rsqrt(var + eps) * (weight > 0), _damping(var.detach(), eps)
    )
    return out


def _damping(var: Tensor, eps: float) -> Tensor:
    return (var / (_FAINT * eps)).clamp(0.0, 1.0)


class _Damped(torch.autograd.Function):
    """What comes in, which nothing else may read, with gradients multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        if torch.compiler.is_compiling():
            # Not all compilers know what follows, and to them a copy is nothing.
            return x.clone()
        # As if changed in place: neither a copy nor a view, which no ReLU could overwrite.
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


class _Standardise(torch.autograd.Function):
    """PyTorch's own kernels; a layer's weight, which there is none of, is how gradients are damped.

    So it takes no further pass over the features.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, parts: int) -> Tensor:
        out, mean, reciprocal = _standardised(x, eps, parts)
        ctx.save_for_backward(x, mean, reciprocal, _damping(reciprocal**-2 - eps, eps))
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, mean, reciprocal, factor = ctx.saved_tensors
        found: list[Tensor] = [
            torch.ops.aten.native_batch_norm_backward(
                *(part_grad, part, damping, None, None, part_mean, part_reciprocal, True, ctx.eps),
                [True, False, False],
            )[0]
            for part_grad, part, damping, part_mean, part_reciprocal in zip(
                *(whole.chunk(len(mean)) for whole in (grad, x)),
                *(factor, mean, reciprocal),
                strict=True,
            )
        ]
        return (found[0] if len(found) == 1 else torch.cat(found)), None, None


def _standardised(x: Tensor, eps: float, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise some samples at a time.

    Args:
        x: features (samples, channels, height, width).
        eps: added to the variance.
        parts: of how many samples each has statistics of its own: 1 or as many as there are.

    Returns:
        Features, and mean and reciprocal of the deviation, each (parts, channels).
    """
    # Without a weight of 1 and a bias of 0 in single precision, PyTorch's kernels keep the
    # statistics in the features' precision, whose rounding then shows in every pixel.
    half = x.dtype in (torch.bfloat16, torch.float16)
    ones = torch.ones(x.shape[1], dtype=torch.float32, device=x.device) if half else None
    zeros = None if ones is None else torch.zeros_like(ones)
    if parts == 1:
        out, mean, reciprocal = torch.native_batch_norm(x, ones, zeros, None, None, True, 0.0, eps)
        return out, mean[None], reciprocal[None]
    out = torch.empty_like(x)
    mean = x.new_empty(parts, x.shape[1], dtype=torch.float32 if half else x.dtype)
    reciprocal = torch.empty_like(mean)
    for i in range(parts):
        torch.native_batch_norm(
            *(x[i : i + 1], ones, zeros, None, None, True, 0.0, eps),
            out=(out[i : i + 1], mean[i], reciprocal[i]),
        )
    return out, mean, reciprocal
