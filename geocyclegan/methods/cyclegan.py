"""CycleGAN: two generators that undo each other, and a discriminator for each domain.

Source: Zhu, Park, Isola, Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", ICCV 2017. All that nodata touches is left out: losses, the statistics of
norm layers, and patches that the discriminators judge. Where all pixels are valid and the domains
have the same bands, a step is the canonical one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geocyclegan.errors import BundleError, OptionError
from geocyclegan.methods.adversary import Adversary, Images, sum_of
from geocyclegan.methods.base import Batch, Direction, Method, zero_invalid
from geocyclegan.methods.cycle import CycleTerms
from geocyclegan.methods.hints import PairHints
from geocyclegan.methods.losses import GanKind, masked_l1
from geocyclegan.methods.networks import NetworkSpec, check_numbers, config_of
from geocyclegan.methods.pool import ImagePool
from geocyclegan.models import Discriminator, build_discriminator, build_generator


@dataclass(frozen=True)
class CycleGANConfig:
    """Numbers of the method; the defaults are those of the paper.

    Args:
        gan_loss: "lsgan", "vanilla", "hinge" or "wgan-gp".
        gradient_penalty: weight of the penalty of "wgan-gp"; None: 10, as in its paper.
        lambda_a: weight of the cycle A → B → A.
        lambda_b: weight of the cycle B → A → B.
        identity: weight of the identity loss relative to the cycle of the same domain; 0: off.
        cycle_critic: weight of the judgement of two critics, which tell images from what two
            translations make of them; 0: there are none.
        cycle_features: share of the cycle, at the end, that compares discriminator features.
        cycle_end: share of the cycle's weight that is left at the end of training.
        gradient_loss: weight of the gradient difference of cycles and pairs, relative to theirs.
        angle_loss: weight of the spectral angle of cycles and pairs, relative to theirs.
        pair_weight: weight of pair hints.
        weak_weight: weight of weak pairs.
        pool_size: images kept for each discriminator; 0: none.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    gan_loss: GanKind = "lsgan"
    gradient_penalty: float | None = None
    lambda_a: float = 10.0
    lambda_b: float = 10.0
    identity: float = 0.5
    cycle_critic: float = 0.0
    cycle_features: float = 0.0
    cycle_end: float = 1.0
    gradient_loss: float = 0.0
    angle_loss: float = 0.0
    pair_weight: float | None = None
    weak_weight: float | None = None
    pool_size: int = 50
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(self, ("lambda_a", "lambda_b", "identity", "cycle_critic", "pool_size"))
        # What they have to say about their numbers, before any network is built.
        self.adversary(), self.cycle_terms(), self.pair_hints()

    def adversary(self) -> Adversary:
        """The adversarial loss."""
        return Adversary(self.gan_loss, self.gradient_penalty)

    def cycle_terms(self) -> CycleTerms:
        """What a cycle is measured by."""
        return CycleTerms(self.cycle_features, self.cycle_end, self.gradient_loss, self.angle_loss)

    def pair_hints(self) -> PairHints:
        """How much pairs count."""
        return PairHints(
            self.pair_weight or 0.0, self.gradient_loss, self.angle_loss, self.weak_weight or 0.0
        )


