"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from geocyclegan.errors import OptionError
from geocyclegan.models.densenet import DenseNetGenerator
from geocyclegan.models.discriminator import Discriminator
from geocyclegan.models.generator import Generator
from geocyclegan.models.multiscale import MultiscaleDiscriminator
from geocyclegan.models.patchgan import PatchDiscriminator, PixelDiscriminator
from geocyclegan.models.resnet import ResNetGenerator
from geocyclegan.models.smp import SmpGenerator
from geocyclegan.models.style import StyledGenerator
from geocyclegan.models.unet import UNetGenerator

T = TypeVar("T")


class Registry(Generic[T]):
    """Builders by name, which only ever come from code, never from a name inside a file.

    Args:
        kind: what is registered, for messages: "generator", "method".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}

    def register(self, name: str, builder: Callable[..., T]) -> None:
        """Add a builder.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._builders[name] = builder

    def names(self) -> tuple[str, ...]:
        """All names, in order of registration."""
        return tuple(self._builders)

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def takes(self, name: str, argument: str) -> bool:
        """Whether what `name` stands for has an argument that may be chosen."""
        builder = self._builders[name]
        fixed = builder.keywords if isinstance(builder, partial) else {}
        return argument in inspect.signature(builder).parameters and argument not in fixed

    def build(self, name: str, /, *args: Any, **kwargs: Any) -> T:
        """Make what `name` stands for.

        Raises:
            OptionError: the name is not known, or an argument is not one of its own.
        """
        builder = self._builders.get(name)
        if builder is None:
            known = ", ".join(self._builders)
            raise OptionError(f"{self.kind} {name!r} is not known; choose one of: {known}")
        try:
            inspect.signature(builder).bind(*args, **kwargs)
        except TypeError as error:
            raise OptionError(f"arguments of {self.kind} {name!r}: {error}") from None
        return builder(*args, **kwargs)


generators: Registry[Generator] = Registry("generator")
generators.register("resnet9", partial(ResNetGenerator, blocks=9))
generators.register("resnet6", partial(ResNetGenerator, blocks=6))
generators.register("unet256", partial(UNetGenerator, depth=8))
generators.register("unet128", partial(UNetGenerator, depth=7))
generators.register("densenet", partial(DenseNetGenerator, blocks=3, layers=6))
for arch in ("unet", "unetplusplus", "fpn", "segformer"):
    generators.register(f"smp-{arch}", partial(SmpGenerator, arch=arch))

generators.register("munit", StyledGenerator)

discriminators: Registry[Discriminator] = Registry("discriminator")
discriminators.register("patch70", partial(PatchDiscriminator, layers=3))
discriminators.register("patch", PatchDiscriminator)
discriminators.register("pixel", PixelDiscriminator)
discriminators.register("multiscale", MultiscaleDiscriminator)


def build_generator(name: str, /, **args: Any) -> Generator:
    """A generator with fresh weights, by name and the arguments of its class.

    Raises:
        OptionError: the name or an argument is not known, or is out of range.
    """
    return generators.build(name, **args)


def build_discriminator(name: str, /, **args: Any) -> Discriminator:
    """A discriminator with fresh weights, by name and the arguments of its class.

    Raises:
        OptionError: the name or an argument is not known, or is out of range.
    """
    return discriminators.build(name, **args)
