"""Which networks the options of a run ask for; what does not go together is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from geocyclegan.errors import GeoCycleGANError, OptionError
from geocyclegan.models import (
    Discriminator,
    Generator,
    Registry,
    build_discriminator,
    build_generator,
    discriminators,
    generators,
)
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.config_file import option

DISCRIMINATOR = "patch70"
"""The discriminator of methods that do not let one choose."""

# Options that some networks take, and what these call them.
_GENERATOR_OPTIONS = {
    "antialias": "antialias",
    "upsample": "upsample",
    "encoder": "encoder",
    "encoder_weights": "encoder_weights",
}
_DISCRIMINATOR_OPTIONS = {
    "d_layers": "layers",
    "d_scales": "scales",
    "spectral_norm": "spectral_norm",
}


def generator_args(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the generators other than their bands.

    Raises:
        OptionError: an option is not one of this generator.
    """
    name = resolved(config.generator)
    chosen = _chosen(config, "generator", name, _GENERATOR_OPTIONS, generators)
    return {"width": config.width, "norm": config.norm} | chosen


def discriminator_args(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the discriminators other than their bands.

    Raises:
        OptionError: an option is not one of this discriminator, or the method lets none choose.
    """
    name = config.discriminator
    if name is None:
        given = [each for each in _DISCRIMINATOR_OPTIONS if getattr(config, each)]
        if given:
            raise OptionError(
                f"{option(given[0])}: --method {config.method} has discriminators of its own"
            )
        name = DISCRIMINATOR
    chosen = _chosen(config, "discriminator", name, _DISCRIMINATOR_OPTIONS, discriminators)
    return {"width": config.d_width or config.width, "norm": "instance"} | chosen


def probe_generator(config: TrainConfig, name: str | None = None) -> Generator:
    """Build a generator without weights, to ask it for its geometry.

    Args:
        config: its options count for the generator that it names.
        name: another generator.

    Raises:
        OptionError: the generator cannot be.
    """
    chosen = resolved(config.generator)
    args = {"width": config.width} if name not in (None, chosen) else generator_args(config)
    args.pop("encoder_weights", None)
    try:
        with torch.device("meta"):
            return build_generator(name or chosen, in_channels=3, out_channels=3, **args)
    except GeoCycleGANError as error:
        raise OptionError(f"--generator {name or chosen}: {error}") from error


def probe_discriminator(config: TrainConfig) -> Discriminator:
    """Build a discriminator without weights, to ask it for its geometry.

    Raises:
        OptionError: the discriminator cannot be.
    """
    name = config.discriminator or DISCRIMINATOR
    args = discriminator_args(config)
    try:
        with torch.device("meta"):
            return build_discriminator(name, in_channels=1, **args)
    except GeoCycleGANError as error:
        raise OptionError(f"--discriminator {name}: {error}") from error


def _chosen(
    config: TrainConfig,
    kind: str,
    name: str,
    options: Mapping[str, str],
    registry: Registry[Any],
) -> dict[str, Any]:
    """The options that were given, by the names of the network's arguments."""
    found: dict[str, Any] = {}
    for field, argument in options.items():
        value = getattr(config, field)
        if value is None or value is False:
            continue
        if name not in registry or not registry.takes(name, argument):
            others = [each for each in registry.names() if registry.takes(each, argument)]
            said = "" if value is True else f" {value}"
            raise OptionError(
                f"{option(field)}{said}: --{kind} {name} does not take it; choose one of:"
                f" {', '.join(others)}"
            )
        found[argument] = str(value) if field == "encoder_weights" else value
    return found
