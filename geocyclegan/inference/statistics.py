"""Whose statistics a scene is normalised with, and how they are found.

`frozen`: those of the training set, from the bundle. `sample`: those of some crops of the scene.
`exact`: those of the whole scene. `dense`: those of the surroundings of each pixel (`dense.py`).
`tile`: those of each tile, which is what makes seams. All but the last are the same whichever way
the scene is cut. Training and inference should share the regime, which is what `auto` sees to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from geocyclegan.errors import OptionError
from geocyclegan.inference.levels import Read, SceneLevels, to_tensors
from geocyclegan.inference.threads import prefetch
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, pooled_statistics
from geocyclegan.progress import Progress
from geocyclegan.raster.windows import CellGrid, TilePlan, Window, round_up

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
        memory: bytes that activations may take; above it, each norm layer has a pass of its own.
        crops: crops of mode "sample".
    """

    mode: NormStats = "tile"
    memory: int = STATS_MEMORY
    crops: int = SAMPLE_CROPS


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


def freeze_exact(
    generator: Generator,
    levels: SceneLevels,
    plan: TilePlan,
    device: torch.device,
    options: StatisticsOptions,
) -> None:
    """Freeze a generator's norm layers with the statistics of a whole scene.

    The cores of the tiles partition the scene, so each valid pixel counts once; their halos hold
    what the cores depend on.

    Args:
        generator: in eval mode, on `device`.
        levels: the scene.
        plan: its tiles.
        device: where the generator is.
        options: the memory to stay in.
    """
    stride = generator.stride
    jobs = [(tile.read, _rounded(tile.core, stride)) for tile in plan]
    _freeze(generator, levels, jobs, device, options, most=len(jobs))


def freeze_sample(
    generator: Generator,
    levels: SceneLevels,
    grid: CellGrid,
    device: torch.device,
    options: StatisticsOptions,
) -> None:
    """Freeze a generator's norm layers with the statistics of some crops of a scene.

    The crops are cells of a lattice of training-crop-sized windows, spread evenly; those without a
    valid pixel are passed over. Which ones depends on the scene alone, not on the tiles.

    Args:
        generator: in eval mode, on `device`.
        levels: the scene.
        grid: the lattice.
        device: where the generator is.
        options: how many crops, and the memory to stay in.
    """
    jobs = [(grid.window(i, j), grid.own(i, j)) for i, j in spread(grid)]
    _freeze(generator, levels, jobs, device, options, most=options.crops)


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


def _freeze(
    generator: Generator,
    levels: SceneLevels,
    jobs: Sequence[tuple[Window, Window]],
    device: torch.device,
    options: StatisticsOptions,
    most: int,
) -> None:
    """Find the statistics of the first `most` windows that have a valid pixel in their core."""
    generator.thaw()
    count = min(most, len(jobs))
    read = jobs[0][0]
    passes = len(generator.norm_layers())

    def patches() -> Iterator[Patch]:
        return _patches(levels, jobs, device, most)

    with Progress(count * passes, "statistics", "tile") as progress:
        pooled_statistics(
            generator,
            patches,
            pixels=count * read.height * read.width,
            memory=options.memory,
            done=progress.update,
        )


def _patches(
    levels: SceneLevels,
    jobs: Sequence[tuple[Window, Window]],
    device: torch.device,
    most: int,
) -> Iterator[Patch]:
    def load(job: tuple[Window, Window]) -> Read:
        return levels.read(job[0])

    found = 0
    with closing(prefetch(jobs, load)) as reads:
        for (window, own), (values, valid) in reads:
            core = own.slices_in(window)
            if not valid[core].any():
                continue
            x, mask = to_tensors([(values, valid)], device)
            yield Patch(x, mask, core)
            found += 1
            if found == most:
                return
    if not found:
        # Nothing to translate either; one patch of nodata leaves the layers in a defined state.
        window, own = jobs[0]
        x, mask = to_tensors([levels.read(window)], device)
        yield Patch(x, mask, own.slices_in(window))


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
