from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geocyclegan.errors import OptionError
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import Pool, SceneNorm2d, is_per_sample, norm_layer


@pytest.fixture
def features() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 8, 10) * 5 + 7


def mask_of(features: Tensor) -> Tensor:
    mask = torch.rand(features.shape[0], 1, *features.shape[2:]) > 0.4
    mask[:, :, 0, 0] = True
    return mask


def test_without_mask_it_is_instance_norm(features: Tensor) -> None:
    assert torch.equal(SceneNorm2d(3)(features), F.instance_norm(features, eps=1e-5))


def test_full_mask_equals_no_mask(features: Tensor) -> None:
    full = torch.ones(2, 1, 8, 10)
    torch.testing.assert_close(
        SceneNorm2d(3)(features, full), SceneNorm2d(3)(features), atol=1e-5, rtol=1e-5
    )


def test_statistics_see_valid_pixels_only(features: Tensor) -> None:
    mask = mask_of(features)
    out = SceneNorm2d(3)(features, mask)
    for sample in range(2):
        chosen = features[sample][:, mask[sample, 0]]
        expected = (chosen - chosen.mean(1, keepdim=True)) / (
            chosen.var(1, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        torch.testing.assert_close(out[sample][:, mask[sample, 0]], expected)


def test_invalid_values_have_no_influence_and_come_out_as_zero(features: Tensor) -> None:
    mask = mask_of(features)
    noisy = torch.where(mask, features, torch.randn_like(features) * 1e3)
    out = SceneNorm2d(3)(features, mask)
    assert torch.equal(SceneNorm2d(3)(noisy, mask), out)
    assert not out.masked_select(~mask).any()


def test_weights_count_as_often_as_they_say(features: Tensor) -> None:
    """A weight of a half on two copies equals a weight of one on one."""
    mask = mask_of(features).float()
    twice = torch.cat([features, features], dim=3)
    half = torch.cat([mask, mask], dim=3) / 2
    torch.testing.assert_close(
        SceneNorm2d(3)(twice, half)[..., :10], SceneNorm2d(3)(features, mask)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("masked", [False, True])
def test_flat_tiles_stay_finite(dtype: torch.dtype, value: float, masked: bool) -> None:
    x = torch.full((1, 2, 8, 8), value, dtype=dtype, requires_grad=True)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool) if masked else None
    out = SceneNorm2d(2)(x, mask)
    out.float().sum().backward()
    assert out.dtype == dtype
    assert out.abs().max() < 1e-2
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_keeps_single_precision_statistics(autocast: bool) -> None:
    """Squares of these values overflow half precision, and their mean is lost in bfloat16."""
    torch.manual_seed(0)
    x = (torch.randn(1, 2, 64, 64) * 300 + 1000).half()
    expected = F.instance_norm(x.double(), eps=1e-5)
    for mask in (None, torch.ones(1, 1, 64, 64)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = SceneNorm2d(2)(x, mask).double()
        assert (out - expected).abs().max() < 4e-3


def test_empty_sample_gives_zeros_with_finite_gradient() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    mask = torch.zeros(2, 1, 4, 4)
    mask[1] = 1
    out = SceneNorm2d(3)(x, mask)
    out.square().sum().backward()
    assert not out[0].any()
    assert out[1].any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_single_pixel_gives_zero() -> None:
    assert not SceneNorm2d(3)(torch.randn(2, 3, 1, 1)).any()


@pytest.mark.parametrize("masked", [False, True])
def test_double_precision_gradient(masked: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 4, dtype=torch.double, requires_grad=True)
    mask = torch.rand(1, 1, 3, 4) if masked else None
    assert SceneNorm2d(2)(x, mask).dtype == torch.double
    assert torch.autograd.gradcheck(lambda y: SceneNorm2d(2)(y, mask), (x,))


def test_keeps_channels_last(features: Tensor) -> None:
    x = features.to(memory_format=torch.channels_last)
    for mask in (None, mask_of(features)):
        out = SceneNorm2d(3)(x, mask)
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="pool='world' is not known"):
        SceneNorm2d(3, pool="world")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'group' is not known; choose one of: instance, scene"):
        norm_layer("group", 3)
    layer = SceneNorm2d(3)
    layer.mode = "frozen"
    with pytest.raises(ValueError, match="call freeze first"):
        layer(torch.zeros(1, 3, 4, 4))
    layer.mode = "dense"
    with pytest.raises(ValueError, match="needs cells, and the position"):
        layer(torch.zeros(1, 3, 4, 4))


def test_frozen_statistics_can_be_taken_back() -> None:
    norm = SceneNorm2d(3)
    with pytest.raises(ValueError, match="not frozen"):
        norm.frozen()
    norm.freeze(Moments.of(torch.rand(1, 3, 8, 8) * 5))
    other = SceneNorm2d(3)
    other.freeze(norm.frozen())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(other(x), norm(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", ["crop", "scene"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_is_rounded_once(
    dtype: torch.dtype, pool: Pool, samples: int, layout: torch.memory_format
) -> None:
    """Statistics of half precision would show as errors of more than the rounding of the result."""
    torch.manual_seed(0)
    x = (torch.randn(samples, 4, 16, 16) * 3 + 50).to(dtype).contiguous(memory_format=layout)
    x[:, 0] = 7.0
    norm = SceneNorm2d(4, pool=pool)
    out, exact = norm(x), norm(x.double())
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    # Half a unit in the last place of the largest value, and the flat channel stays flat.
    unit = torch.finfo(dtype).eps * float(exact.abs().max())
    assert (out.double() - exact).abs().max() <= 0.5 * unit + 1e-4
    assert torch.isfinite(out).all()


def test_networks_whose_images_do_not_depend_on_the_batch() -> None:
    build = torch.nn.Sequential
    assert is_per_sample(build(torch.nn.Conv2d(1, 1, 1), SceneNorm2d(1)))
    assert not is_per_sample(build(SceneNorm2d(1, pool="scene")))
    assert not is_per_sample(build(torch.nn.BatchNorm2d(1)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pool", ["crop", "scene"])
def test_weight_and_bias_come_after_the_statistics(
    features: Tensor, pool: Pool, masked: bool
) -> None:
    mask = mask_of(features) if masked else None
    plain, affine = SceneNorm2d(3, pool=pool), SceneNorm2d(3, pool=pool, affine=True)
    assert not plain.state_dict()
    assert torch.equal(affine(features, mask), plain(features, mask))
    assert affine.weight is not None
    assert affine.bias is not None
    with torch.no_grad():
        affine.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
        affine.bias.copy_(torch.tensor([1.0, 3.0, -2.0]))
    expected = plain(features, mask) * affine.weight[:, None, None] + affine.bias[:, None, None]
    if mask is not None:
        expected = expected * mask
    torch.testing.assert_close(affine(features, mask), expected)
    # Frozen statistics do the same, and invalid pixels stay 0.
    first = features[:1]
    valid = None if mask is None else mask[:1]
    crop = SceneNorm2d(3, affine=True)
    crop.load_state_dict(affine.state_dict())
    alone = crop(first, valid)
    crop.freeze(crop.measure(first, valid))
    torch.testing.assert_close(crop(first, valid), alone)
    if valid is not None:
        assert not alone.masked_select(~valid).any()


@pytest.mark.parametrize("frozen", [False, True])
def test_an_affine_norm_keeps_the_precision_of_its_features(features: Tensor, frozen: bool) -> None:
    norm = SceneNorm2d(3, affine=True)
    if frozen:
        norm.freeze(norm.measure(features[:1]))
    x = features[:1].to(torch.bfloat16).requires_grad_()
    out = norm(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert norm.bias is not None
    assert norm.bias.grad is not None
