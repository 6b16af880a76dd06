"""Convolutions with fewer multiplications give what the direct sum gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from geocyclegan.models import winograd
from geocyclegan.training.optimizers import fused

Convolve = Callable[..., Tensor]


def _with_gradients(convolve: Convolve, *tensors: Tensor, absolute: bool = False) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = convolve(*leaves)
    weights = torch.linspace(-1.0, 1.0, out.numel(), dtype=out.dtype).reshape(out.shape)
    weights = weights.abs() if absolute else weights
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


def _errors(*tensors: Tensor) -> list[float]:
    """Largest difference of output and gradients, as a share of the largest sum of absolutes."""
    doubles = [tensor.double() for tensor in tensors]
    expected = _with_gradients(F.conv2d, *doubles)
    scale = _with_gradients(F.conv2d, *(tensor.abs() for tensor in doubles), absolute=True)
    found = _with_gradients(winograd.conv3x3, *tensors)
    assert [each.shape for each in found] == [each.shape for each in expected]
    return [
        float((one.double() - other).abs().max() / most.max())
        for one, other, most in zip(found, expected, scale, strict=True)
    ]


@given(
    samples=st.integers(1, 3),
    height=st.integers(3, 23),
    width=st.integers(3, 23),
    channels=st.integers(1, 9),
    out_channels=st.integers(1, 9),
    last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_output_and_gradients_are_those_of_the_sum(
    samples: int,
    height: int,
    width: int,
    channels: int,
    out_channels: int,
    last: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(samples, channels, height, width)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(out_channels, channels, 3, 3), torch.randn(out_channels)
    assert max(_errors(x, weight, bias)) < 1e-5


def test_rounding_in_deep_sums_stays_small() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 256, 34, 34), torch.randn(256, 256, 3, 3) * 0.02
    assert max(_errors(x, weight)) < 5e-6


def test_gradients_only_where_wanted() -> None:
    x, weight = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3, requires_grad=True)
    out = winograd.conv3x3(x, weight)
    (gradient,) = torch.autograd.grad(out.sum(), [weight])
    assert gradient.shape == weight.shape
    assert winograd.conv3x3(x, weight.detach()).requires_grad is False


def test_which_layers_it_is_for() -> None:
    assert winograd.pays(nn.Conv2d(64, 128, 3))
    assert winograd.pays(nn.Conv2d(64, 64, 3, padding=1))
    for other in (
        nn.Conv2d(32, 64, 3),
        nn.Conv2d(64, 64, 3, stride=2),
        nn.Conv2d(64, 64, 4),
        nn.Conv2d(64, 64, 3, dilation=2),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.ConvTranspose2d(64, 64, 3),
    ):
        assert not winograd.pays(other), other


@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
def test_only_where_a_layer_trains(padding: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(64, 64, 3, padding=padding)
    x = torch.randn(1, 64, 12, 17)
    direct = nn.Conv2d.forward(module, x).detach()
    trained = winograd.forward(module, winograd.Kernels(), x).detach()
    torch.testing.assert_close(trained, direct, atol=1e-4, rtol=1e-4)
    assert not torch.equal(trained, direct)
    with torch.no_grad():
        assert torch.equal(winograd.forward(module, winograd.Kernels(), x), direct)
    assert torch.equal(winograd.forward(module.eval(), winograd.Kernels(), x).detach(), direct)
    with torch.autocast("cpu", torch.bfloat16):
        assert winograd.forward(module.train(), winograd.Kernels(), x).dtype == torch.bfloat16


def _step(module: nn.Conv2d) -> None:
    assert module.weight.grad is not None
    fused(torch.optim.Adam(module.parameters(), 0.1)).step()


def _load(module: nn.Conv2d) -> None:
    module.load_state_dict(nn.Conv2d(64, 64, 3).state_dict())


def _fill(module: nn.Conv2d) -> None:
    with torch.no_grad():
        module.weight.lerp_(torch.ones(()), 0.5)


@pytest.mark.parametrize("change", [_step, _load, _fill])
def test_kept_kernels_follow_the_weights(change: Callable[[nn.Conv2d], None]) -> None:
    torch.manual_seed(0)
    module, kernels, x = nn.Conv2d(64, 64, 3), winograd.Kernels(), torch.randn(1, 64, 9, 9)
    before = winograd.forward(module, kernels, x)
    assert kernels.of(module.weight) is kernels.of(module.weight)
    torch.autograd.backward(before.sum())
    change(module)
    after = winograd.forward(module, kernels, x)
    assert torch.equal(after, winograd.forward(module, winograd.Kernels(), x))
    assert not torch.equal(after, before)


def test_gradients_are_of_the_weights_that_were_used() -> None:
    torch.manual_seed(0)
    module, kernels, x = nn.Conv2d(64, 64, 3), winograd.Kernels(), torch.randn(1, 64, 9, 9)
    x.requires_grad_()
    expected = torch.autograd.grad(winograd.forward(module, kernels, x).sum(), [x])[0]
    out = winograd.forward(module, kernels, x)
    _fill(module)
    kernels.of(module.weight)
    assert torch.equal(torch.autograd.grad(out.sum(), [x])[0], expected)
