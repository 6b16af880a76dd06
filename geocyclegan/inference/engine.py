"""The tile engine: reads windows of a scene, runs a generator, gives finished product windows.

Memory is that of a few tiles (generators with a bounded receptive field) or of one row of windows
(generators that must blend), never of the scene. A background thread reads and prepares the tiles
ahead of the one that is being translated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy.typing as npt
import torch

from geocyclegan.errors import MemoryShortage, OptionError
from geocyclegan.inference.blend import BlendPlan, blended
from geocyclegan.inference.dense import Cell, DenseStatistics
from geocyclegan.inference.forward import Launched, TileForward, chunks, halved
from geocyclegan.inference.levels import Levels, Mask, Output, Read, SceneLevels, Source
from geocyclegan.inference.memory import UNTILED_PIXELS, naming_shortage, release
from geocyclegan.inference.statistics import (
    Measured,
    StatisticsOptions,
    crop_windows,
    freeze_given,
    freeze_windows,
    scene_windows,
)
from geocyclegan.inference.threads import prefetch
from geocyclegan.inference.transfer import Runner
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import SceneNorm2d
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import CellGrid, Tile, TilePlan, Window, round_up, tile_plan

_TILE_CPU, _TILE_CUDA = 512, 1024
_BATCH_CUDA = 4
_CELLS_CUDA = 16


@dataclass(frozen=True)
class EngineOptions:
    """How to cut a scene, and whose statistics to normalise it with.

    Attributes:
        tile: px per tile side without its halo; None chooses by device and scene.
        batch: tiles per forward pass; None chooses by device.
        window: side of the crops that the generator was trained on: the windows of a generator
            without a bounded receptive field, the crops of "sample" and the cells of "dense".
        shift: px in the first tile of each axis if not `tile`, to compare tile grids.
        statistics: whose statistics to normalise with; "auto" is not for the engine.

    Raises:
        OptionError: a tile or batch below 1.
    """

    tile: int | None = None
    batch: int | None = None
    window: int = 256
    shift: int = 0
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)

    def __post_init__(self) -> None:
        for name, value in (("tile", self.tile), ("batch", self.batch)):
            if value is not None and value < 1:
                raise OptionError(f"--{name} {value}: expected 1 or more")


@dataclass(frozen=True, eq=False)
class Piece:
    """A finished part of the product.

    Attributes:
        window: where, in pixels of the scene.
        pixels: `(bands, height, width)` in the target domain's type and units.
        valid: `(height, width)`.
    """

    window: Window
    pixels: npt.NDArray[Any]
    valid: Mask


class TileEngine:
    """Runs one generator over one scene.

    Args:
        generator: the network, in eval mode, on `device`.
        source: the domain of the scene.
        target: the domain of the product.
        device: where the generator is.
        options: how to cut, and whose statistics to use.
        known: statistics of the training set, for mode "frozen"; for "sample" and "exact" those of
            the scene if it has been measured already; None for all others.

    Attributes:
        options: how to cut, and whose statistics to use.
    """

    def __init__(
        self,
        generator: Generator,
        source: Domain,
        target: Domain,
        device: torch.device,
        options: EngineOptions,
        known: Sequence[Moments] | None = None,
    ) -> None:
        self._generator, self._device = generator, device
        self._source, self._target = source, target
        self.options, self._known = options, known
        cuda = device.type == "cuda"
        self._batch = options.batch or (_BATCH_CUDA if cuda else 1)
        self._dense: DenseStatistics | None = None
        # For windows one by one; batches of tiles have their own.
        self._runner = Runner(device)

    def core_size(self, height: int, width: int) -> int:
        """Pixels per side of the tiles that a scene of this shape is cut into."""
        stride = self._generator.stride
        if self.options.tile is not None:
            return round_up(self.options.tile, stride)
        if height * width <= UNTILED_PIXELS:
            return round_up(max(height, width), stride)
        default = _TILE_CUDA if self._device.type == "cuda" else _TILE_CPU
        return round_up(default, stride)

    def count(self, height: int, width: int) -> int:
        """Count the tiles of a scene of this shape, and the cells of mode "dense"."""
        if self._generator.halo is None:
            blend = self._blend(height, width)
            return len(blend.rows) * len(blend.cols)
        cells = len(self._grid(height, width)) if self._mode == "dense" else 0
        return len(self.plan(height, width)) + cells

    def plan(self, height: int, width: int, core: int | None = None) -> TilePlan:
        """Cut a scene of this shape, for a generator with a bounded receptive field."""
        return tile_plan(
            height,
            width,
            core=self.core_size(height, width) if core is None else core,
            halo=self._generator.halo or 0,
            stride=self._generator.stride,
            min_size=self._generator.min_size,
            shift=self.options.shift if core is None else 0,
        )

    def rows(self, height: int, width: int) -> list[list[Window]]:
        """Return the windows of all outputs of a scene of this shape, by rows of tiles."""
        if self._generator.halo is None:
            return [[band] for band in self._blend(height, width).bands]
        cores = (tile.core for tile in self.plan(height, width))
        return [list(row) for _, row in groupby(cores, key=lambda core: core.row)]

    def measured(self, levels: SceneLevels) -> list[Measured]:
        """Return the windows whose statistics modes "sample" and "exact" take, for all of a scene.

        Raises:
            SceneError: the scene cannot be read.
        """
        shape = levels.height, levels.width
        if self.options.statistics.mode == "sample":
            return crop_windows(levels, self._grid(*shape), self.options.statistics.crops)
        return scene_windows(self.plan(*shape), self._generator.stride)

    def run(self, scene: Source, height: int, width: int) -> Iterator[tuple[Piece, int]]:
        """Translate a scene.

        Args:
            scene: gives pixels and masks; read from a background thread.
            height: rows of the scene.
            width: columns of the scene.

        Yields:
            Finished pieces that partition the scene, each with the number of tiles done since the
            last one.

        Raises:
            SceneError: the scene cannot be read.
            MemoryShortage: not even small tiles fit into memory.
            OptionError, OutputError: see `statistics.freeze_windows`.
        """
        for output in self.outputs(scene, height, width):
            yield self.finish(output), output.tiles

    def finish(self, output: Output) -> Piece:
        """Turn levels `(bands, height, width)` into pixels of the target domain, of that shape."""
        pixels = self._target.to_pixels(output.levels, output.valid)
        return Piece(output.window, pixels, output.valid)

    def outputs(
        self, scene: Source, height: int, width: int, done: Collection[Window] = ()
    ) -> Iterator[Output]:
        """Translate a scene to levels; see `run`.

        Args:
            scene: gives pixels and masks; read from a background thread.
            height: rows of the scene.
            width: columns of the scene.
            done: windows of outputs that an earlier run gave; they are left out.

        Yields:
            Outputs that, with those left out, partition the scene.

        Raises:
            SceneError, MemoryShortage, OptionError, OutputError: see `run`.
        """
        levels = SceneLevels(scene, self._source, height, width)
        self._prepare(levels)
        if self._generator.halo is None:
            plan = self._blend(height, width)
            yield from blended(levels, plan, self._target.count, self._window, done)
        else:
            yield from self._tiled(levels, done)

    @property
    def _mode(self) -> str:
        return self.options.statistics.mode if self._norms() else "tile"

    def _norms(self) -> list[SceneNorm2d]:
        return self._generator.norm_layers()

    def _grid(self, height: int, width: int) -> CellGrid:
        generator = self._generator
        return CellGrid.plan(
            height,
            width,
            size=self.options.window,
            stride=generator.stride,
            min_size=generator.min_size,
        )

    def _prepare(self, levels: SceneLevels) -> None:
        """Bring the norm layers into the mode asked for; may go over the scene."""
        generator, mode = self._generator, self._mode
        self._dense = None
        generator.thaw()
        if mode == "frozen" or (self._known is not None and mode in ("sample", "exact")):
            freeze_given(generator, self._known)
        elif mode in ("sample", "exact"):
            self._measure(generator, levels)
        elif mode == "dense":
            grid = self._grid(levels.height, levels.width)
            at_once = self._batch
            if self._device.type == "cuda":
                # A cell is small beside a tile, and a GPU has room for many.
                at_once = max(at_once, _CELLS_CUDA)
            self._dense = DenseStatistics(generator, grid, self._device, at_once)
        else:
            for norm in generator.norm_layers():
                # A batch of tiles is no batch of crops: each tile has its own statistics.
                norm.mode = "instance" if norm.pool == "crop" else "collect"

    def _measure(self, generator: Generator, levels: SceneLevels) -> None:
        windows, statistics = self.measured(levels), self.options.statistics
        side = self.core_size(levels.height, levels.width)
        while True:
            try:
                with naming_shortage():
                    freeze_windows(generator, levels, windows, self._device, statistics)
                return
            except MemoryShortage as error:
                if statistics.mode == "sample":
                    raise MemoryShortage(
                        f"--norm-stats sample: out of memory with crops of {self.options.window} px"
                        f" ({error}); give a smaller --stats-memory"
                    ) from error
                release(self._device)
                side = halved(side, generator.stride, error)
                # Of other tiles the statistics are the same.
                plan = self.plan(levels.height, levels.width, side)
                windows = scene_windows(plan, generator.stride)

    def _tiled(self, levels: SceneLevels, done: Collection[Window]) -> Iterator[Output]:
        plan = self.plan(levels.height, levels.width)
        # Which tiles share a forward pass depends on the plan alone: neither on what an earlier run
        # did nor on which machine does it.
        batches = [
            batch
            for _, row in groupby(plan, key=lambda tile: tile.core.row)
            for batch in chunks(list(row), self._batch)
            if any(tile.core not in done for tile in batch)
        ]
        ends = {batch[-1].core for batch in batches}
        tiles = (tile for batch in batches for tile in batch)
        jobs: Iterator[Cell | Tile] = tiles
        if self._dense is not None:
            jobs = self._dense.schedule(tiles)

        def load(job: Cell | Tile) -> Read:
            return levels.read(job.read)

        batch: list[tuple[Tile, Read]] = []
        under_way: deque[Launched] = deque()
        cells = 0
        tile_forward = self._tile_forward(plan)
        with closing(prefetch(jobs, load, depth=self._batch + 1)) as reads:
            for job, read in reads:
                if isinstance(job, Cell):
                    if self._dense is not None:
                        self._dense.add(job, read)
                    cells += 1
                    continue
                batch.append((job, read))
                if job.core not in ends:
                    continue
                if self._dense is not None:
                    self._dense.forget_above(job.read.row)
                under_way.append(tile_forward.start(batch, cells))
                batch, cells = [], 0
                if len(under_way) > tile_forward.depth:
                    yield from under_way.popleft().outputs(done)
        for last in under_way:
            yield from last.outputs(done)

    def _tile_forward(self, plan: TilePlan) -> TileForward:
        return TileForward(
            self._forward,
            self._generator,
            plan,
            self.core_size(plan.height, plan.width),
            self._device,
            self._batch,
            # Without norm layers a tile is as good as its parts.
            divisible=self._mode != "tile" or not self._norms(),
        )

    def _forward(
        self, windows: list[Window], x: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if self._dense is not None:
            return self._dense(x, mask, windows)
        levels: torch.Tensor = self._generator(x, mask)
        return levels

    def _window(self, window: Window, read: Read) -> Levels:
        result = self._runner.run([read], partial(self._forward, [window]))
        levels: Levels = result()[0]
        return levels

    def _blend(self, height: int, width: int) -> BlendPlan:
        side = max(self.options.tile or self.options.window, self._generator.min_size)
        return BlendPlan(height, width, round_up(side, self._generator.stride))
