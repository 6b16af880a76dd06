"""Methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from geocyclegan.errors import OptionError
from geocyclegan.methods.base import Method
from geocyclegan.methods.cut import Cut
from geocyclegan.methods.cyclegan import CycleGAN, CycleGANConfig
from geocyclegan.methods.dcgan import Dcgan
from geocyclegan.methods.munit import Munit
from geocyclegan.methods.networks import NetworkSpec
from geocyclegan.methods.pix2pix import Pix2Pix
from geocyclegan.methods.semantic import Semantic
from geocyclegan.models import Registry, build_discriminator, build_generator

__all__ = ["NetworkSpec", "build_method", "methods"]

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
    generator, generator_args = networks.generator, networks.generator_args
    judge, judge_args = networks.discriminator, networks.discriminator_args
    return CycleGAN(
        build_generator(generator, in_channels=a, out_channels=b, **generator_args),
        build_generator(generator, in_channels=b, out_channels=a, **generator_args),
        build_discriminator(judge, in_channels=a, **judge_args),
        build_discriminator(judge, in_channels=b, **judge_args),
        config,
        networks.shared_bands,
        networks.seed,
    )


methods.register("cyclegan", _cyclegan)
methods.register("pix2pix", Pix2Pix.build)
for name in ("cut", "fastcut"):
    methods.register(name, partial(Cut.build, name))
methods.register("munit", Munit.build)
methods.register("dcgan", Dcgan.build)
methods.register("semantic", Semantic.build)
