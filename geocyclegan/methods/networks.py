"""What methods are built from: the domains, the names of the networks, and checked numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from geocyclegan.errors import OptionError

Config = TypeVar("Config")


@dataclass(frozen=True)
class NetworkSpec:
    """What the domains are, and which networks to train on them.

    Args:
        bands_a: bands of domain A.
        bands_b: bands of domain B.
        shared_bands: pairs (index in A, index in B) of bands that both domains have.
        generator: a name of the registry of generators.
        generator_args: arguments of the generator other than its bands.
        discriminator: a name of the registry of discriminators.
        discriminator_args: arguments of the discriminator other than its bands.
        crop: side of the images in pixels, for networks that are made for one size.
        classes: classes in the labels of A; 0: there are none.
        seed: of what the method draws itself; weights follow torch's global generator.
    """

    bands_a: int
    bands_b: int
    shared_bands: tuple[tuple[int, int], ...] = ()
    generator: str = "resnet9"
    generator_args: Mapping[str, Any] = field(default_factory=dict)
    discriminator: str = "patch70"
    discriminator_args: Mapping[str, Any] = field(default_factory=dict)
    crop: int = 64
    classes: int = 0
    seed: int = 0

    def bands(self, side: str) -> int:
        """Return the bands of domain "a" or "b"."""
        return self.bands_a if side == "a" else self.bands_b


def config_of(kind: type[Config], method: str, options: Mapping[str, Any]) -> Config:
    """Make the numbers of a method from options by name.

    Args:
        kind: the frozen dataclass that holds them.
        method: its name, for messages.
        options: some of its fields.

    Raises:
        OptionError: an option is not one of its fields, or is out of range.
    """
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise OptionError(
                f"method {method!r} has no option {option!r}; it has: {', '.join(known)}"
            )
    return kind(**options)


def check_numbers(config: Any, weights: Sequence[str]) -> None:
    """Check what the numbers of all methods have in common.

    Args:
        config: has `lr`, `beta1` and `beta2`.
        weights: names of its fields that must be finite and 0 or more.

    Raises:
        OptionError: names the first number that is out of range.
    """
    for name in weights:
        if not 0 <= getattr(config, name) < math.inf:
            raise OptionError(
                f"{name} is {getattr(config, name)}; expected a finite number, 0 or more"
            )
    if not 0 < config.lr < math.inf:
        raise OptionError(f"lr is {config.lr}; expected a finite number above 0")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(config, name) < 1:
            raise OptionError(f"{name} is {getattr(config, name)}; expected 0 ≤ {name} < 1")
