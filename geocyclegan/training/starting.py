"""From a configuration to an engine: devices, precision, processes, and where chips are kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric

from geocyclegan.errors import BundleError, OptionError
from geocyclegan.files import make_folder
from geocyclegan.progress import set_progress
from geocyclegan.training.checkpoint import load_latest
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.levels import Budget
from geocyclegan.training.mapped import cache_folder
from geocyclegan.training.placing import repeatable, require_graphs
from geocyclegan.training.precision import choose_precision, set_float32
from geocyclegan.training.ranks import Layout, Ranks, launch, layout
from geocyclegan.training.run import RunFolder, claim
from geocyclegan.training.skips import Skips

log = logging.getLogger(__name__)


def config_on(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Fill in what depends on the machine: processes and precision.

    Raises:
        OptionError: the machine cannot do what was asked for.
    """
    planned = layout(config.devices, config.nodes, device)
    if config.cuda_graphs:
        require_graphs(device)
        if config.norm == "scene" and planned.devices * planned.nodes > 1:
            # Their sums over processes would be part of the recordings, which each process makes
            # when its own crops ask for one.
            raise OptionError(
                "--cuda-graphs: with --norm scene, the networks of several processes talk to each"
                " other; leave it out, or train in one process"
            )
    repeatable(config.deterministic, device)
    precision = choose_precision(config.precision, device)
    return replace(config, devices=planned.devices, nodes=planned.nodes, precision=precision)


def skips_of(config: TrainConfig) -> Skips:
    """Return the chips that a run may go without: none yet."""
    roots = {"": config.chips, "pairs: ": config.pairs, "weak pairs: ": config.weak_pairs}
    there = {name: root for name, root in roots.items() if root is not None}
    return Skips(config.max_bad, config.seed, there)


def start(config: TrainConfig, device: torch.device) -> tuple[Fabric, Ranks]:
    """Start the engine in as many processes as the resolved configuration says."""
    precision = choose_precision(config.precision, device)
    # It announces what we say ourselves.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fabric = launch(Layout(config.devices or 1, config.nodes or 1), device, precision)
    set_float32(precision)
    ranks = Ranks(fabric.global_rank, fabric.world_size, fabric.local_rank)
    if not ranks.leads:
        logging.getLogger("geocyclegan").setLevel(logging.ERROR)
        set_progress("none")
    return fabric, ranks


@contextmanager
def cached(cache: Path | None, run: Path, ranks: Ranks, skips: Skips) -> Iterator[Budget]:
    """Give what readers keep chips in: the memory of this process, or files in a folder.

    Args:
        cache: the folder; None: memory.
        run: whose chips they are.
        ranks: who trains together; the first process of each machine clears up, before and after.
        skips: chips that the run may go without.

    Raises:
        OutputError: the folder cannot be made.
    """
    if cache is None:
        yield Budget(skips=skips)
        return
    folder = cache_folder(cache, run)
    clears = ranks.local_rank == 0
    if clears:
        # What a killed run left may be of other chips.
        shutil.rmtree(folder, ignore_errors=True)
    ranks.together(lambda: make_folder(folder))
    try:
        yield Budget(folder=folder, skips=skips)
    finally:
        if clears:
            # Processes that have them open go on reading.
            shutil.rmtree(folder, ignore_errors=True)


def end(ranks: Ranks) -> None:
    """Part from the other processes."""
    if ranks.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def claimed(
    config: TrainConfig, ranks: Ranks, resume: bool, overwrite: bool
) -> Iterator[RunFolder]:
    """Hold the run folder in the first process, and tell the others where it is."""
    with ExitStack() as stack:

        def take() -> Path:
            held = claim(config.out, config.name, config.method, resume=resume, overwrite=overwrite)
            return stack.enter_context(held).path

        yield RunFolder(ranks.lead(take))


def prepare(run: RunFolder, config: TrainConfig, step: int) -> None:
    """Leave nothing in the run folder of steps that are to be done again.

    Raises:
        OutputError: it cannot be written.
    """
    # Written first: what has a configuration can be resumed.
    make_folder(run.path)
    run.clean(step)
    config.save(run.config)


def checkpoint_of(run: RunFolder) -> dict[str, Any] | None:
    """Return the last good checkpoint of a run that is resumed; None: it had not come to one.

    Raises:
        BundleError: it is damaged, or gone while its model is there.
    """
    checkpoint = load_latest(run.checkpoints)
    if checkpoint is None:
        if run.model.exists():
            raise BundleError(
                f"{run.checkpoints}: the checkpoints are gone, so the run cannot be resumed; put"
                " them back, or start anew with --overwrite or another --name"
            )
        log.warning("%s was stopped before its first checkpoint; it starts at step 0", run.path)
    return checkpoint
