"""What can be trained, as plain facts: names, options and defaults. Imports nothing heavy.

`--help` and messages need these before torch is there; `methods.registry` has the networks to them.
A field of `TrainConfig` that a method may take is None where the method's own default holds, and
here is what that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from geocyclegan.errors import OptionError

Direction = Literal["a2b", "b2a"]

_UNPAIRED: Mapping[str, Any] = {
    "generator": "resnet9",
    "batch": 1,
    "gan_loss": "lsgan",
    "lr": 2e-4,
    "decay": 0.5,
}
"""What nearly all methods of translation take, and where they begin."""

_HINTS: Mapping[str, Any] = {
    "pairs": None,
    "pair_weight": None,
    "pair_every": None,
    "weak_pairs": None,
    "weak_weight": None,
}
"""What methods take that add `methods.hints.PairHints` to their generators' losses.

All None: pairs come with numbers of their own only where there are pairs (see `training.resolve`).
"""

_CYCLE: Mapping[str, Any] = {
    "gradient_penalty": None,
    "lambda_a": 10.0,
    "lambda_b": 10.0,
    "identity": 0.5,
    "band_map": None,
    "cycle_critic": 0.0,
    "cycle_features": 0.0,
    "cycle_end": 1.0,
    "gradient_loss": 0.0,
    "angle_loss": 0.0,
    "pool": 50,
}
"""What beside that makes CycleGAN; the penalty has a number only with its own loss."""


@dataclass(frozen=True)
class MethodInfo:
    """A method as the command line knows it.

    Attributes:
        name: its name in the registry of methods.
        summary: what it does, in a few words.
        options: the fields of `TrainConfig` that it takes beside those of all methods, each with
            its default, which is the paper's.
        directions: which ways its models translate; none: they make scenes from nothing.
        paired: whether each chip of A needs its partner of the same place in B.
        epochs: how long the paper trains.
    """

    name: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    directions: tuple[Direction, ...] = ("a2b", "b2a")
    paired: bool = False
    epochs: int = 200


METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "cyclegan",
            "unpaired, both ways",
            {**_UNPAIRED, **_CYCLE, **_HINTS},
        ),
    )
}
"""All methods, in the order in which they are listed."""


def method_info(name: str) -> MethodInfo:
    """Return the facts about a method.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in METHODS:
        raise OptionError(f"--method {name}: choose one of: {', '.join(METHODS)}")
    return METHODS[name]


def method_fields() -> tuple[str, ...]:
    """Return the fields of `TrainConfig` that some method takes and another may not."""
    return tuple(dict.fromkeys(name for info in METHODS.values() for name in info.options))
