"""Standardised features, and gradients that flat ground does not blow up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geocyclegan.models import build_discriminator, build_generator
from geocyclegan.models.standardise import standardise, standardise_weighted

EPS = 1e-5


def _features(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 4, 5, 6, dtype=dtype)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_values_and_gradients_are_those_of_the_definition(together: bool, last: bool) -> None:
    x = _features(torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    over = (0, 2, 3) if together else (2, 3)
    var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    expected = (x - mean) / torch.sqrt(var + EPS)
    seed = torch.randn_like(expected)
    for found in (
        standardise(x, EPS, together=together),
        standardise_weighted(x, None, EPS, together=together),
    ):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, x, seed)[0],
            torch.autograd.grad(expected, x, seed, retain_graph=True)[0],
        )
    with torch.no_grad():
        torch.testing.assert_close(standardise(x, EPS, together=together), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_with_channels_together_stay_so(dtype: torch.dtype) -> None:
    """And come out as each would by itself, which no order of pixels and channels may change."""
    x = _features().to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = standardise(x, EPS, together=False)
    assert out.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out).cumsum(3))
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    for i in range(len(x)):
        alone = x[i : i + 1].detach().requires_grad_()
        expected = standardise(alone, EPS, together=False)
        assert torch.equal(out[i : i + 1], expected)
        (wanted,) = torch.autograd.grad(expected, alone, torch.ones_like(expected).cumsum(3))
        assert torch.equal(gradient[i : i + 1], wanted)


@pytest.mark.parametrize("last", [False, True])
def test_gradients_have_gradients(last: bool) -> None:
    """The gradient penalty of WGAN-GP needs them."""
    x = _features(torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: standardise(x, EPS, together=False), (x,))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-3, 9e-3, 1.5e-2])
def test_gradients_fade_with_the_contrast(weighted: bool, share: float) -> None:
    """By 100 variance / eps where that is below 1, and nowhere else."""
    x = _features(torch.float64)
    var, mean = torch.var_mean(x[1, 2], correction=0)
    x[1, 2] = 0.7 + (x[1, 2] - mean) * (share * EPS / var).sqrt()
    x.requires_grad_()
    plain = F.instance_norm(x, eps=EPS)
    out = (
        standardise_weighted(x, torch.ones(3, 1, 5, 6), EPS, together=False)
        if weighted
        else standardise(x, EPS, together=False)
    )
    torch.testing.assert_close(out, plain)
    seed = torch.randn_like(out)
    (found,), (expected,) = (torch.autograd.grad(each, x, seed) for each in (out, plain))
    factor = torch.ones(3, 4, 1, 1)
    factor[1, 2] = min(100 * share, 1.0)
    torch.testing.assert_close(found, expected * factor, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", ["instance", "scene"])
def test_a_flat_image_does_not_outweigh_the_others(
    precision: torch.dtype, masked: bool, norm: str
) -> None:
    """Its gradients were 1e6 to 1e30 times those of others."""
    torch.manual_seed(0)
    generator = build_generator("resnet9", in_channels=1, out_channels=1, width=8, norm=norm)
    judge = build_discriminator("patch70", in_channels=1, width=8)
    rough = torch.rand(1, 1, 32, 32) * 2 - 1

    def steepest(image: Tensor) -> float:
        valid = torch.ones(1, 1, 32, 32) if masked else None
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            verdict = judge(generator(image, valid))
        # Noise, as the verdicts of a network that has learnt something are not one number.
        loss = (verdict.float() * torch.randn_like(verdict, dtype=torch.float32)).mean()
        gradients = torch.autograd.grad(loss, list(generator.parameters()))
        return max(float(gradient.abs().max()) for gradient in gradients)

    flat = [steepest(torch.full_like(rough, level)) for level in (-1.0, 0.0, 0.3)]
    assert max(flat) < 100 * steepest(rough)
