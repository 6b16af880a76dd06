from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import PatchDiscriminator, build_discriminator


def test_published_size() -> None:
    with torch.device("meta"):
        discriminator = build_discriminator("patch70", in_channels=3)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_764_737


def test_equals_its_textbook_form() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, width=4)
    one, two, three, four, five = (m for m in discriminator.modules() if isinstance(m, nn.Conv2d))
    norm, leaky = F.instance_norm, nn.LeakyReLU(0.2)
    x = torch.rand(2, 2, 48, 40) * 2 - 1
    y = leaky(norm(three(leaky(norm(two(leaky(one(x))))))))
    torch.testing.assert_close(discriminator(x), five(leaky(norm(four(y)))))


def test_config_rebuilds_the_architecture() -> None:
    first = build_discriminator("patch70", in_channels=13, width=2)
    second = build_discriminator("patch70", **json.loads(json.dumps(first.config())))
    second.load_state_dict(first.state_dict())


@pytest.mark.parametrize(("height", "width"), [(24, 24), (64, 40), (33, 71)])
def test_weights_have_the_shape_of_the_logits_and_are_one_where_all_is_valid(
    height: int, width: int
) -> None:
    discriminator = PatchDiscriminator(1, width=1)
    valid = torch.ones(2, 1, height, width, dtype=torch.bool)
    weights = discriminator.logit_weights(valid)
    assert weights.shape == discriminator(torch.zeros(2, 1, height, width)).shape
    assert torch.equal(weights, torch.ones_like(weights))


def test_weights_are_zero_exactly_where_a_patch_sees_nothing_valid() -> None:
    discriminator = PatchDiscriminator(1, width=1, norm="none").double()
    for name, parameter in discriminator.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.1)
    valid = torch.zeros(1, 1, 128, 128)
    valid[..., 10:14, 100:120] = 1
    weights = discriminator.logit_weights(valid)
    # With positive weights a logit differs from zero exactly where it sees a one.
    assert torch.equal(weights > 0, discriminator(valid.double()) != 0)
    assert 0 < weights.max() < 1


def test_nodata_does_not_change_logits_through_the_statistics() -> None:
    """Far from nodata the logits are those of statistics over valid pixels alone."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(1, width=4)
    valid = torch.ones(1, 1, 64, 320)
    valid[..., 160:] = 0
    x = (torch.rand(1, 1, 64, 320) * 2 - 1) * valid
    masked = discriminator(x, valid)[..., :8]
    alone = discriminator(x[..., :160])[..., :8]
    assert (masked - alone).abs().max() < (discriminator(x)[..., :8] - alone).abs().max()


def test_full_mask_equals_no_mask() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, width=4)
    x = torch.rand(2, 2, 40, 40)
    full = torch.ones(2, 1, 40, 40)
    torch.testing.assert_close(discriminator(x, full), discriminator(x), atol=1e-5, rtol=1e-4)


def test_smallest_size() -> None:
    discriminator = PatchDiscriminator(1, width=1)
    assert discriminator.min_size == 24
    assert discriminator(torch.zeros(1, 1, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="at least 24 px"):
        discriminator(torch.zeros(1, 1, 23, 24))
    with pytest.raises(ValueError, match="valid mask of shape"):
        discriminator(torch.zeros(1, 1, 24, 24), torch.ones(1, 1, 24, 25))


def test_unknown_names_are_listed() -> None:
    with pytest.raises(OptionError, match="'pixels' is not known; choose one of: patch70"):
        build_discriminator("pixels", in_channels=1)
