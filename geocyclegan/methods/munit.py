"""MUNIT: what is in an image apart from how it looks, so that one scene has several translations.

Source: Huang, Liu, Belongie, Kautz, "Multimodal Unsupervised Image-to-Image Translation", ECCV
2018. Each domain has a content encoder, a style encoder and a decoder; contents are shared between
the domains, styles are not. An image must come back from its own content and style; a translation,
made with a style drawn at random, must give back the content and the style that it was made of.
Styles are one vector for an image or a whole scene. What differs from the paper's networks is said
in `models.style`.
"""

from __future__ import annotations

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
from geocyclegan.methods.base import Assessed, Batch, Method, Shown, Side, ends, zero_invalid
from geocyclegan.methods.hints import PairHints
from geocyclegan.methods.losses import GanKind, masked_l1, masked_mean
from geocyclegan.methods.networks import NetworkSpec, check_numbers, config_of
from geocyclegan.models import Discriminator, build_discriminator, build_generator
from geocyclegan.models.style import StyledGenerator, seeded_style
from geocyclegan.models.taps import valid_share

_SIDES: tuple[Side, Side] = ("a", "b")
_WAYS: tuple[tuple[Side, Side], ...] = (("a", "b"), ("b", "a"))
_SHOWN_STYLES = 2
_CONTENT_SCALE = 4


