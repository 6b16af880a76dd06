"""Ten steps of the method against a CycleGAN step written plainly, straight from the paper."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.methods import Batch, CycleGAN, CycleGANConfig
from geocyclegan.methods.losses import GanKind
from geocyclegan.models import PatchDiscriminator, ResNetGenerator

BANDS, WIDTH, POOL = 3, 4, 3


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


def plain_generator(bands_in: int, bands_out: int, w: int) -> nn.Module:
    def up(channels: int) -> nn.Module:
        return nn.ConvTranspose2d(channels, channels // 2, 3, 2, padding=1, output_padding=1)

    return nn.Sequential(
        *(nn.ReflectionPad2d(3), nn.Conv2d(bands_in, w, 7), nn.InstanceNorm2d(w), nn.ReLU()),
        *(nn.Conv2d(w, 2 * w, 3, 2, padding=1), nn.InstanceNorm2d(2 * w), nn.ReLU()),
        *(nn.Conv2d(2 * w, 4 * w, 3, 2, padding=1), nn.InstanceNorm2d(4 * w), nn.ReLU()),
        *(Residual(4 * w), Residual(4 * w)),
        *(up(4 * w), nn.InstanceNorm2d(2 * w), nn.ReLU()),
        *(up(2 * w), nn.InstanceNorm2d(w), nn.ReLU()),
        *(nn.ReflectionPad2d(3), nn.Conv2d(w, bands_out, 7), nn.Tanh()),
    )


def plain_discriminator(bands: int, w: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(bands, w, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(w, 2 * w, 4, 2, 1), nn.InstanceNorm2d(2 * w), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(2 * w, 4 * w, 4, 2, 1), nn.InstanceNorm2d(4 * w), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(4 * w, 8 * w, 4, 1, 1), nn.InstanceNorm2d(8 * w), nn.LeakyReLU(0.2)),
        nn.Conv2d(8 * w, 1, 4, 1, 1),
    )


def copied(source: nn.Module, target: nn.Module) -> nn.Module:
    """`target` with the weights of `source`: the same convolutions in the same order."""
    pairs = zip(source.parameters(), target.parameters(), strict=True)
    with torch.no_grad():
        for theirs, ours in pairs:
            ours.copy_(theirs)
    return target


def plain_pool(seed: int) -> Callable[[Tensor], Tensor]:
    random = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []

    def query(images: Tensor) -> Tensor:
        shown = []
        for image in images.detach():
            if len(kept) < POOL:
                kept.append(image)
                shown.append(image)
            elif torch.rand((), generator=random).item() > 0.5:
                index = int(torch.randint(POOL, (), generator=random))
                shown.append(kept[index])
                kept[index] = image
            else:
                shown.append(image)
        return torch.stack(shown)

    return query


def textbook(
    networks: list[nn.Module], batches: list[tuple[Tensor, ...]], gan: GanKind, identity: bool
) -> list[dict[str, float]]:
    g_ab, g_ba, d_a, d_b = networks
    adam_g = torch.optim.Adam(
        itertools.chain(g_ab.parameters(), g_ba.parameters()), lr=2e-4, betas=(0.5, 0.999)
    )
    adam_d = torch.optim.Adam(
        itertools.chain(d_a.parameters(), d_b.parameters()), lr=2e-4, betas=(0.5, 0.999)
    )
    pool_a, pool_b = plain_pool(7), plain_pool(8)
    loss = nn.MSELoss() if gan == "lsgan" else nn.BCEWithLogitsLoss()

    def says(logits: Tensor, value: float) -> Tensor:
        return loss(logits, torch.full_like(logits, value))  # type: ignore[no-any-return]

    history = []
    for real_a, real_b in batches:
        fake_b, fake_a = g_ab(real_a), g_ba(real_b)
        out = {
            "g_ab": says(d_b(fake_b), 1.0),
            "g_ba": says(d_a(fake_a), 1.0),
            "cycle_a": F.l1_loss(g_ba(fake_b), real_a) * 10,
            "cycle_b": F.l1_loss(g_ab(fake_a), real_b) * 10,
        }
        if identity:
            out["identity_a"] = F.l1_loss(g_ba(real_a), real_a) * 10 * 0.5
            out["identity_b"] = F.l1_loss(g_ab(real_b), real_b) * 10 * 0.5
        out["generators"] = torch.stack(list(out.values())).sum()
        adam_g.zero_grad()
        torch.autograd.backward(out["generators"])
        adam_g.step()

        adam_d.zero_grad()
        old_a, old_b = pool_a(fake_a), pool_b(fake_b)
        out["d_a"] = (says(d_a(real_a), 1.0) + says(d_a(old_a), 0.0)) * 0.5
        out["d_b"] = (says(d_b(real_b), 1.0) + says(d_b(old_b), 0.0)) * 0.5
        torch.autograd.backward(out["d_a"])
        torch.autograd.backward(out["d_b"])
        adam_d.step()
        out["discriminators"] = out["d_a"] + out["d_b"]
        history.append({name: value.item() for name, value in out.items()})
    return history


@pytest.mark.parametrize(
    ("gan", "bands_b", "masked", "joined"),
    [
        ("lsgan", BANDS, False, False),
        ("lsgan", BANDS, False, True),
        ("lsgan", BANDS, True, False),
        ("lsgan", BANDS, True, True),
        ("vanilla", BANDS + 2, False, False),
        ("vanilla", BANDS + 2, False, True),
    ],
)
def test_ten_steps_equal_the_textbook(
    gan: GanKind, bands_b: int, masked: bool, joined: bool
) -> None:
    """With all bands shared, and with A ≠ B without identity; a full mask changes nothing.

    Masked sums and joined passes round differently, which ten steps of Adam amplify: so these cases
    run in double.
    """
    torch.manual_seed(0)
    dtype = torch.double if masked or joined else torch.float
    generator_ab = ResNetGenerator(BANDS, bands_b, width=WIDTH, blocks=2)
    generator_ba = ResNetGenerator(bands_b, BANDS, width=WIDTH, blocks=2)
    discriminator_a = PatchDiscriminator(BANDS, width=WIDTH)
    discriminator_b = PatchDiscriminator(bands_b, width=WIDTH)
    identity = bands_b == BANDS
    plain = [
        copied(generator_ab, plain_generator(BANDS, bands_b, WIDTH)),
        copied(generator_ba, plain_generator(bands_b, BANDS, WIDTH)),
        copied(discriminator_a, plain_discriminator(BANDS, WIDTH)),
        copied(discriminator_b, plain_discriminator(bands_b, WIDTH)),
    ]
    method = CycleGAN(
        generator_ab,
        generator_ba,
        discriminator_a,
        discriminator_b,
        CycleGANConfig(gan_loss=gan, pool_size=POOL),
        shared_bands=[(band, band) for band in range(BANDS)] if identity else [],
        seed=7,
    )
    method.joined = joined
    for network in (method, *plain):
        network.to(dtype)
    batches = [
        tuple(torch.rand(2, bands, 32, 32, dtype=dtype) * 2 - 1 for bands in (BANDS, bands_b))
        for _ in range(10)
    ]
    expected = textbook(plain, batches, gan, identity)
    optimizers = method.optimizers()
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool) if masked else None
    for (a, b), theirs in zip(batches, expected, strict=True):
        ours = method.step(Batch(a, b, valid, valid), optimizers, torch.autograd.backward)
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert ours[name].item() == pytest.approx(value, abs=1e-5), name
