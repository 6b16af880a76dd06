"""Pair hints: a few pairs of one place tell unpaired training which way the meaning goes.

An unpaired method may settle on a flipped meaning that its losses cannot notice. Its step adds
`PairHints.losses` to the losses of its generators, and the batch brings the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.methods.base import Batch, Direction, ends, zero_invalid
from geocyclegan.methods.distances import coarse_distance, gradient_difference, spectral_angle
from geocyclegan.methods.losses import masked_l1, single

Translator = Callable[[Direction, Batch], Tensor]
"""Translates the images of pairs in a direction; it may look at the truth, too."""


@dataclass(frozen=True)
class PairHints:
    """How much pairs count.

    Attributes:
        weight: of the mean absolute difference between translation and truth.
        gradient: of the gradient difference, relative to it.
        spectral_angle: of the spectral angle in radians, relative to it; for two bands or more.
        weak: of the coarse, robust difference on loosely paired images.

    Raises:
        OptionError: a weight is negative.
    """

    weight: float = 0.0
    gradient: float = 0.0
    spectral_angle: float = 0.0
    weak: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise OptionError(
                    f"weight {name} of pairs is {value}; expected a finite number, 0 or more"
                )

    def losses(
        self,
        generators: Mapping[Direction, nn.Module],
        batch: Batch,
        translate: Translator | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted losses of the pairs of a batch.

        Args:
            generators: by direction, called as `generator(x, valid)`.
            batch: with `pairs`, `weak`, both or neither.
            translate: what pairs are translated by where a generator's call does not say it all;
                None: that call.

        Returns:
            Scalars pair_ab, pair_ba (with gradient and angle) and weak_ab, weak_ba, as far as there
            are such generators and weights; 0 in a step that has no pairs, so that the names are
            the same in every step.
        """
        nothing = single(batch.a).new_zeros(())
        losses = {}
        for direction, generator in generators.items():
            see = translate or partial(_called, generator)
            way = direction.replace("2", "")
            if self.weight > 0:
                losses[f"pair_{way}"] = (
                    nothing if batch.pairs is None else self._close(see, direction, batch.pairs)
                )
            if self.weak > 0:
                losses[f"weak_{way}"] = (
                    nothing if batch.weak is None else self._roughly(see, direction, batch.weak)
                )
        return losses

    def _close(self, translate: Translator, direction: Direction, pairs: Batch) -> Tensor:
        x, y, valid = _translated(translate, direction, pairs)
        loss = masked_l1(x, y, valid)
        if self.gradient > 0:
            loss = loss + gradient_difference(x, y, valid) * self.gradient
        if self.spectral_angle > 0 and y.shape[1] > 1:
            loss = loss + spectral_angle(x, y, valid) * self.spectral_angle
        return loss * self.weight

    def _roughly(self, translate: Translator, direction: Direction, pairs: Batch) -> Tensor:
        return coarse_distance(*_translated(translate, direction, pairs)) * self.weak


def _called(generator: nn.Module, direction: Direction, pairs: Batch) -> Tensor:
    """What a generator makes of its side of pairs."""
    source, _, _ = ends(direction)
    made: Tensor = generator(*pairs.side(source))
    return made


def _translated(
    translate: Translator, direction: Direction, pairs: Batch
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Translations of pairs, the truth, and where both are valid."""
    source, target, _ = ends(direction)
    _, valid = pairs.side(source)
    truth, known = pairs.side(target)
    translation = zero_invalid(translate(direction, pairs), valid)
    if valid is not None and known is not None and known is not valid:
        return translation, truth, valid.bool() & known.bool()
    return translation, truth, known if valid is None else valid
