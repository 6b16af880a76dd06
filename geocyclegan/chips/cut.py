"""The second pass over the scenes: read the chosen windows and write them as chips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geocyclegan.chips.chipfile import ChipStyle, write_chip
from geocyclegan.chips.choose import PlannedChip
from geocyclegan.chips.manifest import ChipRow, DomainName
from geocyclegan.chips.survey import BLOCK_CACHE_BYTES, SAMPLES_AT_ONCE, SceneFacts
from geocyclegan.chips.workers import run_tasks
from geocyclegan.progress import Progress
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Strip:
    """Neighbouring chips of one row, read at once: most files decode whole rows of blocks."""

    scene: SceneFacts
    folder: Path
    chips: tuple[PlannedChip, ...]

    @property
    def window(self) -> Window:
        first, last = self.chips[0].window, self.chips[-1].window
        return Window(first.row, first.col, first.height, last.col_stop - first.col)


def cut_chips(
    folder: Path,
    domain: DomainName,
    scenes: Sequence[tuple[SceneFacts, Sequence[PlannedChip]]],
    workers: int,
) -> list[ChipRow]:
    """Write the chips of all scenes.

    Args:
        folder: the chip folder.
        domain: "a" or "b".
        scenes: each with its chips by row, then column.
        workers: processes.

    Returns:
        A manifest row per chip, in the same order.

    Raises:
        SceneError: pixels cannot be read.
        OutputError: a chip cannot be written.
    """
    strips = [strip for scene, chips in scenes for strip in _strips(scene, folder, chips)]
    rows = []
    with Progress(sum(len(strip.chips) for strip in strips), "chip", "chip") as progress:
        for strip, digests in zip(strips, run_tasks(_cut_strip, strips, workers), strict=True):
            for chip, digest in zip(strip.chips, digests, strict=True):
                rows.append(
                    ChipRow(
                        chip=chip.path,
                        domain=domain,
                        split=chip.split,
                        scene=strip.scene.path,
                        scene_id=strip.scene.id,
                        row=chip.window.row,
                        col=chip.window.col,
                        valid=chip.valid,
                        cover=chip.cover,
                        sha256=digest,
                    )
                )
            progress.update(len(strip.chips))
    return rows


def _strips(scene: SceneFacts, folder: Path, chips: Sequence[PlannedChip]) -> Iterator[_Strip]:
    widest = SAMPLES_AT_ONCE // len(scene.bands)
    group: list[PlannedChip] = []
    for chip in chips:
        if group:
            first, last = group[0].window, group[-1].window
            apart = chip.window.row != first.row or chip.window.col > last.col_stop
            if apart or (chip.window.col_stop - first.col) * first.height > widest:
                yield _Strip(scene, folder, tuple(group))
                group = []
        group.append(chip)
    if group:
        yield _Strip(scene, folder, tuple(group))


def _cut_strip(strip: _Strip) -> list[str]:
    whole = strip.window
    with gdal_env(BLOCK_CACHE_BYTES), strip.scene.open() as scene:
        pixels, valid = scene.read(whole)
        style = ChipStyle.of(scene.bands, scene.dtype)
    digests = []
    for chip in strip.chips:
        rows, cols = chip.window.slices_in(whole)
        digests.append(
            write_chip(
                strip.folder / chip.path,
                strip.scene.grid.window(chip.window),
                # A copy: neighbours overlap, and invalid pixels are written over.
                np.array(pixels[:, rows, cols]),
                valid[rows, cols],
                style,
            )
        )
    return digests


def footprints(scene: SceneFacts, chips: Sequence[PlannedChip]) -> list[Any]:
    """Return the outline of each chip in longitude and latitude; None where it has no place."""
    import geopandas

    if scene.grid.crs is None or not chips:
        return [None] * len(chips)
    outlines = [scene.grid.window(chip.window).footprint() for chip in chips]
    try:
        series = geopandas.GeoSeries(outlines, crs=scene.grid.crs.to_wkt()).to_crs("EPSG:4326")
    except Exception as error:  # pyproj raises its own classes, one per stage
        log.warning("%s: its footprints cannot be put on the globe (%s)", scene.path, error)
        return [None] * len(chips)
    return [outline if np.isfinite(outline.bounds).all() else None for outline in series]