@dataclass(frozen=True)
class MunitConfig:
    """Numbers of the method; the defaults are those of the paper's code.

    Args:
        gan_loss: "lsgan" or another of `losses.GAN_KINDS`.
        gradient_penalty: weight of the penalty of "wgan-gp"; None: 10, as in its paper.
        lambda_image: weight of an image's return from its own content and style.
        lambda_style: weight of the return of a style.
        lambda_content: weight of the return of a content.
        lambda_cycle: weight of an image's return from its translation; 0 in the paper.
        style_dims: length of a style.
        pair_weight: weight of pair hints; None: there are no pairs.
        weak_weight: weight of weak pairs; None: there are none.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.
        weight_decay: of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    gan_loss: GanKind = "lsgan"
    gradient_penalty: float | None = None
    lambda_image: float = 10.0
    lambda_style: float = 1.0
    lambda_content: float = 1.0
    lambda_cycle: float = 0.0
    style_dims: int = 8
    pair_weight: float | None = None
    weak_weight: float | None = None
    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        weights = ("lambda_image", "lambda_style", "lambda_content", "lambda_cycle", "weight_decay")
        check_numbers(self, weights)
        if self.style_dims < 1:
            raise OptionError(f"style_dims is {self.style_dims}; expected 1 or more")
        # What they have to say about their numbers, before any network is built.
        self.adversary(), self.pair_hints()

    def adversary(self) -> Adversary:
        """The adversarial loss."""
        return Adversary(self.gan_loss, self.gradient_penalty)

    def pair_hints(self) -> PairHints:
        """How much pairs count."""
        return PairHints(self.pair_weight or 0.0, weak=self.weak_weight or 0.0)


class Munit(Method):
    """The networks, their losses and one step.

    Args:
        generator_ab: content of A, style and decoder of B.
        generator_ba: content of B, style and decoder of A.
        discriminator_a: judges images of A.
        discriminator_b: judges images of B.
        config: numbers of the method.
    """

    def __init__(
        self,
        generator_ab: StyledGenerator,
        generator_ba: StyledGenerator,
        discriminator_a: Discriminator,
        discriminator_b: Discriminator,
        config: MunitConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or MunitConfig()
        self.generator_ab: nn.Module = generator_ab
        self.generator_ba: nn.Module = generator_ba
        self.discriminator_a = discriminator_a
        self.discriminator_b = discriminator_b
        self.adversary = self.config.adversary()
        self.hints = self.config.pair_hints()

    @classmethod
    def build(cls, networks: NetworkSpec, options: Mapping[str, Any]) -> Munit:
        """Make it with fresh networks.

        Raises:
            OptionError: a name or an option is not known, or is out of range.
        """
        config = config_of(MunitConfig, "munit", options)
        a, b = networks.bands_a, networks.bands_b
        args = {**networks.generator_args, "style_dims": config.style_dims}
        made = [
            build_generator(networks.generator, in_channels=i, out_channels=j, **args)
            for i, j in ((a, b), (b, a))
        ]
        judges = [
            build_discriminator(
                networks.discriminator, in_channels=bands, **networks.discriminator_args
            )
            for bands in (a, b)
        ]
        there, back = cast(list[StyledGenerator], made)
        return cls(there, back, judges[0], judges[1], config)

    def generators(self) -> dict[Direction, nn.Module]:
        """The generators by direction."""
        return {"a2b": self.generator_ab, "b2a": self.generator_ba}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for all encoders and decoders, Adam for both discriminators."""
        pairs = {
            "discriminators": (self.discriminator_a, self.discriminator_b),
            "generators": (self.generator_ab, self.generator_ba),
        }
        config = self.config
        return {
            name: Adam(
                chain(first.parameters(), second.parameters()),
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                weight_decay=config.weight_decay,
            )
            for name, (first, second) in pairs.items()
        }

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update the discriminators, then encoders and decoders against them.

        Args:
            batch: what to learn from.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            For each domain x: g_x (adversarial), image_x, style_x, content_x and, where on,
            cycle_x; those of pairs (`PairHints`); their sum `generators`; d_a, d_b and their sum
            `discriminators`.
        """
        drawn = {side: self._draw(batch.side(side)[0]) for side in _SIDES}
        contents = {side: self._content(side, batch.side(side)) for side in _SIDES}
        fakes = {
            away: self._decode(away, contents[home], drawn[away], batch.side(home)[1])
            for home, away in _WAYS
        }
        judged = {
            f"d_{side}": self.adversary.error(
                self._judge_of(side),
                batch.side(side),
                (fakes[side][0].detach(), fakes[side][1]),
            )
            for side in _SIDES
        }
        total_judged = sum_of(judged)
        descend(optimizers["discriminators"], total_judged, backward)

        with frozen(self.discriminator_a, self.discriminator_b):
            losses: dict[str, Tensor] = {}
            for home, away in _WAYS:
                losses |= self._losses_of(home, away, batch, contents, drawn, fakes)
            losses |= self.hints.losses(self.generators(), batch, self.in_style_of_truth)
            total = sum_of(losses)
            descend(optimizers["generators"], total, backward)

        losses |= {"generators": total, **judged, "discriminators": total_judged}
        return {name: loss.detach() for name, loss in losses.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Mean absolute errors of what must come back, without weights.

        Returns:
            Scalars image_a, image_b, in levels; content_a, content_b, of content that went through
            a translation in the mean style.
        """
        return self.assess(batch, apart=False).errors[0]

    def assess(self, batch: Batch, *, apart: bool) -> Assessed:
        """Errors and translations in one go, see `Method.assess`."""
        parts = batch.parts(apart)
        errors: list[dict[str, Tensor]] = [{} for _ in parts]
        translations: dict[Direction, Tensor] = {}
        with self.evaluating():
            for (home, away), way in zip(_WAYS, self.generators(), strict=True):
                images, valid = batch.side(home)
                content = self._content(home, (images, valid))
                style = self._style(home, (images, valid))
                back, _ = self._decode(home, content, style, valid)
                made = self._decode(away, content, None, valid)
                again = self._content(away, made)
                translations[way] = made[0]
                for i, found in zip(parts, errors, strict=True):
                    mask = None if valid is None else valid[i]
                    found[f"image_{home}"] = masked_l1(back[i], images[i], mask)
                    found[f"content_{home}"] = _content_error(again[i], content[i], mask)
        return Assessed(errors, translations)

    def show(self, batch: Batch) -> list[list[Shown]]:
        """For each domain an image, and its translation in the mean style and in two others."""
        rows: list[list[Shown]] = []
        for direction in self.generators():
            home, away, _ = ends(direction)
            images, valid = batch.side(home)
            way = f"{home.upper()} to {away.upper()}"
            row = [Shown(home, images, home.upper(), valid)]
            row.append(Shown(away, self.translate(images, valid, direction), way, valid))
            for seed in range(1, _SHOWN_STYLES + 1):
                style = seeded_style(seed, self.config.style_dims).to(images.device)
                with self.evaluating():
                    made, _ = self._decode(away, self._content(home, (images, valid)), style, valid)
                row.append(Shown(away, made, f"{way}, seed:{seed}", valid))
            rows.append(row)
        return rows

    def _losses_of(
        self,
        home: Side,
        away: Side,
        batch: Batch,
        contents: Mapping[Side, Tensor],
        drawn: Mapping[Side, Tensor],
        fakes: Mapping[Side, Images],
    ) -> dict[str, Tensor]:
        """Weighted losses of what is made of the images of one domain."""
        config = self.config
        images, valid = batch.side(home)
        own = self._style(home, (images, valid))
        cast(StyledGenerator, self._to(home)).see_styles(own)
        back, _ = self._decode(home, contents[home], own, valid)
        fake = fakes[away]
        content_again = self._content(away, fake)
        losses = {
            f"g_{away}": self.adversary.fooled(self._judge_of(away), fake),
            f"image_{home}": masked_l1(back, images, valid) * config.lambda_image,
            f"style_{away}": (self._style(away, fake) - drawn[away]).abs().float().mean()
            * config.lambda_style,
            f"content_{home}": _content_error(content_again, contents[home], valid)
            * config.lambda_content,
        }
        if config.lambda_cycle > 0:
            returned, _ = self._decode(home, content_again, own, valid)
            losses[f"cycle_{home}"] = masked_l1(returned, images, valid) * config.lambda_cycle
        return losses

    def in_style_of_truth(self, direction: Direction, pairs: Batch) -> Tensor:
        """Translate the images of one side of pairs in the style of the other side's.

        A pair says what is where. How it looks is what the truth's own style is for, as in the
        conditional autoencoder of Zhu et al., "Toward Multimodal Image-to-Image Translation", NIPS
        2017; one style for all images would have to be the mean of all looks.

        Args:
            direction: "a2b" or "b2a".
            pairs: images of both domains that show the same places.

        Returns:
            Images (samples, bands of the target domain, height, width) in [−1, 1], 0 where the
            source is not valid.
        """
        home, away, _ = ends(direction)
        content = self._content(home, pairs.side(home))
        style = self._style(away, pairs.side(away))
        made, _ = self._decode(away, content, style, pairs.side(home)[1])
        return made

    def _draw(self, images: Tensor) -> Tensor:
        """Styles from their prior, one for each image."""
        return torch.randn(images.shape[0], self.config.style_dims, device=images.device)

    def _from(self, side: Side) -> nn.Module:
        """The generator that reads a domain's content; it writes the other domain."""
        return self.generator_ab if side == "a" else self.generator_ba

    def _to(self, side: Side) -> nn.Module:
        """The generator that writes a domain, and reads its style."""
        return self.generator_ba if side == "a" else self.generator_ab

    def _judge_of(self, side: Side) -> Discriminator:
        return self.discriminator_a if side == "a" else self.discriminator_b

    def _content(self, side: Side, images: Images) -> Tensor:
        return cast(Tensor, self._from(side)(*images, part="content"))

    def _style(self, side: Side, images: Images) -> Tensor:
        return cast(Tensor, self._to(side)(*images, part="style"))

    def _decode(
        self, side: Side, content: Tensor, style: Tensor | None, valid: Tensor | None
    ) -> Images:
        made = self._to(side)(content, valid, part="decode", style=style)
        return zero_invalid(made, valid), valid


def _content_error(one: Tensor, two: Tensor, valid: Tensor | None) -> Tensor:
    """Mean absolute difference of contents, where there is something."""
    share = None if valid is None else valid_share(valid, _CONTENT_SCALE)
    return masked_mean((one.float() - two.float()).abs(), share)
