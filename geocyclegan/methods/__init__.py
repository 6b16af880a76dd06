"""What can be trained: networks, losses and one optimisation step each."""

from geocyclegan.methods.base import Batch, Direction, Method
from geocyclegan.methods.cyclegan import CycleGAN
from geocyclegan.methods.cyclegan_config import CycleGANConfig
from geocyclegan.methods.losses import GanLoss, masked_l1
from geocyclegan.methods.pool import ImagePool
from geocyclegan.methods.registry import NetworkSpec, build_method, methods

__all__ = [
    "Batch",
    "CycleGAN",
    "CycleGANConfig",
    "Direction",
    "GanLoss",
    "ImagePool",
    "Method",
    "NetworkSpec",
    "build_method",
    "masked_l1",
    "methods",
]
