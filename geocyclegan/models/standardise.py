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
import torch.nn.functional as F
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
        Features of the same shape and dtype; in the order of pixels and channels of `x` if there
        is one sample or `together`, else with pixels together.
    """
    samples, channels, height, width = x.shape
    if not together and samples > 1:
        flat = x.reshape(1, samples * channels, height, width)
        return standardise(flat, eps, together=True).view(x.shape)
    ones, zeros = _single(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return F.batch_norm(x, None, None, ones, zeros, training=True, eps=eps)
    out: Tensor = _Standardise.apply(x, ones, zeros, eps)
    return out


def standardise_weighted(
    x: Tensor,
    valid: Tensor | None,
    eps: float,
    *,
    together: bool,
    across: Sum = lambda total: total,
) -> Tensor:
    """Standardise each channel with statistics that see valid pixels only.

    Two passes, mean and population variance, do not cancel at large means.

    Args:
        x: features (samples, channels, height, width) in single precision or better.
        valid: weights (samples, 1, height, width); None: all are valid.
        eps: added to the variance.
        together: with the statistics of all samples; else, each sample with its own.
        across: sums statistics over processes.

    Returns:
        Features of the same shape and dtype, 0 where the weight is.
    """
    over = (0, 2, 3) if together else (2, 3)
    weight = x.new_ones(x.shape[0], 1, *x.shape[-2:]) if valid is None else valid.to(x.dtype)
    # The smallest weight that is not zero is far above 1e-12, so only empty samples meet the clamp.
    total = across(weight.sum(dim=over, keepdim=True)).clamp_min(1e-12)
    mean = across((x * weight).sum(dim=over, keepdim=True)) / total
    centred = x - mean
    var = across((centred.square() * weight).sum(dim=over, keepdim=True)) / total
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
    def forward(
        ctx: Any, x: Tensor, ones: Tensor | None, zeros: Tensor | None, eps: float
    ) -> Tensor:
        out, mean, reciprocal = torch.native_batch_norm(x, ones, zeros, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, mean, reciprocal, _damping(reciprocal**-2 - eps, eps))
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean, reciprocal, factor = ctx.saved_tensors
        for_x: Tensor = torch.ops.aten.native_batch_norm_backward(
            grad, x, factor, None, None, mean, reciprocal, True, ctx.eps, [True, False, False]
        )[0]
        return for_x, None, None, None


def _single(x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Weights of 1 and biases of 0 that keep the statistics of half precision single.

    PyTorch's kernels keep them in the precision of these, and without any in that of the features,
    whose rounding then shows in every pixel.
    """
    if x.dtype not in (torch.bfloat16, torch.float16):
        return None, None
    ones = torch.ones(x.shape[1], dtype=torch.float32, device=x.device)
    return ones, torch.zeros_like(ones)
