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

GENERATORS = (
    *("resnet9", "resnet6", "unet256", "unet128", "densenet"),
    *("smp-unet", "smp-unetplusplus", "smp-fpn", "smp-segformer"),
)
"""What `--generator` takes; that of munit is its own."""

DISCRIMINATORS = ("patch70", "patch", "pixel", "multiscale")
"""What `--discriminator` takes."""

_COMMON: Mapping[str, Any] = {
    "generator": "resnet9",
    "discriminator": "patch70",
    "batch": 1,
    "gan_loss": "lsgan",
    "lr": 2e-4,
    "decay": 0.5,
}
"""What all methods take, and what most of them begin with."""

_HINTS: Mapping[str, Any] = {
    "pairs": None,
    "pair_weight": None,
    "pair_every": None,
    "weak_pairs": None,
    "weak_weight": None,
}
"""What every unpaired method takes: it adds `methods.hints.PairHints` to its generators' losses.

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
"""What beside that makes CycleGAN; a gradient penalty has a number only with its own loss."""


@dataclass(frozen=True)
class MethodInfo:
    """A method as the command line knows it.

    Attributes:
        name: its name in the registry of methods.
        summary: what it does, in a few words.
        options: the fields of `TrainConfig` that it takes beside those of all methods, each with
            its default, which is the paper's.
        directions: which ways its models translate, all of them or, where "direction" is one of
            its options, that one; none: they make scenes from nothing.
        paired: whether each chip of A needs its partner of the same place in B.
        epochs: how long the paper trains.
        generators: the generators that it works with, where it has its own; empty: those of the
            registry of generators.
        sides: the domains that it looks at.
        crop: side of the crops that it is used with, in pixels.
        doubling: whether its networks are those of DCGAN: sides of images are powers of two of 16
            px or more, and norm layers are batch norm, so that there is no norm to choose.
        labelled: whether it looks at the labels of A's chips, where there are any.
    """

    name: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    directions: tuple[Direction, ...] = ("a2b", "b2a")
    paired: bool = False
    epochs: int = 200
    generators: tuple[str, ...] = ()
    sides: tuple[Literal["a", "b"], ...] = ("a", "b")
    crop: int = 256
    doubling: bool = False
    labelled: bool = False


METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "cyclegan",
            "unpaired, both ways",
            {**_COMMON, **_CYCLE, **_HINTS},
        ),
        MethodInfo(
            "pix2pix",
            "from pairs, one way",
            {
                **_COMMON,
                "generator": "unet256",
                "gan_loss": "vanilla",
                "gradient_penalty": None,
                "direction": "a2b",
                "lambda_l1": 100.0,
                "pool": 0,
            },
            paired=True,
        ),
        MethodInfo(
            "cut",
            "unpaired, one way, contrastive",
            {
                **_COMMON,
                "gradient_penalty": None,
                "direction": "a2b",
                "lambda_nce": 1.0,
                "nce_identity": True,
                "flip_equivariance": False,
                **_HINTS,
            },
            epochs=400,
        ),
        MethodInfo(
            "fastcut",
            "cut without its identity",
            {
                **_COMMON,
                "decay": 0.25,
                "gradient_penalty": None,
                "direction": "a2b",
                "lambda_nce": 10.0,
                "nce_identity": False,
                "flip_equivariance": True,
                **_HINTS,
            },
        ),
        MethodInfo(
            "munit",
            "unpaired, both ways, many styles",
            {
                **_COMMON,
                "generator": "munit",
                "discriminator": "multiscale",
                "lr": 1e-4,
                "decay": 0.0,
                "gradient_penalty": None,
                "lambda_image": 10.0,
                "lambda_style": 1.0,
                "lambda_content": 1.0,
                "lambda_cycle": 0.0,
                "style_dims": 8,
                **_HINTS,
            },
            generators=("munit",),
        ),
        MethodInfo(
            "dcgan",
            "chips of domain A from noise",
            {
                "generator": "dcgan",
                "batch": 128,
                "gan_loss": "vanilla",
                "lr": 2e-4,
                "decay": 0.0,
                "noise": 100,
            },
            directions=(),
            epochs=25,
            generators=("dcgan",),
            sides=("a",),
            crop=64,
            doubling=True,
        ),
        MethodInfo(
            "semantic",
            "cyclegan that keeps labels in place",
            {
                **_COMMON,
                **_CYCLE,
                **_HINTS,
                "lambda_semantic": 1.0,
                "segmenter": None,
            },
            labelled=True,
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


def own_generators() -> set[str]:
    """Return the generators that belong to one method."""
    return {name for info in METHODS.values() for name in info.generators}


def method_fields() -> tuple[str, ...]:
    """Return the fields of `TrainConfig` that some method takes and another may not."""
    return tuple(dict.fromkeys(name for info in METHODS.values() for name in info.options))
