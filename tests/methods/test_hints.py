"""Pair hints: what pairs add to the losses of a method's generators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from geocyclegan.catalogue import Direction
from geocyclegan.errors import OptionError
from geocyclegan.methods.base import Batch
from geocyclegan.methods.distances import coarse_distance, gradient_difference, spectral_angle
from geocyclegan.methods.hints import PairHints
from geocyclegan.methods.losses import masked_l1


class Negative(nn.Module):
    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return -x


BOTH: dict[Direction, nn.Module] = {"a2b": Negative(), "b2a": Negative()}


def batch_of(seed: int = 0, masked: bool = False) -> Batch:
    random = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 2, 2, 16, 16, generator=random) * 2 - 1
    if not masked:
        return Batch(a, b)
    valid = torch.rand(2, 1, 16, 16, generator=random) > 0.3
    return Batch(a * valid, b * valid, valid, valid)


@pytest.mark.parametrize("masked", [False, True])
def test_pairs_by_hand(masked: bool) -> None:
    pairs = batch_of(1, masked)
    batch = Batch(torch.zeros(1), torch.zeros(1), pairs=pairs, weak=pairs)
    losses = PairHints(3.0, 0.5, 0.25, 2.0).losses(BOTH, batch)
    assert list(losses) == ["pair_ab", "weak_ab", "pair_ba", "weak_ba"]
    for way, x, y in (("ab", -pairs.a, pairs.b), ("ba", -pairs.b, pairs.a)):
        valid = pairs.valid_a
        expected = masked_l1(x, y, valid) + 0.5 * gradient_difference(x, y, valid)
        expected = 3.0 * (expected + 0.25 * spectral_angle(x, y, valid))
        torch.testing.assert_close(losses[f"pair_{way}"], expected)
        torch.testing.assert_close(losses[f"weak_{way}"], 2.0 * coarse_distance(x, y, valid))


def test_a_batch_without_pairs_and_a_method_with_one_direction() -> None:
    hints = PairHints(1.0, weak=1.0)
    nothing = hints.losses(BOTH, batch_of())
    assert {name: float(loss) for name, loss in nothing.items()} == dict.fromkeys(
        ("pair_ab", "weak_ab", "pair_ba", "weak_ba"), 0.0
    )
    batch = Batch(torch.zeros(1), torch.zeros(1), pairs=batch_of())
    assert list(PairHints(1.0).losses({"a2b": Negative()}, batch)) == ["pair_ab"]
    assert PairHints().losses(BOTH, batch) == {}


def test_masks_that_differ_are_joined() -> None:
    pairs = batch_of()
    valid_a = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    valid_a[..., :8] = False
    valid_b = ~valid_a
    batch = Batch(pairs.a, pairs.b, pairs=Batch(pairs.a, pairs.b, valid_a, valid_b))
    assert PairHints(1.0).losses(BOTH, batch)["pair_ab"] == 0


def test_pairs_move_with_their_batch() -> None:
    batch = Batch(torch.zeros(1), torch.zeros(1), pairs=batch_of(), weak=batch_of(masked=True))
    moved = batch.to("meta")
    assert moved.pairs is not None
    assert moved.weak is not None
    assert moved.weak.valid_a is not None
    assert {moved.pairs.a.device.type, moved.weak.valid_a.device.type} == {"meta"}


class Gain(nn.Conv2d):
    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("hints", [PairHints(1.0), PairHints(weak=1.0)])
def test_pairs_turn_a_flipped_gain(hints: PairHints) -> None:
    """Also where a shift of two pixels, noise and a quarter that changed stand in the way."""
    random = torch.Generator().manual_seed(0)
    rough = torch.rand(4, 1, 4, 4, generator=random) * 2 - 1
    a = rough.repeat_interleave(16, 2).repeat_interleave(16, 3)
    b = -a.roll(2, 3) + 0.1 * torch.randn(a.shape, generator=random)
    b[..., :32, :32] = 0.8
    generator = Gain(1, 1, 1)
    nn.init.constant_(generator.weight, 1.0)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.05)
    batch = Batch(a, b, pairs=Batch(a, b), weak=Batch(a, b))
    for _ in range(100):
        optimizer.zero_grad()
        for loss in hints.losses({"a2b": generator}, batch).values():
            torch.autograd.backward(loss)
        optimizer.step()
    assert generator.weight.item() < -0.2


def test_negative_weights_are_refused() -> None:
    with pytest.raises(OptionError, match="weight weak of pairs is -1"):
        PairHints(weak=-1.0)
