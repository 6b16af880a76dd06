"""The tile engine: reads windows of a scene, runs a generator, gives finished product windows.

Memory is that of a few tiles (generators with a bounded receptive field) or of one row of windows
(generators that must blend), never of the scene. A background thread reads and prepares the tiles
ahead of the one that is being translated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from geocyclegan.inference.dense import Cell, DenseStatistics
from geocyclegan.inference.levels import Levels, Mask, Read, SceneLevels, Source, to_tensors
from geocyclegan.inference.statistics import (
    StatisticsOptions,
    freeze_exact,
    freeze_given,
    freeze_sample,
)
from geocyclegan.inference.threads import prefetch
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import (
    CellGrid,
    Tile,
    TilePlan,
    Window,
    blend_weights,
    round_up,
    starts,
    tile_plan,
)

# Below this many pixels a scene goes through the generator in one piece.
_UNTILED_PIXELS = 1024 * 1024
_TILE_CPU, _TILE_CUDA = 512, 1024
_BATCH_CUDA = 4


class Translator(Protocol):
    """What the engine needs to know of a generator (see `geocyclegan.models`)."""

    stride: int
    halo: int | None
    min_size: int
    out_channels: int

    def __call__(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Translate `(samples, bands, height, width)` levels; see `models.generator`."""
        ...


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
    """

    tile: int | None = None
    batch: int | None = None
    window: int = 256
    shift: int = 0
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)


@dataclass(frozen=True, eq=False)
class Output:
    """A translated part of the scene, as levels.

    Attributes:
        window: where, in pixels of the scene.
        levels: `(bands, height, width)` in [-1, 1].
        valid: `(height, width)`.
        tiles: how many tiles are done since the last output.
    """

    window: Window
    levels: Levels
    valid: Mask
    tiles: int


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
        trained: statistics of the training set, for mode "frozen".

    Attributes:
        options: how to cut, and whose statistics to use.
    """

    def __init__(
        self,
        generator: Translator,
        source: Domain,
        target: Domain,
        device: torch.device,
        options: EngineOptions,
        trained: Sequence[Moments] | None = None,
    ) -> None:
        self._generator, self._device = generator, device
        self._source, self._target = source, target
        self.options, self._trained = options, trained
        cuda = device.type == "cuda"
        self._batch = options.batch or (_BATCH_CUDA if cuda else 1)
        self._dense: DenseStatistics | None = None

    def core_size(self, height: int, width: int) -> int:
        """Pixels per side of the tiles that a scene of this shape is cut into."""
        stride = self._generator.stride
        if self.options.tile is not None:
            return round_up(self.options.tile, stride)
        if height * width <= _UNTILED_PIXELS:
            return round_up(max(height, width), stride)
        default = _TILE_CUDA if self._device.type == "cuda" else _TILE_CPU
        return round_up(default, stride)

    def count(self, height: int, width: int) -> int:
        """Count the tiles of a scene of this shape, and the cells of mode "dense"."""
        if self._generator.halo is None:
            rows, cols, _ = self._blend_starts(height, width)
            return len(rows) * len(cols)
        cells = len(self._grid(height, width)) if self._mode == "dense" else 0
        return len(self.plan(height, width)) + cells

    def plan(self, height: int, width: int) -> TilePlan:
        """Cut a scene of this shape, for a generator with a bounded receptive field."""
        return tile_plan(
            height,
            width,
            core=self.core_size(height, width),
            halo=self._generator.halo or 0,
            stride=self._generator.stride,
            min_size=self._generator.min_size,
            shift=self.options.shift,
        )

    def run(self, scene: Source, height: int, width: int) -> Iterator[tuple[Piece, int]]:
        """Translate a scene.

        Args:
            scene: gives pixels and masks; read from a background thread.
            height: rows of the scene.
            width: columns of the scene.

        Yields:
            Finished pieces that partition the scene, each with the number of tiles done since the
            last one.
        """
        for output in self.outputs(scene, height, width):
            yield self.finish(output), output.tiles

    def finish(self, output: Output) -> Piece:
        """Turn levels into pixels of the target domain."""
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
        """
        levels = SceneLevels(scene, self._source, height, width)
        self._prepare(levels)
        if self._generator.halo is None:
            yield from self._blended(levels, done)
        else:
            yield from self._tiled(levels, done)

    @property
    def _mode(self) -> str:
        generator = self._generator
        has_norms = isinstance(generator, Generator) and generator.norm_layers()
        return self.options.statistics.mode if has_norms else "tile"

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
        if not isinstance(generator, Generator):
            return
        shape = levels.height, levels.width
        statistics = self.options.statistics
        generator.thaw()
        if mode == "frozen":
            freeze_given(generator, self._trained)
        elif mode == "sample":
            freeze_sample(generator, levels, self._grid(*shape), self._device, statistics)
        elif mode == "exact":
            freeze_exact(generator, levels, self.plan(*shape), self._device, statistics)
        elif mode == "dense":
            grid = self._grid(*shape)
            self._dense = DenseStatistics(generator, grid, self._device, self._batch)
        else:
            for norm in generator.norm_layers():
                # A batch of tiles is no batch of crops: each tile has its own statistics.
                norm.mode = "instance" if norm.pool == "crop" else "collect"

    def _tiled(self, levels: SceneLevels, done: Collection[Window]) -> Iterator[Output]:
        plan = self.plan(levels.height, levels.width)
        jobs: Iterator[Cell | Tile] = (tile for tile in plan if tile.core not in done)
        if self._dense is not None:
            jobs = self._dense.schedule(tile for tile in plan if tile.core not in done)

        def load(job: Cell | Tile) -> Read:
            return levels.read(job.read)

        pending: list[tuple[Tile, Read]] = []
        measured = 0
        with closing(prefetch(jobs, load, depth=self._batch + 1)) as reads:
            for job, read in reads:
                if isinstance(job, Cell):
                    # Tiles above may need cells that are forgotten once the next row is known.
                    yield from self._flush(pending, measured)
                    pending, measured = [], (0 if pending else measured) + 1
                    if self._dense is not None:
                        self._dense.add(job, read)
                    continue
                core_valid = read[1][job.core.slices_in(job.read)]
                if not core_valid.any():
                    # No forward pass for the sea of nodata around a swath.
                    empty = np.zeros((self._target.count, *job.core.shape), np.float32)
                    yield Output(job.core, empty, core_valid, 1 + measured)
                    measured = 0
                    continue
                pending.append((job, read))
                if len(pending) == self._batch:
                    yield from self._flush(pending, measured)
                    pending, measured = [], 0
        yield from self._flush(pending, measured)

    def _flush(self, pending: list[tuple[Tile, Read]], measured: int) -> Iterator[Output]:
        if not pending:
            return
        outputs = self._forward([tile.read for tile, _ in pending], [read for _, read in pending])
        for (tile, (_, valid)), output in zip(pending, outputs, strict=True):
            rows, cols = tile.core.slices_in(tile.read)
            yield Output(tile.core, output[:, rows, cols], valid[rows, cols], 1 + measured)
            measured = 0

    def _forward(self, windows: list[Window], reads: list[Read]) -> Levels:
        x, mask = to_tensors(reads, self._device)
        with torch.inference_mode():
            if self._dense is not None:
                output = self._dense(x, mask, windows)
            else:
                output = self._generator(x, mask)
        result: Levels = output.float().cpu().numpy()
        return result

    def _blend_starts(self, height: int, width: int) -> tuple[list[int], list[int], int]:
        size = round_up(
            max(self.options.tile or self.options.window, self._generator.min_size),
            self._generator.stride,
        )
        step = max(size // 2, 1)
        return starts(height, size, step), starts(width, size, step), size

    def _blended(self, levels: SceneLevels, done: Collection[Window]) -> Iterator[Output]:
        """Fixed windows, half overlapping, whose weights sum to one at every pixel."""
        height, width = levels.height, levels.width
        rows, cols, size = self._blend_starts(height, width)
        overlap = size // 2
        row_weights = blend_weights(height, rows, size, overlap)
        col_weights = blend_weights(width, cols, size, overlap)
        sums = np.zeros((self._target.count, size, width + size), np.float32)
        masks = np.zeros((size, width), np.bool_)
        parts = [Window(row, 0, stop - row, width) for row, stop in pairwise([*rows, height])]
        missing = [row for row, part in enumerate(parts) if part not in done]
        if not missing:
            return
        # What overlaps the first row that is missing is run again, for its share in the sum.
        first = next(i for i, row in enumerate(rows) if row + size > rows[missing[0]])
        windows = (
            (i, j, Window(rows[i], cols[j], size, size))
            for i in range(first, len(rows))
            for j in range(len(cols))
        )
        with closing(prefetch(windows, lambda job: levels.read(job[2]))) as reads:
            for (i, j, window), read in reads:
                col, valid = window.col, read[1]
                inside = min(size, width - col)
                masks[:, col : col + inside] = valid[:, :inside]
                if valid.any():
                    weight = row_weights[i][:, None] * col_weights[j][None, :]
                    output = self._forward([window], [read])[0]
                    sums[:, :, col : col + size] += (output * weight).astype(np.float32)
                if j + 1 < len(cols):
                    continue
                ready = parts[i].height
                if parts[i] not in done:
                    levels_out, valid_out = sums[:, :ready, :width].copy(), masks[:ready].copy()
                    yield Output(parts[i], levels_out, valid_out, len(cols))
                # What the next row of windows adds to moves up.
                sums[:, : size - ready] = sums[:, ready:].copy()
                sums[:, size - ready :] = 0.0
