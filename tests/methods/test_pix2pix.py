"""pix2pix: what the judge sees, and the objective of the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.methods import Batch, NetworkSpec, build_method
from geocyclegan.methods.pix2pix import Pix2Pix, Pix2PixConfig

SPEC = NetworkSpec(
    bands_a=2,
    bands_b=3,
    generator_args={"width": 2, "blocks": 1},
    discriminator_args={"width": 2, "layers": 1},
)


def make(spec: NetworkSpec = SPEC, **options: object) -> Pix2Pix:
    torch.manual_seed(0)
    method = build_method("pix2pix", spec, **options)
    assert isinstance(method, Pix2Pix)
    return method


def pairs(seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.rand(2, 2, 16, 16, generator=random) * 2 - 1,
        torch.rand(2, 3, 16, 16, generator=random) * 2 - 1,
    )


def test_a_step_is_that_of_the_paper() -> None:
    """Written out once more with plain torch: cross-entropy on both sides, and 100 times L1."""
    method, batch = make(), pairs()
    generator, judge = method.generator, method.discriminator
    fake = generator(batch.a)

    def says(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = judge(torch.cat([batch.a, images], 1))
        return logits

    with torch.no_grad():
        wanted = says(fake)
        g = F.binary_cross_entropy_with_logits(wanted, torch.ones_like(wanted))
        l1 = 100 * (fake - batch.b).abs().mean()
        real = says(batch.b)
        d = 0.5 * (
            F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            + F.binary_cross_entropy_with_logits(wanted, torch.zeros_like(wanted))
        )
    losses = method.step(batch, method.optimizers(), torch.autograd.backward)
    for name, value in {"g": g, "l1": l1, "generators": g + l1, "d": d}.items():
        torch.testing.assert_close(losses[name], value)


def test_what_is_not_valid_on_one_side_counts_on_neither() -> None:
    class Constant(nn.Module):
        in_channels, out_channels = 2, 3

        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
            return x.new_zeros(x.shape[0], 3, *x.shape[2:]) + self.level

    base = make()
    method = Pix2Pix(Constant(), base.discriminator, Pix2PixConfig())
    batch = pairs()
    b = torch.full_like(batch.b, 0.5)
    valid_a, valid_b = (torch.ones(2, 1, 16, 16, dtype=torch.bool) for _ in "ab")
    valid_a[..., :8] = False
    valid_b[..., :8, :] = False
    b[~(valid_a & valid_b).expand_as(b)] = -1.0
    error = method.validate(Batch(batch.a, b, valid_a, valid_b))["l1"]
    torch.testing.assert_close(error, torch.tensor(0.5))


def test_a_u_net_drops_features_while_it_trains_only() -> None:
    spec = NetworkSpec(2, 3, generator="unet128", generator_args={"width": 1})
    method = make(spec)
    assert any(isinstance(module, nn.Dropout) for module in method.generator.modules())
    x = torch.rand(1, 2, 128, 128)
    assert torch.equal(method.translate(x), method.translate(x))
    with torch.no_grad():
        assert not torch.equal(method.generator(x), method.generator(x))


def test_numbers_out_of_range() -> None:
    with pytest.raises(OptionError, match="lambda_l1 is -1"):
        make(lambda_l1=-1.0)