class CycleGAN(Method):
    """The networks, their losses and one step.

    The identity loss runs over the bands that both domains share. A real image of B is put into
    A's channels (those that B lacks are 0) and should leave G_AB as it is in the shared bands of B;
    likewise for A and G_BA. With all bands shared in the same order that is the canonical loss.

    Args:
        generator_ab: A → B, called as `generator(x, valid)`; has `in_channels`, `out_channels`.
        generator_ba: B → A.
        discriminator_a: judges images of A.
        discriminator_b: judges images of B.
        config: numbers of the method.
        shared_bands: pairs (index in A, index in B); empty: no identity loss.
        seed: of the image pools.
        critics: judge what two translations make of images of A and of B; None: there are none.

    Raises:
        OptionError: bands do not fit or do not exist, or critics are weighted and missing.
    """

    def __init__(
        self,
        generator_ab: nn.Module,
        generator_ba: nn.Module,
        discriminator_a: Discriminator,
        discriminator_b: Discriminator,
        config: CycleGANConfig | None = None,
        shared_bands: Sequence[tuple[int, int]] = (),
        seed: int = 0,
        critics: tuple[Discriminator, Discriminator] | None = None,
    ) -> None:
        super().__init__()
        self.config = config or CycleGANConfig()
        if self.config.cycle_critic > 0 and critics is None:
            raise OptionError(
                f"cycle_critic is {self.config.cycle_critic} and there are no critics"
            )
        self.cycle = self.config.cycle_terms()
        self.hints = self.config.pair_hints()
        self.progress = 0.0
        self.generator_ab = generator_ab
        self.generator_ba = generator_ba
        self.discriminator_a = discriminator_a
        self.discriminator_b = discriminator_b
        if critics is not None:
            self.critic_a, self.critic_b = critics
        self.adversary = self.config.adversary()
        self.shared_bands = tuple(shared_bands)
        self.bands_a, self.bands_b = _bands(generator_ab, generator_ba)
        for index_a, index_b in self.shared_bands:
            if not (0 <= index_a < self.bands_a and 0 <= index_b < self.bands_b):
                raise OptionError(
                    f"shared bands {index_a} of A and {index_b} of B: the domains have "
                    f"{self.bands_a} and {self.bands_b} bands"
                )
        self.pool_a = ImagePool(self.config.pool_size, seed)
        self.pool_b = ImagePool(self.config.pool_size, seed + 1)

    @classmethod
    def build(cls, networks: NetworkSpec, options: Mapping[str, Any]) -> CycleGAN:
        """Make it with fresh networks.

        Raises:
            OptionError: a name or an option is not known, or is out of range.
        """
        config = config_of(CycleGANConfig, "cyclegan", options)
        a, b = networks.bands_a, networks.bands_b
        if config.angle_loss > 0 and max(a, b) == 1:
            raise OptionError(
                f"angle_loss is {config.angle_loss}, and a spectrum needs two bands or more; both"
                " domains have one"
            )
        generator, generator_args = networks.generator, networks.generator_args
        judge, judge_args = networks.discriminator, networks.discriminator_args
        critics = None
        if config.cycle_critic > 0:
            critics = (
                build_discriminator(judge, in_channels=a, **judge_args),
                build_discriminator(judge, in_channels=b, **judge_args),
            )
        return cls(
            build_generator(generator, in_channels=a, out_channels=b, **generator_args),
            build_generator(generator, in_channels=b, out_channels=a, **generator_args),
            build_discriminator(judge, in_channels=a, **judge_args),
            build_discriminator(judge, in_channels=b, **judge_args),
            config,
            networks.shared_bands,
            networks.seed,
            critics,
        )

    def generators(self) -> dict[Direction, nn.Module]:
        """The generators by direction."""
        return {"a2b": self.generator_ab, "b2a": self.generator_ba}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for both generators, Adam for both discriminators and, where there are, critics."""
        groups = {
            "generators": (self.generator_ab, self.generator_ba),
            "discriminators": self._judges(),
        }
        betas = (self.config.beta1, self.config.beta2)
        return {
            name: Adam(
                chain.from_iterable(network.parameters() for network in networks),
                lr=self.config.lr,
                betas=betas,
            )
            for name, networks in groups.items()
        }

    def set_progress(self, share: float) -> None:
        """Take notice of how far training is, which the weights of the cycle follow."""
        self.progress = share

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update the generators against frozen discriminators, then these on pooled fakes.

        Args:
            batch: what to learn from.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            g_ab, g_ba (adversarial), cycle_a, cycle_b and, where on, identity_a, identity_b, the
            other terms of the cycle (`CycleTerms`), back_a, back_b (adversarial, from the critics)
            and those of pairs (`PairHints`); their sum `generators`; d_a, d_b, critic_a, critic_b
            where there are critics, and their sum `discriminators`. Detached, weighted as in the
            sums.
        """
        self._require_judges_grad(False)
        losses, images = self._generator_losses(batch)
        total = sum_of(losses)
        optimizers["generators"].zero_grad(set_to_none=True)
        backward(total)
        optimizers["generators"].step()
        self._require_judges_grad(True)

        # A fake is valid where the image that it was made from is.
        judged = {
            "d_a": self._error(
                self.discriminator_a,
                (batch.a, batch.valid_a),
                self.pool_a.query(images.fake_a, batch.valid_b),
            ),
            "d_b": self._error(
                self.discriminator_b,
                (batch.b, batch.valid_b),
                self.pool_b.query(images.fake_b, batch.valid_a),
            ),
        }
        if self.config.cycle_critic > 0:
            judged["critic_a"] = self._error(
                self.critic_a, (batch.a, batch.valid_a), (images.back_a.detach(), batch.valid_a)
            )
            judged["critic_b"] = self._error(
                self.critic_b, (batch.b, batch.valid_b), (images.back_b.detach(), batch.valid_b)
            )
        total_judged = sum_of(judged)
        optimizers["discriminators"].zero_grad(set_to_none=True)
        backward(total_judged)
        optimizers["discriminators"].step()

        losses |= {"generators": total, **judged, "discriminators": total_judged}
        return {name: loss.detach() for name, loss in losses.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Mean absolute errors over valid pixels, in levels, without weights.

        Returns:
            Scalars cycle_a, cycle_b; identity_a, identity_b where the domains share bands.
        """
        with self.evaluating():
            images, same = self._translate_twice(batch, bool(self.shared_bands))
            errors = {
                "cycle_a": masked_l1(images.back_a, batch.a, batch.valid_a),
                "cycle_b": masked_l1(images.back_b, batch.b, batch.valid_b),
            }
            if same is not None:
                errors |= self._identities(batch, *same)
        return errors

    def extra_state(self) -> dict[str, Any]:
        """The image pools."""
        return {"pool_a": self.pool_a.state_dict(), "pool_b": self.pool_b.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `extra_state` gave.

        Raises:
            BundleError: a pool is missing or does not fit.
        """
        for name, pool in (("pool_a", self.pool_a), ("pool_b", self.pool_b)):
            if name not in state:
                raise BundleError(f"{name} is missing in the checkpoint; it is of another method")
            pool.load_state_dict(state[name])

    def _generator_losses(self, batch: Batch) -> tuple[dict[str, Tensor], Translated]:
        """Weighted losses of the generators, and what these made of the batch."""
        config = self.config
        has_identity = bool(self.shared_bands) and config.identity > 0
        images, same = self._translate_twice(batch, has_identity)
        losses = {
            "g_ab": self.adversary.fooled(self.discriminator_b, (images.fake_b, batch.valid_a)),
            "g_ba": self.adversary.fooled(self.discriminator_a, (images.fake_a, batch.valid_b)),
            **self.cycle.losses(
                *("a", batch.a, images.back_a, batch.valid_a),
                weight=config.lambda_a,
                progress=self.progress,
                discriminator=self.discriminator_a,
            ),
            **self.cycle.losses(
                *("b", batch.b, images.back_b, batch.valid_b),
                weight=config.lambda_b,
                progress=self.progress,
                discriminator=self.discriminator_b,
            ),
        }
        if same is not None:
            identities = self._identities(batch, *same)
            losses["identity_a"] = identities["identity_a"] * (config.lambda_a * config.identity)
            losses["identity_b"] = identities["identity_b"] * (config.lambda_b * config.identity)
        if config.cycle_critic > 0:
            on_a = self.adversary.fooled(self.critic_a, (images.back_a, batch.valid_a))
            on_b = self.adversary.fooled(self.critic_b, (images.back_b, batch.valid_b))
            losses |= {"back_a": on_a * config.cycle_critic, "back_b": on_b * config.cycle_critic}
        losses |= self.hints.losses(self.generators(), batch)
        return losses, images

    def _translate_twice(
        self, batch: Batch, has_identity: bool
    ) -> tuple[Translated, tuple[Tensor, Tensor] | None]:
        """Both domains' images there and back, 0 where not valid.

        With `has_identity` also what each domain's own generator makes of A and of B.
        """
        first_a, first_b = (batch.a, batch.valid_a), (batch.b, batch.valid_b)
        into_b, into_a = [first_a], [first_b]
        if has_identity:
            in_a, in_b = zip(*self.shared_bands, strict=True)
            into_b.append((_placed(batch.b, [*in_b], [*in_a], self.bands_a), batch.valid_b))
            into_a.append((_placed(batch.a, [*in_a], [*in_b], self.bands_b), batch.valid_a))
        made_b = self.through(self.generator_ab, into_b)
        made_a = self.through(self.generator_ba, into_a)
        same = (made_a[1], made_b[1]) if has_identity else None
        fake_b = zero_invalid(made_b[0], batch.valid_a)
        fake_a = zero_invalid(made_a[0], batch.valid_b)
        back_a = zero_invalid(self.generator_ba(fake_b, batch.valid_a), batch.valid_a)
        back_b = zero_invalid(self.generator_ab(fake_a, batch.valid_b), batch.valid_b)
        return Translated(fake_a, fake_b, back_a, back_b), same

    def _identities(self, batch: Batch, same_a: Tensor, same_b: Tensor) -> dict[str, Tensor]:
        """Distance of each domain's images from what their own domain's generator makes of them."""
        in_a = [index_a for index_a, _ in self.shared_bands]
        in_b = [index_b for _, index_b in self.shared_bands]
        return {
            "identity_a": masked_l1(_only(same_a, in_a), _only(batch.a, in_a), batch.valid_a),
            "identity_b": masked_l1(_only(same_b, in_b), _only(batch.b, in_b), batch.valid_b),
        }

    def _error(self, discriminator: Discriminator, real: Images, fake: Images) -> Tensor:
        """Loss of a discriminator, which sees both in one pass where that changes nothing."""
        logits = self.through(discriminator, [real, fake])
        return self.adversary.error(discriminator, real, fake, logits)

    def _judges(self) -> list[nn.Module]:
        """The discriminators and, where there are, the critics of what comes back."""
        judges: list[nn.Module] = [self.discriminator_a, self.discriminator_b]
        if self.config.cycle_critic > 0:
            judges += [self.critic_a, self.critic_b]
        return judges

    def _require_judges_grad(self, required: bool) -> None:
        """Freeze or release the discriminators, which saves their gradients in the first half."""
        for judge in self._judges():
            judge.requires_grad_(required)


@dataclass(frozen=True)
class Translated:
    """What the generators made of a batch.

    Attributes:
        fake_a: images of B translated to A (samples, bands of A, height, width), 0 where not valid.
        fake_b: images of A translated to B (samples, bands of B, height, width), 0 where not valid.
        back_a: images of A translated to B and back, of the shape of the batch's `a`.
        back_b: images of B translated to A and back, of the shape of the batch's `b`.
    """

    fake_a: Tensor
    fake_b: Tensor
    back_a: Tensor
    back_b: Tensor


def _bands(generator_ab: nn.Module, generator_ba: nn.Module) -> tuple[int, int]:
    """Bands of A and of B, on which both generators must agree."""
    a, b = generator_ab.in_channels, generator_ab.out_channels
    b_back, a_back = generator_ba.in_channels, generator_ba.out_channels
    if not isinstance(a, int) or not isinstance(b, int) or (a, b) != (a_back, b_back):
        raise OptionError(
            f"generators of {a} → {b} and {b_back} → {a_back} bands: "
            "expected the second to lead back to where the first began"
        )
    return a, b


def _placed(images: Tensor, source: list[int], target: list[int], bands: int) -> Tensor:
    """Images whose `source` bands lie in the `target` bands of another domain; the rest is 0."""
    if source == target == list(range(bands)) and images.shape[1] == bands:
        return images
    found = dict(zip(target, source, strict=True))
    nothing = torch.zeros_like(images[:, :1])
    return torch.cat(
        [images.narrow(1, found[i], 1) if i in found else nothing for i in range(bands)], dim=1
    )


def _only(images: Tensor, bands: list[int]) -> Tensor:
    """Some bands of images; a list as an index would have to be copied to a GPU, which waits."""
    if bands == list(range(images.shape[1])):
        return images
    return torch.cat([images.narrow(1, band, 1) for band in bands], dim=1)
