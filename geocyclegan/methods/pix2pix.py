"""pix2pix: one generator, taught by pairs and by a judge that sees both sides of a pair.

Source: Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks",
CVPR 2017. The objective is the adversarial loss of a discriminator that looks at the source beside
the target, plus 100 times the mean absolute error. Here norm layers normalise each image, which is
what batch norm does at the paper's batch of one; U-Net generators drop inner features while they
train, as in the paper, and not afterwards, so that a product is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geocyclegan.catalogue import Direction
from geocyclegan.errors import BundleError, OptionError
from geocyclegan.methods.adversary import Adversary, descend, frozen, sum_of
from geocyclegan.methods.base import Assessed, Batch, Method, Shown, ends, zero_invalid
from geocyclegan.methods.losses import GanKind, masked_l1
from geocyclegan.methods.networks import NetworkSpec, check_numbers, config_of
from geocyclegan.methods.pool import ImagePool
from geocyclegan.models import Discriminator, build_discriminator, build_generator
from geocyclegan.models.registry import generators


@dataclass(frozen=True)
class Pix2PixConfig:
    """Numbers of the method; the defaults are those of the paper.

    Args:
        direction: which way to translate, "a2b" or "b2a".
        gan_loss: "vanilla" or another of `losses.GAN_KINDS`.
        gradient_penalty: weight of the penalty of "wgan-gp"; None: 10, as in its paper.
        lambda_l1: weight of the mean absolute error.
        pool_size: earlier translations kept for the discriminator, each with its source; 0: none.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    direction: Direction = "a2b"
    gan_loss: GanKind = "vanilla"
    gradient_penalty: float | None = None
    lambda_l1: float = 100.0
    pool_size: int = 0
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(self, ("lambda_l1", "pool_size"))
        if self.direction not in ("a2b", "b2a"):
            raise OptionError(f"direction is {self.direction!r}; choose one of: a2b, b2a")
        # What it has to say about its numbers, before any network is built.
        self.adversary()

    def adversary(self) -> Adversary:
        """The adversarial loss."""
        return Adversary(self.gan_loss, self.gradient_penalty)


class Pix2Pix(Method):
    """The generator, the conditional discriminator and one step.

    Args:
        generator: source → target, called as `generator(x, valid)`.
        discriminator: judges images of the source's bands followed by the target's.
        config: numbers of the method.
        seed: of the image pool.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Discriminator,
        config: Pix2PixConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config or Pix2PixConfig()
        self.generator = generator
        self.discriminator = discriminator
        self.adversary = self.config.adversary()
        self.pool = ImagePool(self.config.pool_size, seed)

    @classmethod
    def build(cls, networks: NetworkSpec, options: Mapping[str, Any]) -> Pix2Pix:
        """Make it with fresh networks.

        Raises:
            OptionError: a name or an option is not known, or is out of range.
        """
        config = config_of(Pix2PixConfig, "pix2pix", options)
        source, target, _ = ends(config.direction)
        bands = networks.bands(source), networks.bands(target)
        args = dict(networks.generator_args)
        name = networks.generator
        if name in generators and generators.takes(name, "dropout"):
            args["dropout"] = True
        return cls(
            build_generator(name, in_channels=bands[0], out_channels=bands[1], **args),
            build_discriminator(
                networks.discriminator, in_channels=sum(bands), **networks.discriminator_args
            ),
            config,
            networks.seed,
        )

    def generators(self) -> dict[Direction, nn.Module]:
        """The one generator."""
        return {self.config.direction: self.generator}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for the generator, Adam for the discriminator."""
        pairs = {"generators": self.generator, "discriminators": self.discriminator}
        betas = (self.config.beta1, self.config.beta2)
        return {
            name: Adam(network.parameters(), lr=self.config.lr, betas=betas)
            for name, network in pairs.items()
        }

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update the generator against a frozen discriminator, then this one.

        Args:
            batch: pairs.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            g (adversarial), l1 and their sum `generators`; d, which is `discriminators`.
        """
        source, target, valid = self._sides(batch)
        fake = zero_invalid(self.generator(source, valid), valid)
        with frozen(self.discriminator):
            losses = {
                "g": self.adversary.fooled(self.discriminator, (_beside(source, fake), valid)),
                "l1": masked_l1(fake, target, valid) * self.config.lambda_l1,
            }
            total = sum_of(losses)
            descend(optimizers["generators"], total, backward)

        shown = self.pool.query(_beside(source, fake), valid)
        judged = self.adversary.error(self.discriminator, (_beside(source, target), valid), shown)
        descend(optimizers["discriminators"], judged, backward)
        losses |= {"generators": total, "d": judged, "discriminators": judged}
        return {name: loss.detach() for name, loss in losses.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Mean absolute error against the truth.

        Returns:
            l1, a scalar in levels, without its weight.
        """
        return self.assess(batch, apart=False).errors[0]

    def assess(self, batch: Batch, *, apart: bool) -> Assessed:
        """Error and translation in one go, see `Method.assess`."""
        source, target, valid = self._sides(batch)
        with self.evaluating():
            made = self.generator(source, valid)
        errors = [
            {"l1": masked_l1(made[i], target[i], None if valid is None else valid[i])}
            for i in batch.parts(apart)
        ]
        way = self.config.direction
        # Where both masks are one, what is translated here is what is translated on its own.
        if batch.valid_a is batch.valid_b:
            return Assessed(errors, {way: zero_invalid(made, valid)})
        return Assessed(errors, {way: self.translate(*batch.side(ends(way)[0]), way)})

    def show(self, batch: Batch) -> list[list[Shown]]:
        """An image, its translation and the truth."""
        row = super().show(batch)[0]
        home, away, _ = ends(self.config.direction)
        truth, valid = batch.side(away)
        return [[*row, Shown(away, truth, f"{away.upper()} of {home.upper()}", valid)]]

    def extra_state(self) -> dict[str, Any]:
        """The image pool."""
        return {"pool": self.pool.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `extra_state` gave.

        Raises:
            BundleError: the pool is missing or does not fit.
        """
        if "pool" not in state:
            raise BundleError("pool is missing in the checkpoint; it is of another method")
        self.pool.load_state_dict(state["pool"])

    def _sides(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source, target, and where both are valid."""
        home, away, _ = ends(self.config.direction)
        (source, valid), (target, valid_target) = batch.side(home), batch.side(away)
        if valid is None or valid_target is None:
            return source, target, valid_target if valid is None else valid
        return source, target, valid & valid_target


def _beside(source: Tensor, target: Tensor) -> Tensor:
    """What the discriminator sees: the bands of both."""
    return torch.cat([source, target], dim=1)
