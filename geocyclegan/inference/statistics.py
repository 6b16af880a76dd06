"""Whose statistics a scene is normalised with, and how they are found.

`frozen`: those of the training set, from the bundle. `sample`: those of some crops of the scene.
`exact`: those of the whole scene. `dense`: those of the surroundings of each pixel (`dense.py`).
`tile`: those of each tile, which is what makes seams. All but the last are the same whichever way
the scene is cut. Training and inference should share the regime, which is what `auto` sees to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from geocyclegan.errors import OptionError
from geocyclegan.inference.levels import Read, SceneLevels, to_tensors
from geocyclegan.inference.spill import DiskStore
from geocyclegan.inference.threads import prefetch
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.opaque_passes import opaque_statistics
from geocyclegan.models.passes import (
    MemoryStore,
    Patch,
    Store,
    held_bytes,
    hold_from,
    layer_statistics,
)
from geocyclegan.progress import Progress
from geocyclegan.raster.windows import CellGrid, TilePlan, Window, round_up

log = logging.getLogger(__name__)

NormStats = Literal["auto", "frozen", "sample", "exact", "dense", "tile"]
NORM_STATS: tuple[NormStats, ...] = get_args(NormStats)

STATS_MEMORY = 2 * 1024**3
"""Bytes that the activations of a lockstep pass may take unless said otherwise."""

SAMPLE_CROPS = 32
"""Crops of mode "sample"."""

# The plastic number's powers: the additive recurrence that fills a square most evenly.
_R2 = (0.7548776662466927, 0.5698402909980532)


@dataclass(frozen=True)
class StatisticsOptions:
    """How to find statistics.

    Attributes:
        mode: one of `NORM_STATS`; "auto" is resolved by `resolve_mode`.
        memory: bytes that activations may take in memory.
        crops: crops of mode "sample".
        disk: bytes that they may take on disk; None: none.
        folder: where on disk.
    """

    mode: NormStats = "tile"
    memory: int = STATS_MEMORY
    crops: int = SAMPLE_CROPS
    disk: int | None = None
    folder: Path | None = None


def resolve_mode(
    asked: NormStats, generator: Generator, *, pool: str, has_statistics: bool, model: str
) -> NormStats:
    """Choose the mode that the bundle's regime asks for, and refuse what cannot be.

    Args:
        asked: what the user wants.
        generator: the network.
        pool: what shared statistics in training, "crop" or "scene".
        has_statistics: whether the bundle records those of the training set.
        model: the bundle's name, for messages.

    Returns:
        A mode other than "auto".

    Raises:
        OptionError: the bundle or the generator cannot do what was asked for.
    """
    if asked not in get_args(NormStats):
        raise OptionError(f"--norm-stats {asked}: choose one of: {', '.join(get_args(NormStats))}")
    if not generator.norm_layers():
        return "tile"
    bounded = generator.halo is not None
    if asked == "auto":
        if pool == "scene":
            return "frozen" if has_statistics else "sample"
        return "dense" if bounded else "tile"
    if asked == "frozen" and not has_statistics:
        others = "dense, sample or exact" if bounded else "sample or tile"
        raise OptionError(
            f"--norm-stats frozen: the model {model} records no statistics of its training set;"
            f" choose {others}, or write it anew with geocyclegan train --resume"
        )
    if asked in ("exact", "dense") and not bounded:
        raise OptionError(
            f"--norm-stats {asked}: the receptive field of this generator has no bound, so no tile"
            " has statistics that do not depend on the cut; choose frozen, sample or tile"
        )
    return asked


Measured = tuple[Window, Window]
"""A window that is read, and its part that enters the statistics."""


def scene_windows(plan: TilePlan, stride: int) -> list[Measured]:
    """Return the windows of mode "exact".

    The cores of the tiles partition the scene, so each valid pixel counts once; their halos hold
    what the cores depend on.
    """
    return [(tile.read, _rounded(tile.core, stride)) for tile in plan]


def crop_windows(levels: SceneLevels, grid: CellGrid, crops: int) -> list[Measured]:
    """Return the windows of mode "sample".

    They are cells of a lattice of training-crop-sized windows, spread evenly; those without a valid
    pixel are passed over. Which ones depends on the scene alone, not on the tiles.

    Raises:
        SceneError: the scene cannot be read.
    """
    found: list[Measured] = []
    every = ((grid.window(i, j), grid.own(i, j)) for i, j in spread(grid))
    with closing(prefetch(every, lambda job: levels.read(job[0])[1])) as reads:
        for (window, own), valid in reads:
            if valid[own.slices_in(window)].any():
                found.append((window, own))
                if len(found) == crops:
                    break
    return found or [(grid.window(0, 0), grid.own(0, 0))]


def spread(grid: CellGrid) -> Iterator[tuple[int, int]]:
    """Yield all cells of a lattice so that the first few are spread evenly, whatever their number.

    Source: M. Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences", 2018 (R2).
    """
    rows, cols = len(grid.rows), len(grid.cols)
    seen = set()
    for number in range(4 * rows * cols):
        row, col = (
            int((0.5 + step * (number + 1)) % 1.0 * count)
            for step, count in zip(_R2, (rows, cols), strict=True)
        )
        if (row, col) not in seen:
            seen.add((row, col))
            yield row, col
    for row in range(rows):
        for col in range(cols):
            if (row, col) not in seen:
                yield row, col


def freeze_windows(
    generator: Generator,
    levels: SceneLevels,
    windows: Sequence[Measured],
    device: torch.device,
    options: StatisticsOptions,
) -> None:
    """Freeze a generator's norm layers with the statistics of some windows of a scene.

    Args:
        generator: in eval mode, on `device`.
        levels: the scene.
        windows: what to measure; those without a valid pixel are passed over.
        device: where the generator is.
        options: the memory and the disk to stay in.

    Raises:
        OptionError: the disk budget does not suffice.
        OutputError: the disk is full.
        SceneError: the scene cannot be read.
    """
    generator.thaw()
    pixels = sum(read.height * read.width for read, _ in windows)
    with (
        ExitStack() as stack,
        Progress(len(windows) * len(generator.norm_layers()), "statistics", "tile") as progress,
    ):
        patches = patches_of(levels, windows, device)
        if isinstance(generator, OpaqueGenerator):
            opaque_statistics(generator, patches, options.memory, progress.update)
            return
        first, store = choose_store(generator, pixels, device, options, stack)
        layer_statistics(generator, patches, store, hold_from=first, done=progress.update)


def choose_store(
    generator: Generator,
    pixels: int,
    device: torch.device,
    options: StatisticsOptions,
    stack: ExitStack,
) -> tuple[int, Store]:
    """Choose from which norm layer on activations are held, and where.

    Args:
        generator: the network.
        pixels: that are measured, halos included.
        device: where the generator is.
        options: the memory and the disk to stay in.
        stack: closes what is opened.

    Returns:
        The layer, and where activations are held from there on.

    Raises:
        OptionError: the disk budget does not suffice.
        OutputError: the disk has less room than that.
    """
    held = held_bytes(generator, next(generator.parameters()).itemsize)
    last = len(held) - 1
    first = hold_from(held, pixels, options.memory)
    # From the second layer on little is lost: the first is one convolution.
    cheapest = min((max(held[i:last]), i) for i in range(last)) if last > 0 else (0.0, 0)
    if first <= cheapest[1] or last <= 0:
        return first, MemoryStore()
    need = cheapest[0] * pixels
    if options.disk is None or options.folder is None:
        log.warning(
            "activations of --norm-stats %s would take %.2f GB, and --stats-memory is %.2f GB: %d"
            " passes over the scene instead of two; --stats-disk %dG would hold them",
            *(options.mode, need / 1e9, options.memory / 1e9, first + 2),
            int(need // 2**30) + 1,
        )
        return first, MemoryStore()
    if need > options.disk:
        raise OptionError(
            f"--stats-disk: {options.disk / 2**30:.2f}G do not hold the activations of"
            f" --norm-stats {options.mode}, which take {need / 2**30:.2f}G; give that much, or"
            " leave it out, which takes a pass for each norm layer"
        )
    first = hold_from(held, pixels, options.disk)
    need = max(held[first:last]) * pixels
    return first, stack.enter_context(DiskStore(options.folder, device, need))


def patches_of(
    levels: SceneLevels,
    windows: Sequence[Measured],
    device: torch.device,
    *,
    at_least_one: bool = True,
) -> Callable[[], Iterator[Patch]]:
    """Return what reads windows of a scene as patches, again at each call.

    Args:
        levels: the scene.
        windows: those without a valid pixel in their core are passed over.
        device: where the patches shall be.
        at_least_one: where all are passed over, give the first one.
    """

    def load(window: Measured) -> Read:
        return levels.read(window[0])

    def patches() -> Iterator[Patch]:
        found = False
        with closing(prefetch(windows, load)) as reads:
            for (window, own), (values, valid) in reads:
                core = own.slices_in(window)
                if valid[core].any():
                    found = True
                    yield Patch(*to_tensors([(values, valid)], device), core)
        if not found and at_least_one:
            # Nothing to translate either; one patch of nodata leaves the layers in a defined state.
            window, own = windows[0]
            yield Patch(*to_tensors([levels.read(window)], device), own.slices_in(window))

    return patches


def freeze_given(generator: Generator, statistics: Sequence[Moments] | None) -> None:
    """Freeze a generator's norm layers with the statistics of a bundle.

    Raises:
        OptionError: there are none.
    """
    if statistics is None:
        raise OptionError("--norm-stats frozen: the model records no statistics")
    generator.freeze(statistics)


def _rounded(core: Window, stride: int) -> Window:
    """A core that ends at a multiple of the stride; beyond the scene nothing is valid."""
    height, width = (round_up(side, stride) for side in core.shape)
    return Window(core.row, core.col, height, width)
