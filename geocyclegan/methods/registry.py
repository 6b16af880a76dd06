"""Methods by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from geocyclegan.methods.base import Method
from geocyclegan.methods.cut import Cut
from geocyclegan.methods.cyclegan import CycleGAN
from geocyclegan.methods.dcgan import Dcgan
from geocyclegan.methods.munit import Munit
from geocyclegan.methods.networks import NetworkSpec
from geocyclegan.methods.pix2pix import Pix2Pix
from geocyclegan.methods.semantic import Semantic
from geocyclegan.models import Registry

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


methods.register("cyclegan", CycleGAN.build)
methods.register("pix2pix", Pix2Pix.build)
for name in ("cut", "fastcut"):
    methods.register(name, partial(Cut.build, name))
methods.register("munit", Munit.build)
methods.register("dcgan", Dcgan.build)
methods.register("semantic", Semantic.build)
