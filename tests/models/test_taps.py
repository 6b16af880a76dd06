"""Taps: where features are taken, and that they are those of the generator's own pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import build_generator
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import advance
from geocyclegan.models.taps import (
    INPUT,
    encoder_taps,
    features_at,
    first_convolution,
    run_with,
    stem_tap,
)


def test_the_taps_of_a_resnet_are_those_of_the_paper() -> None:
    taps = encoder_taps(build_generator("resnet9", in_channels=3, out_channels=3, width=4))
    assert [(tap.scale, tap.channels) for tap in taps] == [
        (1, 3),
        (2, 8),
        (4, 16),
        (4, 16),
        (4, 16),
    ]
    generator = build_generator("resnet9", in_channels=3, out_channels=3, width=4)
    adds = [i for i, step in enumerate(generator.plan) if step.kind == "add"]
    assert [tap.step for tap in taps][-2:] == [adds[0], adds[4]]


@pytest.mark.parametrize("name", ["resnet6", "resnet9", "unet128", "densenet"])
def test_features_are_those_of_the_pass(name: str) -> None:
    torch.manual_seed(0)
    generator = build_generator(name, in_channels=2, out_channels=3, width=4)
    x = torch.rand(2, 2, 128, 128)
    taps = encoder_taps(generator)
    assert len(taps) >= 4
    every: dict[int, torch.Tensor] = {INPUT: x}
    stack: list[torch.Tensor] = []
    y = x
    for index, step in enumerate(generator.plan):
        y = advance(step, y, stack, None)
        every[index] = y.clone()
    for tap in taps:
        assert every[tap.step].shape == (2, tap.channels, 128 // tap.scale, 128 // tap.scale)
    places = {tap.step: torch.tensor([[0, 3], [2, 1]]) for tap in taps}
    for tap, found in zip(taps, features_at(generator, x, None, places), strict=True):
        flat = every[tap.step].flatten(2)
        assert torch.equal(found[0, 1], flat[0, :, 3])
        assert torch.equal(found[1, 0], flat[1, :, 2])
    assert torch.equal(run_with(generator, x, None, None), generator(x))


def test_another_stem_takes_other_bands() -> None:
    generator = build_generator("resnet6", in_channels=2, out_channels=13, width=4)
    index, conv = first_convolution(generator)
    assert (conv.in_channels, stem_tap(generator).step) == (2, index)
    assert (stem_tap(generator).scale, stem_tap(generator).channels) == (1, 4)
    stem = nn.Conv2d(13, 4, 7)
    with torch.no_grad():
        stem.weight.zero_()
        stem.weight[:, 5:7] = conv.weight
        assert stem.bias is not None
        assert conv.bias is not None
        stem.bias.copy_(conv.bias)
    x = torch.rand(1, 2, 32, 32)
    wide = torch.rand(1, 13, 32, 32)
    wide[:, 5:7] = x
    torch.testing.assert_close(run_with(generator, wide, None, stem), generator(x))


def test_a_generator_without_a_plan_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot be looked into; choose a resnet"):
        encoder_taps(Generator(1, 1, ()))
