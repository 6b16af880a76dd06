"""CUT and FastCUT: one generator, held to its source by a contrastive loss instead of a way back.

Source: Park, Efros, Zhang, Zhu, "Contrastive Learning for Unpaired Image-to-Image Translation",
ECCV 2020. Half the networks of CycleGAN. `cut` also asks that images of the target domain keep
their content; `fastcut` leaves that out, weighs the contrastive loss more, and asks that a mirrored
image gives the mirrored translation. What happens where source and target have different numbers of
bands is said in `patchnce`; the identity then runs through the stem for the target's bands, so that
it is an identity of content.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geocyclegan.catalogue import Direction
from geocyclegan.errors import OptionError
from geocyclegan.methods.adversary import Adversary, Images, descend, frozen, sum_of
from geocyclegan.methods.base import Assessed, Batch, Method, ends, zero_invalid
from geocyclegan.methods.hints import PairHints
from geocyclegan.methods.losses import GanKind
from geocyclegan.methods.networks import NetworkSpec, check_numbers, config_of
from geocyclegan.methods.patchnce import PatchEncoder, choose_places, patch_nce
from geocyclegan.models import Discriminator, Generator, build_discriminator, build_generator


@dataclass(frozen=True)
class CutConfig:
    """Numbers of the method; the defaults are those of CUT.

    Args:
        direction: which way to translate, "a2b" or "b2a".
        gan_loss: "lsgan" or another of `losses.GAN_KINDS`.
        gradient_penalty: weight of the penalty of "wgan-gp"; None: 10, as in its paper.
        lambda_nce: weight of the contrastive loss.
        nce_identity: ask it of images of the target domain, too, half and half.
        flip_equivariance: mirror half of the sources, and compare with the source unmirrored.
        patches: places that are compared in each image and layer.
        temperature: what similarities are divided by.
        pair_weight: weight of pair hints; None: there are no pairs.
        weak_weight: weight of weak pairs; None: there are none.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    direction: Direction = "a2b"
    gan_loss: GanKind = "lsgan"
    gradient_penalty: float | None = None
    lambda_nce: float = 1.0
    nce_identity: bool = True
    flip_equivariance: bool = False
    patches: int = 256
    temperature: float = 0.07
    pair_weight: float | None = None
    weak_weight: float | None = None
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(self, ("lambda_nce",))
        if self.direction not in ("a2b", "b2a"):
            raise OptionError(f"direction is {self.direction!r}; choose one of: a2b, b2a")
        if self.patches < 2:
            raise OptionError(f"patches is {self.patches}; expected 2 or more")
        if not 0 < self.temperature < math.inf:
            raise OptionError(
                f"temperature is {self.temperature}; expected a finite number above 0"
            )
        # What they have to say about their numbers, before any network is built.
        self.adversary(), self.pair_hints()

    def adversary(self) -> Adversary:
        """The adversarial loss."""
        return Adversary(self.gan_loss, self.gradient_penalty)

    def pair_hints(self) -> PairHints:
        """How much pairs count."""
        return PairHints(self.pair_weight or 0.0, weak=self.weak_weight or 0.0)


