"""Methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from geocyclegan.errors import OptionError
from geocyclegan.methods.base import Method
from geocyclegan.methods.cyclegan import CycleGAN, CycleGANConfig
from geocyclegan.models import Registry, build_discriminator, build_generator


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
        seed: of what the method draws itself; weights follow torch's global generator.
    """

    bands_a: int
    bands_b: int
    shared_bands: tuple[tuple[int, int], ...] = ()
    generator: str = "resnet9"
    generator_args: Mapping[str, Any] = field(default_factory=dict)
    discriminator: str = "patch70"
    discriminator_args: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


methods: Registry[Method] = Registry("method")


def build_method(name: str, networks: NetworkSpec, **options: Any) -> Method:
    """A method with fresh networks.

    Args:
        name: one of `methods.names()`.
        networks: domains and architectures.
        options: numbers of the method, such as the fields of `CycleGANConfig`.

    Raises:
        OptionError: a name or an option is not known, or is out of range.
    """
    return methods.build(name, networks, options)


def _cyclegan(networks: NetworkSpec, options: Mapping[str, Any]) -> Method:
    known = {entry.name for entry in fields(CycleGANConfig)}
    for option in options:
        if option not in known:
            raise OptionError(
                f"method 'cyclegan' has no option {option!r}; "
                f"it has: {', '.join(entry.name for entry in fields(CycleGANConfig))}"
            )
    config = CycleGANConfig(**options)
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
    return CycleGAN(
        build_generator(generator, in_channels=a, out_channels=b, **generator_args),
        build_generator(generator, in_channels=b, out_channels=a, **generator_args),
        build_discriminator(judge, in_channels=a, **judge_args),
        build_discriminator(judge, in_channels=b, **judge_args),
        config,
        networks.shared_bands,
        networks.seed,
        critics,
    )


methods.register("cyclegan", _cyclegan)
