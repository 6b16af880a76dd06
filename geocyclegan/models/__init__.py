"""Networks: generators, discriminators and the layers they share. Knows torch, not rasters."""

from geocyclegan.models.discriminator import Discriminator
from geocyclegan.models.generator import Generator
from geocyclegan.models.norm import NORMS, SceneNorm2d
from geocyclegan.models.patchgan import PatchDiscriminator
from geocyclegan.models.registry import (
    Registry,
    build_discriminator,
    build_generator,
    discriminators,
    generators,
)
from geocyclegan.models.resnet import ResNetGenerator
from geocyclegan.models.unet import UNetGenerator

__all__ = [
    "NORMS",
    "Discriminator",
    "Generator",
    "PatchDiscriminator",
    "Registry",
    "ResNetGenerator",
    "SceneNorm2d",
    "UNetGenerator",
    "build_discriminator",
    "build_generator",
    "discriminators",
    "generators",
]