class Cut(Method):
    """The networks, their losses and one step.

    Args:
        generator: source → target, a plan.
        discriminator: judges images of the target domain.
        config: numbers of the method.

    Raises:
        OptionError: the generator's layers cannot be looked into.
    """

    def __init__(
        self, generator: Generator, discriminator: Discriminator, config: CutConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or CutConfig()
        self.generator: nn.Module = generator
        self.discriminator = discriminator
        self.encoder = PatchEncoder(generator)
        self.adversary = self.config.adversary()
        self.hints = self.config.pair_hints()

    @classmethod
    def build(cls, name: str, networks: NetworkSpec, options: Mapping[str, Any]) -> Cut:
        """Make it with fresh networks.

        Args:
            name: "cut" or "fastcut", for messages.
            networks: domains and architectures.
            options: numbers of the method.

        Raises:
            OptionError: a name or an option is not known, is out of range, or does not fit.
        """
        config = config_of(CutConfig, name, options)
        source, target, _ = ends(config.direction)
        bands_in, bands_out = networks.bands(source), networks.bands(target)
        generator = build_generator(
            networks.generator,
            in_channels=bands_in,
            out_channels=bands_out,
            **networks.generator_args,
        )
        judge_ = build_discriminator(
            networks.discriminator, in_channels=bands_out, **networks.discriminator_args
        )
        try:
            return cls(generator, judge_, config)
        except OptionError as error:
            raise OptionError(
                f"--generator {networks.generator} with --method {name}: {error}"
            ) from error

    def generators(self) -> dict[Direction, nn.Module]:
        """The one generator."""
        return {self.config.direction: self.generator}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for the generator and what reads its patches, Adam for the discriminator."""
        weights = {
            "discriminators": self.discriminator.parameters(),
            "generators": chain(self.generator.parameters(), self.encoder.parameters()),
        }
        betas = (self.config.beta1, self.config.beta2)
        return {name: Adam(each, lr=self.config.lr, betas=betas) for name, each in weights.items()}

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update the discriminator, then the generator against it.

        Args:
            batch: what to learn from.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            g (adversarial), nce, nce_identity (where on), those of pairs (`PairHints`, one way) and
            their sum `generators`; d, which is `discriminators`.
        """
        config = self.config
        home, away, _ = ends(config.direction)
        source, target = batch.side(home), batch.side(away)
        flipped = config.flip_equivariance and bool(torch.rand(()) < 0.5)
        seen = _mirrored(source) if flipped else source
        fake = zero_invalid(self.generator(*seen), seen[1]), seen[1]

        judged = self.adversary.error(self.discriminator, target, (fake[0].detach(), fake[1]))
        descend(optimizers["discriminators"], judged, backward)

        with frozen(self.discriminator):
            losses = {
                "g": self.adversary.fooled(self.discriminator, fake),
                "nce": self._contrast(source, fake, flipped=flipped) * config.lambda_nce,
            }
            if config.nce_identity:
                same = zero_invalid(self._identity(target), target[1]), target[1]
                kept = self._contrast(target, same, of_target=True) * config.lambda_nce
                losses |= {"nce": losses["nce"] * 0.5, "nce_identity": kept * 0.5}
            losses |= self.hints.losses(self.generators(), batch)
            total = sum_of(losses)
            descend(optimizers["generators"], total, backward)

        losses |= {"generators": total, "d": judged, "discriminators": judged}
        return {name: loss.detach() for name, loss in losses.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """The contrastive loss at the same places each time.

        Returns:
            nce, a scalar without its weight; where nothing is kept of the source, it is the
            logarithm of the number of places.
        """
        return self.assess(batch, apart=False).errors[0]

    def assess(self, batch: Batch, *, apart: bool) -> Assessed:
        """Error and translation in one go, see `Method.assess`."""
        home, _, _ = ends(self.config.direction)
        images, valid = batch.side(home)
        errors = []
        with self.evaluating():
            fake = zero_invalid(self.generator(images, valid), valid)
            for i in batch.parts(apart):
                mask = None if valid is None else valid[i]
                random = torch.Generator(images.device).manual_seed(0)
                error = self._contrast((images[i], mask), (fake[i], mask), random=random)
                errors.append({"nce": error})
        return Assessed(errors, {self.config.direction: fake})

    def _contrast(
        self,
        source: Images,
        made: Images,
        *,
        flipped: bool = False,
        of_target: bool = False,
        random: torch.Generator | None = None,
    ) -> Tensor:
        """How well the places of an image are known again in what was made of it.

        Args:
            source: the image, never mirrored.
            made: what was made of it.
            flipped: whether that was made of the mirrored image.
            of_target: whether the source itself is of the target domain.
            random: where places are drawn from; None: torch's global generator.
        """
        pixels, valid = source
        samples, _, height, width = pixels.shape
        taps = self.encoder.taps
        places = choose_places(
            taps, (samples, height, width), valid, self.config.patches, pixels.device, random
        )
        there = [
            place.mirrored(width // tap.scale) if flipped else place
            for tap, place in zip(taps, places, strict=True)
        ]
        query = self.encoder(made[0], made[1], there, target=True)
        with torch.no_grad():
            key = self.encoder(pixels, valid, places, target=of_target)
        return patch_nce(query, key, places, self.config.temperature)

    def _identity(self, target: Images) -> Tensor:
        """What the generator makes of an image of its target domain."""
        if self.encoder.stem is not None:
            return cast(Tensor, self.encoder(*target, target=True))
        return cast(Tensor, self.generator(*target))


def _mirrored(images: Images) -> Images:
    """Images and mask with left and right swapped."""
    pixels, valid = images
    return pixels.flip(3), None if valid is None else valid.flip(3)
