"""From a configuration to an engine: devices, precision and processes."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
import torch.distributed as dist
from lightning.fabric import Fabric

from geocyclegan.progress import set_progress
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.placing import repeatable
from geocyclegan.training.precision import choose_precision, set_float32
from geocyclegan.training.ranks import Layout, Ranks, launch, layout


def config_on(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Fill in what depends on the machine: processes and precision.

    Raises:
        OptionError: the machine cannot do what was asked for.
    """
    planned = layout(config.devices, config.nodes, device)
    repeatable(config.deterministic, device)
    precision = choose_precision(config.precision, device)
    return replace(config, devices=planned.devices, nodes=planned.nodes, precision=precision)


def start(config: TrainConfig, device: torch.device) -> tuple[Fabric, Ranks]:
    """Start the engine in as many processes as the resolved configuration says."""
    precision = choose_precision(config.precision, device)
    # It announces what we say ourselves.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fabric = launch(Layout(config.devices or 1, config.nodes or 1), device, precision)
    set_float32(precision)
    ranks = Ranks(fabric.global_rank, fabric.world_size)
    if not ranks.leads:
        logging.getLogger("geocyclegan").setLevel(logging.ERROR)
        set_progress("none")
    return fabric, ranks


def end(ranks: Ranks) -> None:
    """Part from the other processes."""
    torch.use_deterministic_algorithms(False)
    if ranks.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
