"""How close an image must come back from two translations: pixels, features, edges, spectra."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.methods.distances import gradient_difference, spectral_angle
from geocyclegan.methods.features import feature_distance
from geocyclegan.methods.losses import masked_l1
from geocyclegan.ranges import require_in_range


@dataclass(frozen=True)
class CycleTerms:
    """What a cycle is measured by; the defaults are the plain cycle of the paper.

    Over training the weight of the whole falls linearly to its share `end`, and a share of it that
    grows linearly from 0 to `features` goes from pixels to features. Both from Wang and Lin,
    "CycleGAN with Better Cycles", 2018: early features mean little, and exact pixels, late, ask for
    what the other domain cannot hold.

    Attributes:
        features: share of the features at the end of training.
        end: share of the weight that is left at the end of training.
        gradient: of the gradient difference, relative to the pixels.
        spectral_angle: of the spectral angle in radians, relative to the pixels; in a domain of two
            bands or more.

    Raises:
        OptionError: a number is out of range.
    """

    features: float = 0.0
    end: float = 1.0
    gradient: float = 0.0
    spectral_angle: float = 0.0

    def __post_init__(self) -> None:
        require_in_range("cycle_features", self.features)
        require_in_range("cycle_end", self.end)
        for name in ("gradient", "spectral_angle"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(
                    f"{name} is {getattr(self, name)}; expected a finite number, 0 or more"
                )

    def losses(
        self,
        domain: str,
        real: Tensor,
        back: Tensor,
        valid: Tensor | None,
        *,
        weight: float,
        progress: float,
        discriminator: nn.Module,
    ) -> dict[str, Tensor]:
        """Return the weighted losses of one domain.

        Args:
            domain: "a" or "b", for the names.
            real: images (samples, bands, height, width).
            back: what two translations made of them, of the same shape, 0 where not valid.
            valid: mask (samples, 1, height, width); None: all are valid.
            weight: of the cycle at the start of training.
            progress: how far training is, from 0 to 1.
            discriminator: of the domain, whose features are compared.

        Returns:
            Scalars cycle_x and, where on, feature_x, gradient_x and angle_x, of domain x.
        """
        weight *= 1.0 - (1.0 - self.end) * progress
        share = self.features * progress
        losses = {f"cycle_{domain}": masked_l1(back, real, valid) * (weight * (1.0 - share))}
        if self.features > 0:
            distance = feature_distance(discriminator, real, back, valid)
            losses[f"feature_{domain}"] = distance * (weight * share)
        if self.gradient > 0:
            difference = gradient_difference(back, real, valid)
            losses[f"gradient_{domain}"] = difference * (weight * self.gradient)
        if self.spectral_angle > 0 and real.shape[1] > 1:
            angle = spectral_angle(back, real, valid)
            losses[f"angle_{domain}"] = angle * (weight * self.spectral_angle)
        return losses
