from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from geocyclegan.models import (
    DenseNetGenerator,
    PatchDiscriminator,
    ResNetGenerator,
    UNetGenerator,
    build_generator,
)
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, unit
from geocyclegan.models.receptive import min_size, radius, round_up, scales, seen


def reach_by_gradient(generator: Generator, size: int) -> int:
    """Greatest distance over all phases; weights are positive, so that no path cancels or dies."""
    generator.double()
    for name, weight in generator.named_parameters():
        nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0 / weight[0].numel())
        if name.startswith("layers.head"):
            nn.init.constant_(weight, 1e-6)  # keeps tanh where its slope does not vanish
    reach = 0
    for phase in range(generator.stride):
        at = size // 2 + phase
        x = torch.ones(1, generator.in_channels, size, size, dtype=torch.double)
        x.requires_grad_()
        generator(x)[0, 0, at, at].backward()
        assert x.grad is not None
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
        reach = max(reach, at - int(rows.min()), int(rows.max()) - at)
    return reach


@pytest.mark.parametrize("blocks", [1, 2, 6, 9])
def test_radius_of_resnet_by_analysis(blocks: int) -> None:
    generator = ResNetGenerator(2, 3, width=1, blocks=blocks)
    assert radius(generator.plan) == 8 * blocks + 12
    assert generator.halo == 8 * blocks + 12


@pytest.mark.parametrize("blocks", [1, 3])
def test_radius_of_resnet_by_gradient(blocks: int) -> None:
    generator = ResNetGenerator(1, 1, width=1, blocks=blocks, norm="none")
    assert reach_by_gradient(generator, 96) == 8 * blocks + 12 == generator.halo


@pytest.mark.parametrize("upsample", ["transpose", "nearest", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", [ResNetGenerator, DenseNetGenerator])
def test_radius_with_any_sampling_by_gradient(
    kind: Callable[..., Generator], antialias: bool, upsample: str
) -> None:
    generator = kind(1, 1, width=1, blocks=1, norm="none", antialias=antialias, upsample=upsample)
    assert reach_by_gradient(generator, 96) == radius(generator.plan)
    assert generator.halo == round_up(radius(generator.plan), 4)


def test_radius_of_densenet_is_that_of_the_resnet_with_as_many_convolutions() -> None:
    with torch.device("meta"):
        assert build_generator("densenet", in_channels=1, out_channels=1).halo == 84


def test_radius_of_unet_by_gradient() -> None:
    """The analysis holds for skips, too, where it bounds nothing for inference."""
    generator = UNetGenerator(1, 1, width=1, depth=3, norm="none")
    assert reach_by_gradient(generator, 64) == radius(generator.plan)


def test_full_unet_sees_more_than_a_window() -> None:
    generator = UNetGenerator(1, 1, width=1, depth=8)
    assert radius(generator.plan) > generator.stride
    assert generator.halo is None


def test_halo_is_rounded_up_to_the_stride() -> None:
    assert [round_up(value, 4) for value in (0, 1, 4, 5)] == [0, 4, 4, 8]


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_patch_of_discriminator(layers: int, patch: int) -> None:
    assert PatchDiscriminator(3, width=1, layers=layers).patch == patch


def test_scales_follow_strides() -> None:
    generator = ResNetGenerator(1, 1, width=1, blocks=2)
    assert [norm.scale for norm in generator.norm_layers()] == [1, 2, 4, 4, 4, 4, 4, 2, 1]
    assert scales(generator.plan)[-1] == 1


def test_smallest_size_follows_reflection() -> None:
    assert min_size(unit("a", nn.ReflectionPad2d(3), nn.Conv2d(1, 1, 7))) == 4
    deep = unit("a", nn.Conv2d(1, 1, 2, stride=2)) + unit("b", nn.ReflectionPad2d(3))
    assert min_size(deep) == 8


def test_dilation_counts() -> None:
    assert seen(unit("a", nn.Conv2d(1, 1, 3, padding=2, dilation=2)), 0, 0) == (-2, 2)


def test_unknown_geometry_is_refused_not_guessed() -> None:
    with pytest.raises(TypeError, match="receptive field of PixelShuffle is not known"):
        radius([Step("apply", nn.PixelShuffle(2), "up")])
    for resize in (
        nn.Upsample(scale_factor=2, mode="bicubic"),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=1.5),
        nn.Upsample(size=8),
    ):
        with pytest.raises(TypeError, match="receptive field of Upsample"):
            radius([Step("apply", resize, "up")])
    with pytest.raises(ValueError, match="kernel"):
        radius(unit("a", nn.Conv2d(1, 1, (3, 5))))
    with pytest.raises(ValueError, match="upsamples by 2 at scale 1"):
        scales(unit("a", nn.ConvTranspose2d(1, 1, 2, stride=2)))
