from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from geocyclegan.errors import OptionError
from geocyclegan.methods.losses import GAN_KINDS, GanKind, GanLoss, masked_l1, masked_mean


def test_without_weights_it_is_the_plain_mean() -> None:
    x, y = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    assert torch.equal(masked_l1(x, y, None), F.l1_loss(x, y))


def test_valid_pixels_only() -> None:
    x, y = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    valid = torch.rand(2, 1, 4, 5) > 0.5
    chosen = valid.expand_as(x)
    torch.testing.assert_close(masked_l1(x, y, valid), (x - y).abs()[chosen].mean())


def test_weights_are_relative() -> None:
    values, weights = torch.rand(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(masked_mean(values, weights), masked_mean(values, weights * 0.01))


def test_no_weight_gives_zero_with_finite_gradient() -> None:
    x = torch.rand(1, 2, 4, 4, requires_grad=True)
    loss = masked_l1(x, torch.zeros_like(x), torch.zeros(1, 1, 4, 4))
    torch.autograd.backward(loss)
    assert loss == 0
    assert x.grad is not None
    assert not x.grad.any()


def test_half_precision_is_averaged_in_single_precision() -> None:
    x = torch.full((1, 1, 512, 512), 0.9, dtype=torch.float16)
    loss = masked_l1(x, torch.zeros_like(x), torch.ones(1, 1, 512, 512))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(0.9), atol=1e-3, rtol=0)


@pytest.mark.parametrize("is_real", [True, False])
def test_lsgan_is_the_squared_distance(is_real: bool) -> None:
    logits = torch.randn(2, 1, 5, 6)
    expected = F.mse_loss(logits, torch.full_like(logits, float(is_real)))
    torch.testing.assert_close(GanLoss("lsgan")(logits, is_real), expected)


@pytest.mark.parametrize("is_real", [True, False])
def test_vanilla_is_the_cross_entropy(is_real: bool) -> None:
    logits = torch.randn(2, 1, 5, 6)
    expected = F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, float(is_real)))
    torch.testing.assert_close(GanLoss("vanilla")(logits, is_real), expected)


@pytest.mark.parametrize("kind", GAN_KINDS)
def test_logits_without_valid_pixels_do_not_count(kind: GanKind) -> None:
    logits = torch.randn(1, 1, 4, 4)
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., :2] = 1
    torch.testing.assert_close(
        GanLoss(kind)(logits, True, weights), GanLoss(kind)(logits[..., :2], True)
    )


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(OptionError, match="'wgan' is not known; choose one of: lsgan, vanilla"):
        GanLoss("wgan")  # type: ignore[arg-type]
