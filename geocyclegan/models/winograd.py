"""3 × 3 convolutions with a quarter of the multiplications, for CPUs that train in fp32.

Source: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4×4, 3×3).
Windows of 6 × 6 pixels, 4 apart, and the kernels are transformed; 36 matrix products over the
channels take the place of the convolution, and a transform back gives 4 × 4 pixels each. The result
is that of the convolution but for rounding, which is some ten times that of the direct sum.

oneDNN, which computes PyTorch's convolutions on CPUs, sums directly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_OUT, _IN = 4, 6
"""Sides of a tile of the output, and of the window of the input that it depends on."""

_LEAST_CHANNELS = 64
"""With fewer, the transforms cost more than the products save."""

# The paper's matrices for the points 0, 1, -1, 2, -2 and infinity: rows of B^T, G and A^T.
_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


class Kernels:
    """The transformed kernels of a layer, kept until its weights change.

    A step runs a generator up to three times forward and three times back on the same weights.
    """

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None
        self._kept: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        """Transform kernels (out channels, channels, 3, 3) to (36, out channels, channels)."""
        # What changes weights in place raises their version; `training.optimizers` sees to it for
        # fused optimisers, which do not.
        now = (weight.data_ptr(), weight._version)
        if self._kept is None or self._of != now:
            self._of, self._kept = now, _kernels(weight.detach())
        return self._kept


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kernels: Kernels | None = None
) -> Tensor:
    """Convolve images with 3 × 3 kernels at stride 1, without padding.

    Args:
        x: images (samples, channels, height, width), single precision, at least 3 × 3; fastest with
            channels last.
        weight: kernels (out channels, channels, 3, 3).
        bias: one number for each output channel; None: none is added.
        kernels: where the transformed kernels of these weights are kept; None: nowhere.

    Returns:
        Images (samples, out channels, height - 2, width - 2), channels last. They have gradients,
        but the gradients have none.
    """
    out: Tensor = _Conv3x3.apply(x, weight, (kernels or Kernels()).of(weight))
    return out if bias is None else out + bias[:, None, None]


def pays(module: nn.Module) -> bool:
    """Whether a layer is a convolution that this way is faster for."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and not isinstance(module.padding, str)
        and (module.padding == (0, 0) or module.padding_mode == "zeros")
        and min(module.in_channels, module.out_channels) >= _LEAST_CHANNELS
    )


def forward(module: nn.Conv2d, kernels: Kernels, x: Tensor) -> Tensor:
    """Do what `module.forward` does, for a module that `pays`; the fast way where it trains.

    Elsewhere, and in other numbers than fp32, it is the direct sum.

    Args:
        module: a 3 × 3 convolution at stride 1.
        kernels: where its transformed kernels are kept.
        x: features (samples, channels, height, width).

    Returns:
        Features (samples, out channels, rows, columns), as the module's padding has it.
    """
    if not (module.training and torch.is_grad_enabled()) or x.dtype != torch.float32:
        return nn.Conv2d.forward(module, x)
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return nn.Conv2d.forward(module, x)
    if torch.compiler.is_compiling():
        # A compiler for CPUs leaves convolutions to oneDNN, and takes minutes over these products.
        return nn.Conv2d.forward(module, x)
    rows, cols = (int(side) for side in module.padding)
    if rows or cols:
        x = F.pad(x, (cols, cols, rows, rows))
    return conv3x3(x, module.weight, module.bias, kernels)


