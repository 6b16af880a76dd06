"""Reflection that keeps the order of features: the same pixels and gradients as PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geocyclegan.models import build_generator, padding
from geocyclegan.models.padding import reflect, replace_padding

FORMATS = [torch.contiguous_format, torch.channels_last]


@given(
    st.tuples(*[st.integers(0, 4)] * 4),
    st.sampled_from(FORMATS),
    st.sampled_from(FORMATS),
    st.booleans(),
)
def test_it_is_reflection(
    sides: tuple[int, int, int, int],
    order: torch.memory_format,
    order_of_gradient: torch.memory_format,
    half: bool,
) -> None:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float64
    x = torch.rand(2, 3, 7, 5, dtype=dtype).to(memory_format=order).requires_grad_()
    ours, theirs = reflect(x, sides), F.pad(x, sides, mode="reflect")
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=order)
    seed = torch.rand_like(theirs).to(memory_format=order_of_gradient)
    mine, reference = (torch.autograd.grad(y, x, seed)[0] for y in (ours, theirs))
    assert mine.is_contiguous(memory_format=order)
    # In half precision each of up to eight sums is rounded, in another order.
    torch.testing.assert_close(
        mine.double(), reference.double(), rtol=0.05 if half else 1e-9, atol=0
    )


def test_its_gradients_have_gradients() -> None:
    x = torch.rand(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reflect(x, (1, 3, 2, 0)), x)
    assert torch.autograd.gradgradcheck(lambda x: reflect(x, (1, 3, 2, 0)), x)


def test_an_odd_view_is_no_order() -> None:
    x = torch.rand(2, 3, 9, 9)[:, :, 1:-1, ::2]
    assert torch.equal(reflect(x, (2, 2, 2, 2)), F.pad(x, (2, 2, 2, 2), mode="reflect"))


@pytest.mark.parametrize("repeatable", [False, True])
def test_networks_take_it_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, repeatable: bool
) -> None:
    torch.manual_seed(0)
    network = build_generator("resnet6", in_channels=2, out_channels=3, width=4)
    small, large = (torch.rand(1, 2, side, side) for side in (16, 48))
    small, large = (x.to(memory_format=torch.channels_last) for x in (small, large))
    network.to(memory_format=torch.channels_last)
    expected = [network(x) for x in (small, large)]
    taken: list[int] = []

    def counted(x: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
        taken.append(x.shape[-1])
        return reflect(x, sides)

    monkeypatch.setattr(padding, "reflect", counted)
    monkeypatch.setattr(padding, "_MANY", 16 * 12 * 12)
    replace_padding([network], repeatable=repeatable)
    found = [network(x) for x in (small, large)]
    assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True))
    pads = sum(isinstance(module, nn.ReflectionPad2d) for module in network.modules())
    assert pads == 14
    # All features of the smaller image have fewer values.
    assert len(taken) == (2 * pads if repeatable else pads)
