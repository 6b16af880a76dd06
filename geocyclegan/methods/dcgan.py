"""DCGAN: images of one domain from noise.

Source: Radford, Metz, Chintala, ICLR 2016; the networks are in `models.dcgan`. Real chips with
nodata would be told from made ones by their holes, so the made ones are given the holes of the
batch's real ones before they are judged, and a verdict counts by the valid share of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geocyclegan.catalogue import Direction
from geocyclegan.errors import OptionError
from geocyclegan.methods.adversary import descend, frozen
from geocyclegan.methods.base import Batch, Method, Shown, zero_invalid
from geocyclegan.methods.losses import GanKind, GanLoss
from geocyclegan.methods.networks import NetworkSpec, check_numbers, config_of
from geocyclegan.models.dcgan import SceneJudge, SceneMaker, seeded_noise

_SHOWN = 3


@dataclass(frozen=True)
class DcganConfig:
    """Numbers of the method; the defaults are those of the paper.

    Args:
        gan_loss: "vanilla" or another of `losses.GAN_KINDS` but "wgan-gp".
        noise: numbers that an image is made of.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    gan_loss: GanKind = "vanilla"
    noise: int = 100
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(self, ())
        if self.gan_loss == "wgan-gp":
            raise OptionError(
                "gan_loss is 'wgan-gp', whose penalty is of each image by itself; dcgan's judge"
                " normalises over the batch"
            )
        if self.noise < 1:
            raise OptionError(f"noise is {self.noise}; expected 1 or more")


class Dcgan(Method):
    """The networks, their losses and one step.

    Args:
        maker: from noise to images of domain A.
        judge: says whether an image is real.
        config: numbers of the method.
    """

    def __init__(
        self, maker: SceneMaker, judge: SceneJudge, config: DcganConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or DcganConfig()
        self.maker: nn.Module = maker
        self.judge: nn.Module = judge
        self.gan_loss = GanLoss(self.config.gan_loss)

    @classmethod
    def build(cls, networks: NetworkSpec, options: Mapping[str, Any]) -> Dcgan:
        """Make it with fresh networks.

        Raises:
            OptionError: an option is not known, or is out of range.
        """
        config = config_of(DcganConfig, "dcgan", options)
        bands, size = networks.bands_a, networks.crop
        maker = SceneMaker(
            bands, size=size, width=networks.generator_args.get("width", 64), noise=config.noise
        )
        judge = SceneJudge(bands, size=size, width=networks.discriminator_args.get("width", 64))
        return cls(maker, judge, config)

    def generators(self) -> dict[Direction, nn.Module]:
        """None: nothing is translated."""
        return {}

    def makers(self) -> dict[str, nn.Module]:
        """What makes images of domain A."""
        return {"a": self.maker}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for each network."""
        networks = {"discriminators": self.judge, "generators": self.maker}
        betas = (self.config.beta1, self.config.beta2)
        return {
            name: Adam(network.parameters(), lr=self.config.lr, betas=betas)
            for name, network in networks.items()
        }

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update the judge on real and made images, then the maker against it.

        Args:
            batch: what to learn from; only domain A is looked at.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            d_real, d_fake and their sum `discriminators`; g, which is `generators`.
        """
        real, valid = batch.side("a")
        noise = torch.randn(real.shape[0], self.config.noise, device=real.device)
        fake = zero_invalid(self.maker(noise), valid)
        share = _share(valid)
        judged = {
            "d_real": self.gan_loss(self.judge(real), True, share),
            "d_fake": self.gan_loss(self.judge(fake.detach()), False, share),
        }
        total = judged["d_real"] + judged["d_fake"]
        descend(optimizers["discriminators"], total, backward)
        with frozen(self.judge):
            loss = self.gan_loss.fooled(self.judge(fake), share)
            descend(optimizers["generators"], loss, backward)
        losses = {"g": loss, "generators": loss, **judged, "discriminators": total}
        return {name: each.detach() for name, each in losses.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """What the judge says of images that it never saw, as a share from 0 (made) to 1 (real).

        Returns:
            Scalars judged_real, judged_fake. Where the first falls towards the second, the judge
            has memorised its training chips.
        """
        real, valid = batch.side("a")
        noise = seeded_noise(0, real.shape[0], self.config.noise).to(real.device)
        with self.evaluating():
            fake = zero_invalid(self.maker(noise), valid)
            return {
                "judged_real": torch.sigmoid(self.judge(real).float()).mean(),
                "judged_fake": torch.sigmoid(self.judge(fake).float()).mean(),
            }

    def show(self, batch: Batch) -> list[list[Shown]]:
        """A real image, and made ones of the same noise each time."""
        real, valid = batch.side("a")
        noise = seeded_noise(0, _SHOWN, self.config.noise).to(real.device)
        with self.evaluating():
            made = self.maker(noise)
        fakes = [Shown("a", made[i : i + 1], f"made {i}") for i in range(_SHOWN)]
        return [[Shown("a", real, "A", valid), *fakes]]


def _share(valid: Tensor | None) -> Tensor | None:
    """Valid share of each image (samples, 1, 1, 1)."""
    return None if valid is None else valid.float().mean(dim=(2, 3), keepdim=True)