class _Conv3x3(torch.autograd.Function):
    """The convolution with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, kernels: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        tiles = _Tiles.of(x)
        ctx.save_for_backward(x, kernels)
        return tiles.output(torch.bmm(tiles.windows(x), kernels.transpose(1, 2)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernels = ctx.saved_tensors
        tiles = _Tiles.of(x)
        products = tiles.output_gradient(grad)
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = tiles.windows_gradient(torch.bmm(products, kernels))
        if ctx.needs_input_grad[1]:
            for_weight = _kernels_gradient(torch.bmm(products.transpose(1, 2), tiles.windows(x)))
        return for_x, for_weight, None


class _Tiles:
    """How an image is cut: the transforms into 36 matrices (36, tiles, channels), and back.

    Each transform is linear, so that the gradient's way is its transpose.
    """

    def __init__(self, samples: int, height: int, width: int) -> None:
        self.samples, self.height, self.width = samples, height, width
        self.rows, self.cols = -(-(height - 2) // _OUT), -(-(width - 2) // _OUT)
        self.count = samples * self.rows * self.cols
        # How far the last tiles hang over the border.
        self.below = self.rows * _OUT + 2 - height
        self.right = self.cols * _OUT + 2 - width

    @classmethod
    def of(cls, x: Tensor) -> _Tiles:
        return cls(x.shape[0], x.shape[2], x.shape[3])

    def windows(self, x: Tensor) -> Tensor:
        """Transform the windows of an image."""
        # Zeros where the last tiles hang over the border; what they make of them is cut off.
        if self.below or self.right:
            x = F.pad(x, (0, self.right, 0, self.below)).contiguous(
                memory_format=torch.channels_last
            )
        n, c, i, j = x.stride()
        windows = x.as_strided(
            (_IN, _IN, self.samples, self.rows, self.cols, x.shape[1]),
            (i, j, n, _OUT * i, _OUT * j, c),
        )
        return (_INPUT_2D @ windows.reshape(_IN**2, -1)).view(_IN**2, self.count, -1)

    def windows_gradient(self, grad: Tensor) -> Tensor:
        """The transpose of `windows`: where windows overlap, gradients add up."""
        channels, rows, cols = grad.shape[-1], self.rows, self.cols
        spread = (_INPUT_2D.T @ grad.view(_IN**2, -1)).view(
            _IN, _IN, self.samples, rows, cols, channels
        )
        spread = spread.permute(2, 3, 0, 4, 1, 5)
        # A row and a column of tiles more, for what hangs over.
        out = grad.new_zeros(self.samples, rows + 1, _OUT, cols + 1, _OUT, channels)
        out[:, :rows, :, :cols] = spread[:, :, :_OUT, :, :_OUT]
        out[:, 1:, :2, :cols] += spread[:, :, _OUT:, :, :_OUT]
        out[:, :rows, :, 1:, :2] += spread[:, :, :_OUT, :, _OUT:]
        out[:, 1:, :2, 1:, :2] += spread[:, :, _OUT:, :, _OUT:]
        image = out.view(self.samples, (rows + 1) * _OUT, (cols + 1) * _OUT, channels)
        return image[:, : self.height, : self.width].permute(0, 3, 1, 2)

    def output(self, products: Tensor) -> Tensor:
        """Transform products back to an image."""
        channels = products.shape[-1]
        tiles = (_OUTPUT_2D @ products.view(_IN**2, -1)).view(
            _OUT, _OUT, self.samples, self.rows, self.cols, channels
        )
        image = tiles.permute(2, 3, 0, 4, 1, 5).reshape(
            self.samples, self.rows * _OUT, self.cols * _OUT, channels
        )
        return image[:, : self.height - 2, : self.width - 2].permute(0, 3, 1, 2)

    def output_gradient(self, grad: Tensor) -> Tensor:
        """The transpose of `output`."""
        if self.below or self.right:
            grad = F.pad(grad, (0, self.right, 0, self.below))
        tiles = grad.permute(0, 2, 3, 1).reshape(
            self.samples, self.rows, _OUT, self.cols, _OUT, grad.shape[1]
        )
        tiles = tiles.permute(2, 4, 0, 1, 3, 5).reshape(_OUT**2, -1)
        return (_OUTPUT_2D.T @ tiles).view(_IN**2, self.count, -1)


def _kernels(weight: Tensor) -> Tensor:
    """Transform kernels (out channels, channels, 3, 3) to matrices (36, out channels, channels)."""
    out_channels, channels = weight.shape[:2]
    # Kernels that lie channels last, as those of networks that work this way do, are rows here.
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_KERNEL_2D @ flat).view(_IN**2, out_channels, channels)


def _kernels_gradient(grad: Tensor) -> Tensor:
    """The transpose of `_kernels`."""
    _, out_channels, channels = grad.shape
    flat = _KERNEL_2D.T @ grad.view(_IN**2, -1)
    return flat.view(3, 3, out_channels, channels).permute(2, 3, 0, 1)


def _both_sides(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """The matrix that does to a flat square what `matrix` does to its columns and rows."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()


_INPUT_2D, _KERNEL_2D, _OUTPUT_2D = map(_both_sides, (_INPUT, _KERNEL, _OUTPUT))
