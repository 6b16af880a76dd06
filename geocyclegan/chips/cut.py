"""The one pass over the scenes: statistics, filters, and chips into a folder of their own.

Chips are written beside the set, in `.statistics/<domain>/cutting/`: only when all scenes have been
read to their end is it known that all are sound, and which chips belong to the set.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.chipfile import (
    DEFAULT_CODEC,
    ChipEncoder,
    ChipStyle,
    Codec,
    chip_env,
    encoder_for,
    save_chip,
)
from geocyclegan.chips.choose import ROUNDING, CutChip, Outcome, Plan, PlannedChip
from geocyclegan.chips.npyfile import NpyEncoder
from geocyclegan.chips.parts import Part, divide
from geocyclegan.chips.source import open_classes
from geocyclegan.chips.statistics import Statistics
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.chips.workers import run_tasks
from geocyclegan.crew import Crew
from geocyclegan.errors import SceneError
from geocyclegan.progress import Progress
from geocyclegan.raster.align import AlignedScene
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.sketch import BandSketch
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

# Parts are whole blocks, so few are wanted twice; warped tiles look at their neighbours' blocks.
_BLOCK_CACHE_BYTES = 64 << 20
_WARPED_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class CutOptions:
    """What is done with each window.

    Attributes:
        folder: where chips are written; None writes none.
        min_valid: least share of valid pixels.
        min_std: least standard deviation of some band.
        content: hash pixels, to find duplicates or to know them again.
        codec: how chips are compressed.
        is_npy: chips are npy files.
    """

    folder: Path | None
    min_valid: float
    min_std: float
    content: bool
    codec: Codec = DEFAULT_CODEC
    is_npy: bool = False


@dataclass(frozen=True)
class SceneCut:
    """What the pass found in a scene.

    Attributes:
        statistics: of the valid pixels, compact, one per band.
        outcomes: what became of each planned chip.
    """

    statistics: Statistics
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class _Task:
    scene: SceneFacts
    part: Part
    chips: tuple[PlannedChip, ...]
    options: CutOptions


def cut_scenes(
    plans: Sequence[Plan], step: int, options: CutOptions, workers: int | Crew
) -> list[SceneCut]:
    """Read all pixels of the scenes once.

    Args:
        plans: the scenes and their windows.
        step: pixels from one window to the next.
        options: what is done with each window.
        workers: processes of this machine, of which 1 means this one; or a crew.

    Returns:
        What was found in each scene, in order.

    Raises:
        SceneError: pixels cannot be read, or a scene has no valid one.
        OutputError: a chip cannot be written.
        ChipsError: a process of this machine died.
        ClusterError: workers of the crew died of a task.
    """
    tasks = [list(_tasks(plan, step, options)) for plan in plans]
    results = run_tasks(_cut, [task for of_scene in tasks for task in of_scene], workers)
    cuts = []
    with Progress(sum(len(plan.chips) for plan in plans), "chip", "window") as progress:
        for plan, of_scene in zip(plans, tasks, strict=True):
            sketches = [BandSketch(plan.scene.domain.dtype) for _ in plan.scene.domain.bands]
            outcomes: dict[int, Outcome] = {}
            for task, (statistics, found) in zip(of_scene, results, strict=False):
                for sketch, arrays in zip(sketches, statistics, strict=True):
                    sketch.merge(BandSketch.from_arrays(arrays))
                outcomes.update(zip(task.part.windows, found, strict=True))
                progress.update(len(found))
            if not sketches[0].count:
                raise SceneError(
                    f"{told(plan.scene.path)}: no valid pixel in it, all of them are nodata, masked"
                    " or not a number; leave the scene out"
                )
            cuts.append(
                SceneCut(
                    [sketch.to_arrays() for sketch in sketches],
                    tuple(outcomes[i] for i in range(len(plan.chips))),
                )
            )
    return cuts


def _tasks(plan: Plan, step: int, options: CutOptions) -> Iterator[_Task]:
    scene = plan.scene
    windows = [chip.window for chip in plan.chips]
    for part in divide(scene.grid.shape, scene.domain.count, scene.block, windows, plan.size, step):
        yield _Task(scene, part, tuple(plan.chips[i] for i in part.windows), options)


def _cut(task: _Task) -> tuple[Statistics, list[Outcome]]:
    scene, part = task.scene, task.part
    is_warped = scene.source.grid is not None
    with ExitStack() as stack:
        stack.enter_context(gdal_env(_WARPED_CACHE_BYTES if is_warped else _BLOCK_CACHE_BYTES))
        source = stack.enter_context(scene.source.open())
        pixels, valid = source.read(part.read)
        labels = None
        if scene.labels is not None and task.options.folder is not None:
            labels = stack.enter_context(open_classes(scene.labels, scene.grid))
        style = ChipStyle.of(source.bands, source.dtype)
        encoder = encoder_for(style, task.options.codec, task.options.is_npy)
        stack.enter_context(chip_env())
        outcomes = [
            _window(task, chip, *_crop(pixels, valid, chip.window, part.read), encoder, labels)
            for chip in task.chips
        ]
    rows, cols = part.core.slices_in(part.read)
    statistics = []
    mask = valid[rows, cols]
    whole = bool(mask.all())
    for values in pixels[:, rows, cols]:
        sketch = BandSketch(scene.domain.dtype)
        sketch.update(values if whole else values[mask])
        statistics.append(sketch.to_arrays())
    return statistics, outcomes


def _crop(
    pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], window: Window, part: Window
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    rows, cols = window.slices_in(part)
    return pixels[:, rows, cols], valid[rows, cols]


def _window(
    task: _Task,
    chip: PlannedChip,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    encoder: ChipEncoder | NpyEncoder,
    labels: AlignedScene | None,
) -> Outcome:
    """Look at a window, and write it if it passes."""
    options, grid = task.options, task.scene.grid
    inside = chip.window.clip(*grid.shape)
    share = np.count_nonzero(valid) / (inside.height * inside.width)
    if share <= 0.0 or share < options.min_valid - ROUNDING:
        return "invalid"
    whole = share == 1.0 and inside == chip.window
    if options.min_std > 0.0:
        values = pixels.reshape(len(pixels), -1) if whole else pixels[:, valid]
        if values.astype(np.float64).std(axis=1).max() < options.min_std:
            return "flat"
    if not whole:
        pixels = np.array(pixels)  # neighbours overlap, and invalid pixels are written over
        pixels[:, ~valid] = encoder.filler
    content = content_hash(pixels, valid) if options.content else ""
    if options.folder is None:
        return CutChip(chip, share, "", content, "")
    data = encoder.encode(grid.window(chip.window), pixels, valid)
    digest = save_chip(options.folder / chip.path, data, encoder.beside(valid))
    label_digest = ""
    if labels is not None:
        label_digest = _write_label(options.folder / label_path(chip.path), chip, grid, labels)
    return CutChip(chip, share, digest, content, label_digest)


def content_hash(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> str:
    """Return a hash of a chip's pixels and mask; what invalid pixels hold does not count.

    Args:
        pixels: `(bands, height, width)`; type and shape are part of the hash.
        valid: `(height, width)`, True where a pixel is valid.

    Returns:
        BLAKE2b, 16 bytes, as hexadecimal text.
    """
    digest = hashlib.blake2b(f"{pixels.dtype.name} {pixels.shape}".encode(), digest_size=16)
    if not valid.all():
        pixels = np.where(valid, pixels, np.zeros((), pixels.dtype))
        digest.update(np.packbits(valid).tobytes())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def label_path(chip: str) -> str:
    """Return where the label chip of a chip lies: `labels_a/NAME.tif` for `train_a/NAME.tif`.

    Labels are GeoTIFFs beside npy chips, too.
    """
    path = PurePosixPath(chip).with_suffix(".tif")
    return str(PurePosixPath(f"labels_{path.parent.name.rpartition('_')[2]}", path.name))


def _write_label(path: Path, chip: PlannedChip, grid: Any, labels: AlignedScene) -> str:
    codes, there = labels.read(chip.window)
    encoder = ChipEncoder(ChipStyle.of(labels.bands, labels.dtype))
    if not there.all():
        codes[:, ~there] = encoder.filler
    return save_chip(path, encoder.encode(grid.window(chip.window), codes, there))
