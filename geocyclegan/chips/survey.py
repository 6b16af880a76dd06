"""The first pass over the scenes: are they alike, what do they hold, where are they valid.

Nothing is written here, so that what is refused leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.alike import describe, difference
from geocyclegan.chips.naming import scene_id
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.statistics import Statistics
from geocyclegan.chips.workers import run_tasks
from geocyclegan.errors import SceneError
from geocyclegan.progress import Progress
from geocyclegan.raster.bands import SourceBand
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sketch import BandSketch
from geocyclegan.raster.windows import Window, starts

log = logging.getLogger(__name__)

# Samples (pixels x bands) that a process holds at once.
SAMPLES_AT_ONCE = 1 << 24
BLOCK_CACHE_BYTES = 256 << 20
_GSD_TOLERANCE = 0.1


@dataclass(frozen=True)
class SceneFacts:
    """What is known of a scene once it was opened; can be sent to other processes.

    Attributes:
        id: name in chip names.
        path: absolute path, URL or sub-dataset name.
        bands: the chosen bands.
        domain: what the scene would make of the domain; radiometry not fitted.
        grid: its grid.
        block: rows and columns of its blocks.
        amplitude: how to read complex pixels.
    """

    id: str
    path: str
    bands: tuple[SourceBand, ...]
    domain: Domain
    grid: Grid
    block: tuple[int, int]
    amplitude: bool

    def open(self) -> Scene:
        """Open the scene, with the same bands."""
        return Scene(self.path, [str(band.index) for band in self.bands], amplitude=self.amplitude)

    @property
    def samples(self) -> int:
        """Pixels times bands."""
        return self.grid.height * self.grid.width * len(self.bands)


def open_scenes(paths: Sequence[str], options: ChipOptions) -> list[SceneFacts]:
    """Open all scenes and check that they belong to one domain.

    Raises:
        NotFoundError, SceneError, OptionError: one cannot be used, or two are not alike.
    """
    facts: list[SceneFacts] = []
    for path in paths:
        with gdal_env(), Scene(path, options.bands, amplitude=options.amplitude) as scene:
            indexes = [band.index for band in scene.bands]
            found = SceneFacts(
                scene_id(path, options.size, *indexes, scene.dtype),
                path,
                scene.bands,
                describe(scene),
                scene.grid,
                scene.block_shape,
                options.amplitude,
            )
        if facts:
            unlike = difference(facts[0].domain, found.domain)
            if unlike is not None:
                raise SceneError(
                    f"scenes of one domain must be alike: {facts[0].path} has {unlike[0]},"
                    f" {path} has {unlike[1]}; choose bands with --bands or chip them into"
                    " different domains"
                )
            warn_of_gsd(facts[0].domain, found)
        facts.append(found)
    return facts


def warn_of_gsd(domain: Domain, scene: SceneFacts) -> None:
    """Say so if a scene's pixels have another size than the domain's: objects would differ, too."""
    ours, theirs = domain.gsd, scene.domain.gsd
    if ours and theirs and abs(theirs / ours - 1.0) > _GSD_TOLERANCE:
        log.warning(
            "%s: its pixels measure %.3g m, those of the domain %.3g m; a model learns both sizes"
            " as one",
            scene.path,
            theirs,
            ours,
        )


@dataclass(frozen=True)
class SceneSurvey:
    """The statistics of a scene.

    Attributes:
        statistics: of the valid pixels, compact, one per band.
        valid: share of valid pixels of every window, of its part inside the scene
            `(rows of windows, columns of windows)`.
    """

    statistics: Statistics
    valid: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """A piece of a scene for one process to read."""

    scene: SceneFacts
    window: Window
    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    size: int


@dataclass(frozen=True)
class _Counts:
    """What was found in a part: statistics, and valid pixels per window from (row, col)."""

    statistics: Statistics
    row: int
    col: int
    counts: npt.NDArray[np.int64]


def survey_scenes(
    scenes: Sequence[SceneFacts], options: ChipOptions, workers: int
) -> list[SceneSurvey]:
    """Read all pixels once, in parts along the files' blocks.

    The parts do not depend on the number of processes, nor do the results.

    Raises:
        SceneError: pixels cannot be read, or a scene has no valid one.
    """
    parts = {scene.id: list(_parts(scene, options)) for scene in scenes}
    tasks = [part for scene in scenes for part in parts[scene.id]]
    surveys = []
    with Progress(sum(scene.samples for scene in scenes), "survey", "sample") as progress:
        results = run_tasks(_survey_part, tasks, workers)
        for scene in scenes:
            sketches = [BandSketch(scene.domain.dtype) for _ in scene.bands]
            counts = np.zeros(window_counts(scene.grid, options), np.int64)
            for part, found in zip(parts[scene.id], results, strict=False):
                for sketch, arrays in zip(sketches, found.statistics, strict=True):
                    sketch.merge(BandSketch.from_arrays(arrays))
                height, width = found.counts.shape
                counts[found.row : found.row + height, found.col : found.col + width] += (
                    found.counts
                )
                progress.update(part.window.height * part.window.width * len(scene.bands))
            if not sketches[0].count:
                raise SceneError(
                    f"{scene.path}: no valid pixel in it, all of them are nodata, masked or not a"
                    " number; leave the scene out"
                )
            statistics = [sketch.to_arrays() for sketch in sketches]
            surveys.append(SceneSurvey(statistics, counts / _inside(scene.grid, options)))
    return surveys


def window_starts(grid: Grid, options: ChipOptions) -> tuple[list[int], list[int]]:
    """Return the first rows and the first columns of the windows of a scene."""
    return (
        starts(grid.height, options.size, options.step),
        starts(grid.width, options.size, options.step),
    )


def window_counts(grid: Grid, options: ChipOptions) -> tuple[int, int]:
    """Return how many rows and columns of windows a scene has."""
    rows, cols = window_starts(grid, options)
    return len(rows), len(cols)


def _inside(grid: Grid, options: ChipOptions) -> int:
    """Return the pixels of a window inside the scene: the same for all windows of a scene."""
    return min(grid.height, options.size) * min(grid.width, options.size)


def _parts(scene: SceneFacts, options: ChipOptions) -> Iterator[_Part]:
    rows, cols = (np.asarray(axis) for axis in window_starts(scene.grid, options))
    block_rows, block_cols = scene.block
    height, width = scene.grid.shape
    pixels = max(SAMPLES_AT_ONCE // len(scene.bands), 1)
    step_rows = max(pixels // width // block_rows, 1) * block_rows
    step_cols = width
    if step_rows * width > pixels:
        step_cols = max(pixels // step_rows // block_cols, 1) * block_cols
    for row in range(0, height, step_rows):
        for col in range(0, width, step_cols):
            window = Window(row, col, step_rows, step_cols).clip(height, width)
            yield _Part(scene, window, rows, cols, options.size)


def _survey_part(part: _Part) -> _Counts:
    with gdal_env(BLOCK_CACHE_BYTES), part.scene.open() as scene:
        pixels, valid = scene.read(part.window)
    statistics = []
    for values in pixels:
        sketch = BandSketch(part.scene.domain.dtype)
        sketch.update(values[valid] if not valid.all() else values)
        statistics.append(sketch.to_arrays())
    row, counts = _overlaps(part.rows, part.size, part.window.row, part.window.height)
    col, across = _overlaps(part.cols, part.size, part.window.col, part.window.width)
    # Sums over the windows' rectangles, as differences of a summed-area table (Crow 1984).
    table = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    table[1:, 1:] = valid.cumsum(0, dtype=np.int64).cumsum(1)
    (top, bottom), (left, right) = counts, across
    sums = table[bottom][:, right] - table[top][:, right]
    sums -= table[bottom][:, left] - table[top][:, left]
    return _Counts(statistics, row, col, sums)


def _overlaps(
    begin: npt.NDArray[np.int64], size: int, start: int, length: int
) -> tuple[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Find the windows along an axis that overlap a part.

    Returns:
        The index of the first, and where in the part each of them begins and ends.
    """
    first = int(np.searchsorted(begin + size, start, side="right"))
    stop = int(np.searchsorted(begin, start + length, side="left"))
    chosen = begin[first:stop] - start
    return first, (np.clip(chosen, 0, length), np.clip(chosen + size, 0, length))
