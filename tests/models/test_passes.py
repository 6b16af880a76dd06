"""Statistics found patch by patch are those of the whole image, and give its output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geocyclegan.models import DenseNetGenerator, Generator, ResNetGenerator, UNetGenerator
from geocyclegan.models.layers import advance
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, activation_bytes, lockstep, sweep


def network(norm: str = "instance", width: int = 4) -> Generator:
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=width, blocks=2, norm=norm)
    for parameter in generator.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return generator.eval().requires_grad_(False)


def quarters(x: Tensor, valid: Tensor | None, halo: int, middle: int = 48) -> list[Patch]:
    """Four tiles with a halo, clipped at the border."""
    patches = []
    height, width = x.shape[-2:]
    for rows in ((0, middle), (middle, height)):
        for cols in ((0, middle), (middle, width)):
            read = [
                slice(max(start - halo, 0), min(stop + halo, size))
                for (start, stop), size in ((rows, height), (cols, width))
            ]
            core = (
                slice(rows[0] - read[0].start, rows[1] - read[0].start),
                slice(cols[0] - read[1].start, cols[1] - read[1].start),
            )
            mask = None if valid is None else valid[..., read[0], read[1]]
            patches.append(Patch(x[..., read[0], read[1]], mask, core))
    return patches


@pytest.fixture
def image() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    valid = torch.rand(1, 1, 96, 104) > 0.02
    valid[..., :30, 70:] = False
    x = torch.rand(1, 2, 96, 104) * 2 - 1
    x[..., 52:] *= 0.2
    return x * valid, valid


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_give_the_statistics_and_the_output_of_the_whole(
    image: tuple[Tensor, Tensor], masked: bool
) -> None:
    x, valid = image
    mask = valid if masked else None
    generator = network()
    assert generator.halo is not None
    expected = generator(x, mask)
    patches = quarters(x, mask, generator.halo)
    found = lockstep(generator, patches)
    torch.testing.assert_close(generator(x, mask), expected, atol=1e-4, rtol=0)
    generator.thaw()
    again = sweep(generator, lambda: patches)
    assert len(found) == len(again) == len(generator.norm_layers())
    for one, two in zip(found, again, strict=True):
        torch.testing.assert_close(one.count, two.count)
        torch.testing.assert_close(one.mean, two.mean)
        torch.testing.assert_close(one.m2, two.m2)
    generator.thaw()
    torch.testing.assert_close(generator(x, mask), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNetGenerator(2, 3, width=4, blocks=1, antialias=True),
        lambda: ResNetGenerator(2, 3, width=4, blocks=1, upsample="nearest"),
        lambda: ResNetGenerator(2, 3, width=4, blocks=1, antialias=True, upsample="transpose"),
        lambda: DenseNetGenerator(2, 3, width=4, blocks=2, layers=2, upsample="bilinear"),
    ],
)
def test_tiles_agree_with_any_sampling(
    image: tuple[Tensor, Tensor], make: Callable[[], Generator], masked: bool
) -> None:
    """Statistics of tiles with halo give the output of the whole; so do the tiles themselves."""
    x, valid = image
    mask = valid if masked else None
    torch.manual_seed(0)
    generator = make().eval().requires_grad_(False)
    assert generator.halo is not None
    expected = generator(x, mask)
    patches = quarters(x, mask, generator.halo)
    lockstep(generator, patches)
    torch.testing.assert_close(generator(x, mask), expected, atol=1e-4, rtol=0)
    rows, cols = patches[3].core or (slice(0), slice(0))
    tile = generator(patches[3].levels, patches[3].valid)[..., rows, cols]
    torch.testing.assert_close(tile, expected[..., 48:, 48:], atol=1e-4, rtol=0)


def test_each_valid_pixel_counts_once_at_every_scale(image: tuple[Tensor, Tensor]) -> None:
    x, valid = image
    generator = network()
    assert generator.halo is not None
    found = lockstep(generator, quarters(x, valid, generator.halo))
    for norm, statistics in zip(generator.norm_layers(), found, strict=True):
        assert float(statistics.count) * norm.scale**2 == pytest.approx(float(valid.sum()))


def test_nodata_is_in_no_statistic(image: tuple[Tensor, Tensor]) -> None:
    """What is written under the mask changes nothing, at any layer, in any mode."""
    x, valid = image
    x = torch.zeros_like(x)
    x[..., :, 40:] = 1.0
    generator = network()
    clean = lockstep(generator, [Patch(x, torch.ones_like(valid))])
    generator.thaw()
    holes = lockstep(generator, [Patch(x, valid)])
    # The statistics of a masked image are not those of the whole one, ...
    assert not torch.allclose(clean[0].mean, holes[0].mean, atol=1e-3)
    # ... and a window with nothing but nodata adds nothing to them.
    generator.thaw()
    empty = Patch(torch.zeros_like(x), torch.zeros_like(valid))
    for one, two in zip(holes, lockstep(generator, [Patch(x, valid), empty]), strict=True):
        torch.testing.assert_close(one.mean, two.mean)
        torch.testing.assert_close(one.m2, two.m2)


def test_a_pooled_batch_is_what_training_sees() -> None:
    """Mode "instance" with pool "scene" has the statistics that lockstep finds."""
    generator, x = network("scene"), torch.rand(4, 2, 32, 32) * 2 - 1
    for mask in (None, torch.rand(4, 1, 32, 32) > 0.3):
        generator.thaw()
        expected = generator(x, mask)
        patches = [Patch(x[i : i + 1], None if mask is None else mask[i : i + 1]) for i in range(4)]
        lockstep(generator, patches)
        torch.testing.assert_close(generator(x, mask), expected, atol=1e-4, rtol=0)


def test_freezing_from_elsewhere(image: tuple[Tensor, Tensor]) -> None:
    generator = network()
    found = lockstep(generator, [Patch(image[0])])
    out = generator(image[0])
    other = network()
    other.freeze([Moments.of_variance(m.count, m.mean[0], m.var[0]) for m in found])
    torch.testing.assert_close(other(image[0]), out)
    with pytest.raises(ValueError, match="statistics of 1 layers: expected 9"):
        other.freeze(found[:1])
    with pytest.raises(ValueError, match=r"expected \(1, 4\)"):
        other.freeze(found[1:2] + found[1:])
    with pytest.raises(ValueError, match="no patch"):
        lockstep(network(), [])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frozen_statistics_stay_exact_in_half_precision(dtype: torch.dtype) -> None:
    generator = network()
    norm = generator.norm_layers()[0]
    x = torch.randn(1, 4, 16, 16) * 3 + 300
    norm.freeze(norm.measure(x))
    norm.to(dtype)
    out = norm(x.to(dtype))
    assert out.dtype == dtype
    expected = (x.to(dtype).double() - x.double().mean((2, 3), keepdim=True)) / x.double().std(
        (2, 3), correction=0, keepdim=True
    )
    assert (out.double() - expected).abs().max() < 0.03


@pytest.mark.parametrize(
    "make",
    [
        network,
        lambda: UNetGenerator(2, 3, width=4, depth=3),
        lambda: ResNetGenerator(2, 3, width=4, blocks=1, antialias=True),
        lambda: ResNetGenerator(2, 3, width=4, blocks=1, upsample="nearest"),
        lambda: DenseNetGenerator(2, 3, width=4, blocks=2, layers=3),
    ],
)
def test_activation_bytes_are_those_of_a_walk(make: Callable[[], Generator]) -> None:
    generator = make()
    x = torch.zeros(1, 2, 64, 64)
    norms = set(map(id, generator.norm_layers()))
    last = max(i for i, step in enumerate(generator.plan) if id(step.module) in norms)
    stack: list[Tensor] = []
    peak = 0
    y = x
    for step in generator.plan[: last + 1]:
        y = advance(step, y, stack, None)
        held = {t.data_ptr(): t.numel() for t in [y, *stack]}
        peak = max(peak, sum(held.values()))
    estimate = activation_bytes(generator) * 64 * 64 / 4
    assert peak <= estimate <= 1.6 * peak + 2 * 64 * 64
