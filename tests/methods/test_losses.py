from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.methods.losses import (
    GAN_KINDS,
    GanKind,
    GanLoss,
    gradient_penalty,
    masked_l1,
    masked_mean,
)
from geocyclegan.models import PatchDiscriminator


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


def test_hinge_by_hand() -> None:
    logits = torch.tensor([[[[2.0, 0.5], [-0.25, -3.0]]]])
    loss = GanLoss("hinge")
    torch.testing.assert_close(loss(logits, True), torch.tensor((0 + 0.5 + 1.25 + 4.0) / 4))
    torch.testing.assert_close(loss(logits, False), torch.tensor((3.0 + 1.5 + 0.75 + 0) / 4))
    # The generator's part has no bend: it is pushed on where it is believed already.
    torch.testing.assert_close(loss.fooled(logits), torch.tensor(-(2.0 + 0.5 - 0.25 - 3.0) / 4))
    assert not loss.halved


def test_wgan_is_the_mean() -> None:
    logits, loss = torch.randn(2, 1, 5, 6), GanLoss("wgan-gp")
    torch.testing.assert_close(loss(logits, True), -logits.mean())
    torch.testing.assert_close(loss(logits, False), logits.mean())
    torch.testing.assert_close(loss.fooled(logits), -logits.mean())
    assert not loss.halved


@pytest.mark.parametrize("kind", ["lsgan", "vanilla"])
def test_a_generator_wants_to_be_called_real(kind: GanKind) -> None:
    logits, loss = torch.randn(2, 1, 5, 6), GanLoss(kind)
    assert torch.equal(loss.fooled(logits), loss(logits, True))
    assert loss.halved


class Linear(nn.Module):
    """A critic whose one logit is the sum of weight times image."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return (x * self.weight).sum(dim=(1, 2, 3), keepdim=True)


def one(valid: Tensor) -> Tensor:
    return valid.to(torch.float32).amax(dim=(2, 3), keepdim=True)


def test_gradient_penalty_of_a_linear_critic() -> None:
    """Its gradient is its weight everywhere; and the penalty pulls the weight's length to 1."""
    critic = Linear(torch.randn(2, 4, 5))
    real, fake = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
    penalty = gradient_penalty(critic, one, (real, None), (fake, None))
    length = critic.weight.detach().norm()
    torch.testing.assert_close(penalty, (length - 1).square())
    torch.autograd.backward(penalty)
    expected = 2 * (length - 1) * critic.weight.detach() / length
    torch.testing.assert_close(critic.weight.grad, expected)


def test_gradient_penalty_sees_pixels_that_are_valid_in_both() -> None:
    weight = torch.randn(1, 4, 4)
    valid_a = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid_a[..., :2] = False
    valid_b = torch.ones_like(valid_a)
    valid_b[..., 0, :] = False
    joint = valid_a & valid_b
    length = (weight * joint[0]).norm()
    real, fake = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4)
    penalties = [
        gradient_penalty(Linear(weight), one, (real * valid_a, valid_a), (image * valid_b, valid_b))
        for image in (fake, torch.where(valid_b, fake, 7.0))
    ]
    torch.testing.assert_close(penalties[0], (length - 1).square())
    assert torch.equal(*penalties)
    nothing = torch.zeros_like(valid_a)
    empty = gradient_penalty(Linear(weight), one, (real, nothing), (fake, None))
    assert torch.isfinite(empty)


def test_gradient_penalty_goes_through_a_patch_discriminator() -> None:
    torch.manual_seed(0)
    critic = PatchDiscriminator(2, width=2, layers=1)
    valid = torch.rand(2, 1, 16, 16) > 0.3
    real, fake = torch.rand(2, 2, 16, 16), torch.rand(2, 2, 16, 16)
    penalty = gradient_penalty(critic, critic.logit_weights, (real, valid), (fake, None))
    torch.autograd.backward(penalty)
    gradients = [p.grad for n, p in critic.named_parameters() if n.endswith("weight")]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
