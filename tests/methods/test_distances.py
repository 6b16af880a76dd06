"""Distances beside the mean absolute one: by hand, without what is not valid, with a slope."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geocyclegan.methods.distances import coarse_distance, gradient_difference, spectral_angle
from geocyclegan.methods.features import feature_distance
from geocyclegan.models import PatchDiscriminator

Distance = Callable[[Tensor, Tensor, Tensor | None], Tensor]
DISTANCES: list[Distance] = [
    gradient_difference,
    spectral_angle,
    lambda x, y, valid: coarse_distance(x, y, valid, (2, 4)),
]


def test_gradient_difference_by_hand() -> None:
    x = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    y = torch.tensor([[[[1.0, 0.0], [0.0, 0.25]]]])
    across = (abs(1 - 1) + abs(0 - 0.25)) / 2
    down = (abs(0.5 - 1) + abs(0.5 - 0.25)) / 2
    torch.testing.assert_close(gradient_difference(x, y, None), torch.tensor(across + down))


def test_gradient_difference_needs_two_valid_neighbours() -> None:
    x = torch.tensor([[[[0.0, 1.0, 9.0], [0.0, 3.0, 9.0]]]])
    valid = torch.tensor([[[[True, True, False], [False, True, False]]]])
    loss = gradient_difference(x, torch.zeros_like(x), valid)
    torch.testing.assert_close(loss, torch.tensor(1.0 + 2.0))


def test_spectral_angle_by_hand() -> None:
    """Levels (-1, 0) and (0, -1) are the spectra (0, 1) and (1, 0); a factor changes nothing."""
    x = torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1)
    y = torch.tensor([0.0, -1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(spectral_angle(x, y, None), torch.tensor(math.pi / 2))
    brighter = torch.tensor([-1.0, 0.8]).view(1, 2, 1, 1)
    assert spectral_angle(x, brighter, None) < 1e-5
    diagonal = torch.tensor([-0.5, -0.5]).view(1, 2, 1, 1)
    torch.testing.assert_close(spectral_angle(x, diagonal, None), torch.tensor(math.pi / 4))


def test_spectral_angle_has_a_slope_everywhere() -> None:
    x = torch.tensor([[0.5, 0.5], [-1.0, -1.0], [-1.0, 1.0]]).T.view(1, 2, 1, 3)
    x = x.requires_grad_(True)
    torch.autograd.backward(spectral_angle(x, x.detach().clone(), None))
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_coarse_distance_by_hand() -> None:
    x, y = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    x[..., :2, :2] = 0.5
    block = math.log(1 + 0.5 * (0.5 / 0.25) ** 2) / 4
    whole = math.log(1 + 0.5 * (0.125 / 0.25) ** 2)
    loss = coarse_distance(x, y, None, (2, 4, 8))
    torch.testing.assert_close(loss, torch.tensor((block + whole) / 2))
    assert coarse_distance(x, y, None, (8,)) == 0


def test_coarse_distance_does_not_see_details_and_small_shifts() -> None:
    random = torch.Generator().manual_seed(0)
    rough = torch.rand(1, 1, 4, 4, generator=random).repeat_interleave(16, 2)
    image = (rough.repeat_interleave(16, 3) * 2 - 1).roll(5, 3)
    shifted = image.roll(2, 3)
    noise = torch.randn(1, 1, 64, 64, generator=random) * 0.3
    assert coarse_distance(image, image + noise, None) < 0.05
    near, far = coarse_distance(image, shifted, None), coarse_distance(image, -image, None)
    assert near < 0.2 * far


def test_a_block_that_is_hardly_valid_does_not_count() -> None:
    x, y = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8)
    y[..., 4:] = 1.0
    valid = torch.ones(1, 1, 4, 8, dtype=torch.bool)
    valid[..., 4:] = False
    valid[..., 0, 4] = True
    assert coarse_distance(x, y, valid, (4,)) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), which=st.sampled_from(range(len(DISTANCES))))
def test_what_is_not_valid_changes_nothing(seed: int, which: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 2, 3, 8, 8, generator=random) * 2 - 1
    valid = torch.rand(2, 1, 8, 8, generator=random) > 0.3
    distance = DISTANCES[which]
    other = torch.where(valid, x, 0.9)
    torch.testing.assert_close(distance(x, y, valid), distance(other, y, valid))
    assert distance(x, x.clone(), valid) < 1e-5
    assert distance(x, y, valid) >= 0
    full = torch.ones_like(valid)
    torch.testing.assert_close(distance(x, y, full), distance(x, y, None))


@pytest.mark.parametrize("distance", DISTANCES)
def test_nothing_valid_gives_zero_and_finite_gradients(distance: Distance) -> None:
    x = torch.rand(1, 2, 8, 8, requires_grad=True)
    loss = distance(x, torch.rand(1, 2, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    torch.autograd.backward(loss)
    assert loss == 0
    assert x.grad is not None
    assert not x.grad.any()


def test_features_are_those_before_the_judgement() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(2, width=4, layers=1)
    x, y = torch.rand(2, 2, 2, 16, 16)
    heads = [m for m in judge.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 1]
    assert len(heads) == 1
    head = heads[0]
    found: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    judge(x)
    judge(y)
    handle.remove()
    expected = (found[0] - found[1]).abs().mean()
    torch.testing.assert_close(feature_distance(judge, x, y, None), expected)
    assert not head._forward_pre_hooks


def test_features_of_valid_pixels() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(2, width=4, layers=1)
    x, y = torch.rand(2, 1, 2, 32, 32)
    assert feature_distance(judge, x, x.clone(), None) == 0
    nothing = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    assert feature_distance(judge, x * 0, y * 0, nothing) == 0
    y = y.requires_grad_(True)
    x = x.requires_grad_(True)
    torch.autograd.backward(feature_distance(judge, x, y, None))
    assert x.grad is None
    assert y.grad is not None
    assert y.grad.any()
