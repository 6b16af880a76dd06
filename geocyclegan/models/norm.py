"""Instance normalisation whose statistics see valid pixels only, and can be those of a scene.

The layer is the place where a scene's tiles come to agree or to differ, so it is a room of its own:
it knows its `scale` (how many input pixels one of its pixels spans), takes the valid mask at that
scale, and keeps its statistics in single precision or better whatever the network runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.dense import At, CellStatistics
from geocyclegan.models.moments import Moments
from geocyclegan.models.standardise import Sum, standardise, standardise_weighted

NORMS = ("instance", "scene", "none")
"""What the `norm` argument of a network may be."""

NormMode = Literal["instance", "collect", "frozen", "dense"]
Pool = Literal["crop", "scene"]
Core = tuple[slice, slice]


class SceneNorm2d(nn.Module):
    """Instance normalisation without running statistics, by default without affine parameters.

    `valid` carries the weight of each pixel in the statistics: 0 is nodata, 1 is valid, and what
    lies between is the valid share of a coarse pixel. Pixels of weight 0 come out as 0, which is
    the mean of the valid ones, so that nodata can neither shift the statistics nor grow from layer
    to layer where the valid pixels are flat.

    Whose statistics a sample is normalised with is the layer's `mode`:

    - "instance": its own, or with `pool="scene"` those of all samples together;
    - "collect": its own, which are kept in `collected`;
    - "frozen": those given to `freeze`, the same for every pixel of every sample;
    - "dense": those given to `spread`, by the position of each pixel in the scene.

    Args:
        channels: number of channels.
        eps: added to the variance.
        pool: which pixels share statistics in mode "instance"; "crop": those of one sample;
            "scene": those of all samples, which are crops of one scene.
        affine: multiply each channel with a learnt weight and add a learnt bias to it afterwards.

    Attributes:
        scale: side of one pixel of this layer in input pixels; set by the network it belongs to.
        mode: whose statistics are used.
        collected: statistics of each sample of the last call in mode "collect".
        across: sums a tensor over all processes that hold crops of the same scene while training
            with `pool="scene"`; None: there is one process.

    Raises:
        ValueError: `pool` is not known.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, channels: int, eps: float = 1e-5, pool: Pool = "crop", affine: bool = False
    ) -> None:
        super().__init__()
        if pool not in ("crop", "scene"):
            raise ValueError(f"pool={pool!r} is not known; expected 'crop' or 'scene'")
        self.channels = channels
        self.eps = eps
        self.pool = pool
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)
        self.scale = 1
        self.mode: NormMode = "instance"
        self.collected: Moments | None = None
        self.across: Sum | None = None
        # No buffers: `half()` would cast them, and they are not part of the weights.
        self._mean: Tensor | None = None
        self._var: Tensor | None = None
        self._cells: CellStatistics | None = None

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        """Normalise each channel of each sample.

        Args:
            x: features (samples, channels, height, width).
            valid: weights (samples, 1, height, width), bool or float; None: all are valid.
            at: row and column of each sample in the scene, in input pixels; for mode "dense".

        Returns:
            Features of the same shape, dtype and memory format as `x`.

        Raises:
            ValueError: mode "dense" without `at`.
        """
        if self.mode == "frozen":
            return self._frozen(x, valid)
        # Half precision loses the variance of flat tiles (NaN); statistics stay fp32 or better.
        # PyTorch's own kernels see to that inside, without a copy of the features.
        inside = self.mode == "instance" and valid is None and x.shape[-2] * x.shape[-1] > 1
        inside = inside and self.across is None
        features = x if inside else x.to(torch.promote_types(x.dtype, torch.float32))
        if self.mode == "dense":
            out = self._dense(features, valid, at)
        elif self.mode == "collect":
            self.collected = Moments.of(features, valid)
            out = _apply(features, self.collected, valid, self.eps)
        elif self.across is not None and self.pool == "scene" and self.training:
            out = standardise_weighted(features, valid, self.eps, together=True, across=self.across)
        elif valid is not None or x.shape[-2] * x.shape[-1] <= 1:
            out = standardise_weighted(features, valid, self.eps, together=self.pool == "scene")
        else:
            out = standardise(features, self.eps, together=self.pool == "scene")
        out = self._scaled(out, valid).to(x.dtype)
        if x.is_contiguous(memory_format=torch.channels_last):
            # Samples on their own answer in NCHW; the convolution that follows wants what it gave.
            out = out.contiguous(memory_format=torch.channels_last)
        return out

    def measure(self, x: Tensor, valid: Tensor | None = None, core: Core | None = None) -> Moments:
        """Measure features without normalising them.

        Args:
            x: features (samples, channels, height, width).
            valid: weights (samples, 1, height, width); None: all are valid.
            core: rows and columns that count, in input pixels, at multiples of the scale; None:
                all.

        Returns:
            The statistics of all samples together, as one sample on the CPU.
        """
        if core is not None:
            rows, cols = (slice(s.start // self.scale, s.stop // self.scale) for s in core)
            x = x[..., rows, cols]
            valid = None if valid is None else valid[..., rows, cols]
        features = x.to(torch.promote_types(x.dtype, torch.float32))
        return Moments.of(features, valid).pooled().to("cpu")

    def freeze(self, statistics: Moments) -> None:
        """Normalise everything with these statistics from now on.

        Args:
            statistics: of one sample; means (1, channels).

        Raises:
            ValueError: they are of another number of channels, or of more than one sample.
        """
        if statistics.mean.shape != (1, self.channels):
            raise ValueError(
                f"statistics of shape {tuple(statistics.mean.shape)}: expected (1, {self.channels})"
            )
        self._mean, self._var = statistics.mean[0], statistics.var[0]
        self.mode = "frozen"

    def frozen(self) -> Moments:
        """Return the mean and variance that `freeze` was given, with a count of 1.

        Raises:
            ValueError: the layer is not frozen.
        """
        if self._mean is None or self._var is None:
            raise ValueError("no statistics: the layer is not frozen")
        return Moments.of_variance(torch.ones(()), self._mean, self._var)

    def spread(self, cells: CellStatistics) -> None:
        """Normalise each pixel with the statistics of its place in the scene, from now on."""
        self._cells = cells
        self.mode = "dense"

    def thaw(self) -> None:
        """Normalise each sample with its own statistics again."""
        self.mode = "instance"
        self.collected = self._mean = self._var = self._cells = None

    def _frozen(self, x: Tensor, valid: Tensor | None) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        if self._mean is None or self._var is None:
            raise ValueError("mode 'frozen' without statistics; call freeze first")
        if self._mean.device != x.device:
            # Once, not at every call: a copy to a GPU waits for all that it has to do.
            self._mean, self._var = self._mean.to(x.device), self._var.to(x.device)
        mean, var = self._mean.to(dtype), self._var.to(dtype)
        weight, bias = (None if p is None else p.to(dtype) for p in (self.weight, self.bias))
        # One pass over the features, and half precision comes in and goes out as it is.
        out = F.batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)
        return out if valid is None else out * (valid > 0)

    def _scaled(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Apply the affine parameters, which must not lift invalid pixels from 0."""
        if self.weight is None or self.bias is None:
            return x
        weight, bias = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        out = x * weight + bias
        return out if valid is None else out * (valid > 0)

    def _dense(self, x: Tensor, valid: Tensor | None, at: Sequence[At] | None) -> Tensor:
        if self._cells is None or at is None or len(at) != x.shape[0]:
            raise ValueError("mode 'dense' needs cells, and the position of each sample")
        samples = [
            self._cells.normalize(sample, self.scale, where, self.eps)
            for sample, where in zip(x, at, strict=True)
        ]
        out = torch.stack(samples) if len(samples) > 1 else samples[0][None]
        return out if valid is None else out * (valid > 0)

    def extra_repr(self) -> str:
        """Show the arguments in the network's printout."""
        return f"{self.channels}, eps={self.eps}, pool={self.pool!r}, scale={self.scale}"


class _SumOverRanks(torch.autograd.Function):
    """The sum over all processes, whose losses each depend on what any of them puts in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed(grad)


def _summed(x: Tensor) -> Tensor:
    from torch.distributed import _functional_collectives

    # Nothing is changed in place: compilers (2.11) lose `dist.all_reduce` on the way back.
    collectives: Any = _functional_collectives
    total: Tensor = collectives.all_reduce(x.contiguous(), "sum", dist.group.WORLD)
    done: Tensor = collectives.wait_tensor(total)
    return done


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum a tensor (any shape, the same in each) over all processes; gradients are summed, too."""
    total: Tensor = _SumOverRanks.apply(x)
    return total


def _apply(x: Tensor, statistics: Moments, valid: Tensor | None, eps: float) -> Tensor:
    mean = statistics.mean.to(x.dtype)[:, :, None, None]
    var = statistics.var.to(x.dtype)[:, :, None, None]
    out = (x - mean) * torch.rsqrt(var + eps)
    return out if valid is None else out * (valid > 0)


def is_per_sample(network: nn.Module) -> bool:
    """Whether what a network makes of an image does not depend on what else is in the batch."""
    return not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        or (isinstance(module, SceneNorm2d) and module.pool != "crop")
        for module in network.modules()
    )


def norm_layer(norm: str, channels: int) -> SceneNorm2d | None:
    """The layer that `norm` names, or None for "none".

    Raises:
        OptionError: `norm` is not known.
    """
    if norm not in NORMS:
        raise OptionError(f"norm {norm!r} is not known; choose one of: {', '.join(NORMS)}")
    if norm == "none":
        return None
    return SceneNorm2d(channels, pool="scene" if norm == "scene" else "crop")
