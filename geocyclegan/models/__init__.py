"""Networks: generators, discriminators and the layers they share. Knows torch, not rasters."""

from geocyclegan.models.densenet import DenseNetGenerator
from geocyclegan.models.discriminator import Discriminator
from geocyclegan.models.generator import Generator
from geocyclegan.models.multiscale import MultiscaleDiscriminator
from geocyclegan.models.norm import NORMS, SceneNorm2d
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.patchgan import PatchDiscriminator, PixelDiscriminator
from geocyclegan.models.registry import (
    Registry,
    build_discriminator,
    build_generator,
    discriminators,
    generators,
)
from geocyclegan.models.resnet import ResNetGenerator
from geocyclegan.models.smp import SmpGenerator
from geocyclegan.models.unet import UNetGenerator

__all__ = [
    "NORMS",
    "DenseNetGenerator",
    "Discriminator",
    "Generator",
    "MultiscaleDiscriminator",
    "OpaqueGenerator",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "Registry",
    "ResNetGenerator",
    "SceneNorm2d",
    "SmpGenerator",
    "UNetGenerator",
    "build_discriminator",
    "build_generator",
    "discriminators",
    "generators",
]
