"""What every discriminator must do, whichever it is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.methods.losses import GanLoss
from geocyclegan.models import (
    Discriminator,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    build_discriminator,
    discriminators,
)

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "patch70": ("patch70", {}),
    "patch": ("patch", {"layers": 2}),
    "pixel": ("pixel", {}),
    "multiscale": ("multiscale", {"layers": 1, "scales": 2}),
    "spectral": ("patch", {"layers": 1, "spectral_norm": True}),
    "spectral scales": ("multiscale", {"layers": 1, "scales": 3, "spectral_norm": True}),
    "spectral pixel": ("pixel", {"spectral_norm": True}),
}


@pytest.fixture(params=list(TINY))
def tiny(request: pytest.FixtureRequest) -> Discriminator:
    torch.manual_seed(0)
    name, args = TINY[request.param]
    return build_discriminator(name, in_channels=2, width=4, **args)


def test_all_names_are_tried() -> None:
    assert {name for name, _ in TINY.values()} == set(discriminators.names())


@pytest.mark.parametrize("bands", [1, 3, 13])
@pytest.mark.parametrize("kind", list(TINY))
def test_config_rebuilds_the_architecture(kind: str, bands: int) -> None:
    name, args = TINY[kind]
    first = build_discriminator(name, in_channels=bands, width=2, **args)
    second = build_discriminator(name, **json.loads(json.dumps(first.config())))
    second.load_state_dict(first.state_dict())
    x = torch.rand(1, bands, 48, 48)
    assert torch.equal(second.eval()(x), first.eval()(x))
    assert second.min_size == first.min_size


def test_smallest_size_is_the_smallest_that_works(tiny: Discriminator) -> None:
    side = tiny.min_size
    logits = tiny(torch.zeros(2, 2, side, side))
    assert logits.shape[:2] == (2, 1)
    assert logits.isfinite().all()
    if side > 1:
        with pytest.raises(ValueError, match=f"at least {side} px"):
            tiny(torch.zeros(2, 2, side, side - 1))


def test_weights_fit_the_logits(tiny: Discriminator) -> None:
    x = torch.rand(2, 2, 37, 50)
    valid = torch.rand(2, 1, 37, 50) > 0.3
    assert tiny.logit_weights(valid).shape == tiny(x * valid, valid).shape
    assert tiny.logit_weights(torch.zeros_like(valid)).max() == 0
    assert 0 < tiny.logit_weights(valid).max() <= 1
    full = torch.ones_like(valid)
    torch.testing.assert_close(tiny.eval()(x, full), tiny(x), atol=1e-5, rtol=1e-4)
    loss = GanLoss()
    torch.testing.assert_close(
        loss(tiny(x), True, tiny.weights_for(x, None)),
        loss(tiny(x, full), True, tiny.weights_for(x, full)),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("kind", list(TINY))
def test_a_logit_without_weight_sees_nothing_valid(kind: str) -> None:
    name, args = TINY[kind]
    discriminator = build_discriminator(name, in_channels=2, width=4, norm="none", **args).eval()
    valid = torch.zeros(1, 1, 64, 256)
    valid[..., :100] = 1
    x = (torch.rand(1, 2, 64, 256) * valid).requires_grad_()
    blind = discriminator.logit_weights(valid) == 0
    assert 0 < float(blind.float().mean()) < 1
    (discriminator(x, valid) * blind).sum().backward()
    assert x.grad is not None
    assert not (x.grad * valid).any()


def test_copies_say_the_same(tiny: Discriminator) -> None:
    x = torch.rand(1, 2, 48, 48)
    expected = tiny.eval()(x)
    assert torch.equal(copy.deepcopy(tiny)(x), expected)


def test_published_sizes() -> None:
    def size(name: str, **args: Any) -> int:
        with torch.device("meta"):
            network = build_discriminator(name, in_channels=3, **args)
        return sum(parameter.numel() for parameter in network.parameters())

    patch = 2_764_737
    assert size("patch70") == size("patch") == patch
    assert size("multiscale") == 3 * patch
    assert size("multiscale", scales=2) == 2 * patch
    # 1 × 1 convolutions: 3 → 64 → 128 → 1, with biases.
    assert size("pixel") == (3 * 64 + 64) + (64 * 128 + 128) + (128 + 1)
    assert size("patch", spectral_norm=True) == patch


def test_pixel_sees_one_pixel() -> None:
    discriminator = PixelDiscriminator(2, width=4, norm="none")
    assert discriminator.patch == discriminator.min_size == 1
    x = torch.rand(1, 2, 5, 5)
    y = x.clone()
    y[..., 2, 3] += 1
    changed = (discriminator(x) != discriminator(y)).nonzero()
    assert changed.tolist() == [[0, 0, 2, 3]]


def test_multiscale_is_its_judges_on_smaller_images() -> None:
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(2, width=4, layers=2, scales=3)
    x = torch.rand(2, 2, 64, 80)
    half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    quarter = F.avg_pool2d(half, 3, 2, 1, count_include_pad=False)
    expected = [judge(y) for judge, y in zip(discriminator.judges, (x, half, quarter), strict=True)]
    logits = discriminator(x).detach()
    torch.testing.assert_close(logits[:, 0, 0], torch.cat([e.flatten(1) for e in expected], dim=1))
    # The loss is the mean of the scales' losses, though the finest has most of the logits.
    loss = GanLoss()
    each = [float(loss(e.detach(), True)) for e in expected]
    weighted = float(loss(logits, True, discriminator.weights_for(x, None)))
    assert weighted == pytest.approx(sum(each) / 3, rel=1e-5)
    assert weighted != pytest.approx(float(loss(logits, True)), rel=1e-5)


def test_halving_keeps_the_edge_of_nodata_as_bright_as_the_rest() -> None:
    discriminator = MultiscaleDiscriminator(1, width=2, layers=1, scales=3, norm="none").eval()
    seen: list[torch.Tensor] = []
    for judge in discriminator.judges:
        judge.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    valid = torch.zeros(1, 1, 64, 64)
    valid[..., 7:41, 13:50] = 1
    discriminator(0.8 * valid, valid)
    for image in seen:
        assert image[image > 0].min().item() == pytest.approx(0.8, rel=1e-4)
        assert image.max().item() == pytest.approx(0.8, rel=1e-4)


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, width=8, layers=2, spectral_norm=True)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if name.endswith("original"):
                parameter.mul_(100)
    discriminator.train()
    for _ in range(20):
        discriminator(torch.rand(1, 2, 32, 32))
    for layer in discriminator.modules():
        if isinstance(layer, nn.Conv2d):
            singular = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert float(singular) == pytest.approx(1.0, abs=0.05)
    plain = PatchDiscriminator(2, width=8, layers=2)
    assert not any("parametrizations" in key for key in plain.state_dict())


def test_spectral_norm_goes_on_from_its_state() -> None:
    """The vectors of the power iteration are in the state, so a resume is exact."""
    torch.manual_seed(0)
    first = PatchDiscriminator(1, width=4, layers=1, spectral_norm=True)
    first(torch.rand(1, 1, 16, 16))
    second = PatchDiscriminator(1, width=4, layers=1, spectral_norm=True)
    second.load_state_dict(first.state_dict())
    x = torch.rand(1, 1, 16, 16)
    for _ in range(2):
        assert torch.equal(second(x), first(x))


def test_options_out_of_range() -> None:
    with pytest.raises(OptionError, match="layers is 0"):
        build_discriminator("patch", in_channels=1, layers=0)
    with pytest.raises(OptionError, match="scales is 0"):
        build_discriminator("multiscale", in_channels=1, scales=0)
    assert not discriminators.takes("patch70", "layers")
    assert discriminators.takes("patch70", "spectral_norm")
    assert not discriminators.takes("pixel", "layers")
