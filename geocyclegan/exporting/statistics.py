"""Whose statistics an exported generator carries: a file has no scene to take them from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch

from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.inference.adapted import Adapted
from geocyclegan.inference.levels import SceneLevels, to_tensors
from geocyclegan.inference.statistics import SAMPLE_CROPS, spread
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.progress import Progress
from geocyclegan.raster.bands import bands_for
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.synthetic import some_names, synthetic
from geocyclegan.raster.windows import CellGrid

ExportStats = Literal["frozen", "tile"]

log = logging.getLogger(__name__)


def settle_statistics(
    generator: Generator,
    bundle: Bundle,
    direction: Direction,
    mode: ExportStats,
    scenes: Sequence[str] = (),
) -> str:
    """Bring the norm layers of a generator into the state in which it is exported.

    Args:
        generator: on the CPU, in eval mode.
        bundle: what it comes from.
        direction: which way it translates.
        mode: "frozen": the same for every input; "tile": of each input by itself.
        scenes: what "frozen" statistics are those of; none: the training set.

    Returns:
        Whose statistics they are: "training set", "scenes", "input" or "none".

    Raises:
        OptionError: the bundle records none and no scene is named, or scenes are named and the mode
            is "tile".
        NotFoundError: a scene is not there.
        SceneError: a scene cannot be read, lacks the bands, or has no valid pixel.
    """
    if not generator.norm_layers():
        return "none"
    if mode == "tile":
        if scenes:
            raise OptionError("--scene: its statistics are frozen; leave out --norm-stats tile")
        for norm in generator.norm_layers():
            norm.thaw()
            # Batches of an exported model are batches of tiles, each with its own statistics.
            norm.pool = "crop"
        return "input"
    if scenes:
        made = synthetic(scenes)
        if made:
            log.warning(
                "--scene %s: synthetic (SYNTHETIC=YES), no acquisition; its statistics are taken"
                " since it is named",
                some_names(made),
            )
        generator.freeze(_of_scenes(generator, bundle, direction, scenes))
        return "scenes"
    recorded = bundle.statistics(direction)
    if recorded is None:
        raise OptionError(
            f"{bundle.folder}: the model records no statistics of its training set to freeze; name"
            " scenes to take them from with --scene, or choose --norm-stats tile"
        )
    if bundle.normalization.get("pool", "crop") == "crop":
        log.warning(
            "the model was trained crop by crop (--norm instance), so that frozen statistics may"
            " shift its colours; train with --norm scene for a model to be exported, or compare"
            " with --norm-stats tile"
        )
    generator.freeze(recorded)
    return "training set"


def _of_scenes(
    generator: Generator, bundle: Bundle, direction: Direction, paths: Sequence[str]
) -> list[Moments]:
    each = max(SAMPLE_CROPS // len(paths), 1)
    with Progress(len(paths), "statistics", "scene") as progress:
        patches: list[Patch] = []
        for path in paths:
            patches += _crops(generator, bundle, direction, path, each)
            progress.update()
    return lockstep(generator, patches)


def _crops(
    generator: Generator, bundle: Bundle, direction: Direction, path: str, most: int
) -> list[Patch]:
    """Read crops of the training size, spread evenly over the valid parts of a scene."""
    source = bundle.source(direction)
    found: list[Patch] = []
    with gdal_env(), Scene(path, amplitude=source.amplitude) as scene:
        bands = bands_for(source, scene.all_bands, path)
    with gdal_env(), Scene(path, bands, amplitude=source.amplitude) as scene:
        scene.leave_out(source.undeclared)
        height, width = scene.grid.shape
        levels = SceneLevels(Adapted(scene, source, trusted=True), source, height, width)
        grid = CellGrid.plan(
            *scene.grid.shape,
            size=bundle.tile,
            stride=generator.stride,
            min_size=generator.min_size,
        )
        for row, col in spread(grid):
            window = grid.window(row, col)
            read = levels.read(window)
            core = grid.own(row, col).slices_in(window)
            if not read[1][core].any():
                continue
            x, mask = to_tensors([read], torch.device("cpu"))
            found.append(Patch(x, mask, core))
            if len(found) == most:
                break
    if not found:
        raise SceneError(f"{path}: no valid pixel in it, so there are no statistics to take")
    return found
