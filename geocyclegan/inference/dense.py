"""Statistics that follow the scene: cells are measured just before the tiles that need them.

Each cell goes through the generator as a training crop would, alone and normalised by itself; what
its norm layers saw becomes a node of the lattice (`models.dense`). Cells are measured row by row as
the tiles move down, and forgotten behind them, so memory is that of a few rows of cells.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geocyclegan.errors import MemoryShortage
from geocyclegan.inference.levels import Read, to_tensors
from geocyclegan.inference.memory import naming_shortage, release
from geocyclegan.models.dense import CellMap, CellStatistics
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.raster.windows import CellGrid, Tile, Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """A cell that is to be measured.

    Attributes:
        row: row in the lattice.
        read: the window.
        last: whether it ends the row.
    """

    row: int
    read: Window
    last: bool


class DenseStatistics:
    """Measures cells and runs a generator with what was measured.

    Args:
        generator: in eval mode, on `device`; its norm layers are left in mode "dense".
        grid: the cells.
        device: where the generator is.
        batch: cells per forward pass.
    """

    def __init__(
        self, generator: Generator, grid: CellGrid, device: torch.device, batch: int
    ) -> None:
        self._generator, self._grid = generator, grid
        self._device, self._batch = device, batch
        self._map = CellMap(*grid.centres(), pixels=grid.height * grid.width)
        self._norms = generator.norm_layers()
        self._layers = [CellStatistics(self._map) for _ in self._norms]
        self._pending: list[tuple[int, Read]] = []
        self._counts: list[float] = []
        self._found: list[tuple[list[int], list[Moments]]] = []
        self._spread()

    def schedule(self, tiles: Iterable[Tile]) -> Iterator[Cell | Tile]:
        """Yield the tiles in their order, each after the cells that it needs."""
        known = 0
        for tile in tiles:
            needed = self._map.rows_around(tile.read.row, tile.read.row_stop)
            stop = needed.stop
            for row in range(max(known, needed.start), stop):
                for col in range(len(self._grid.cols)):
                    last = col == len(self._grid.cols) - 1
                    yield Cell(row, self._grid.window(row, col), last)
            known = max(known, stop)
            yield tile

    def add(self, cell: Cell, read: Read) -> None:
        """Take the next cell of a row; the last one completes the row.

        Args:
            cell: the cell.
            read: its levels `(bands, height, width)` and valid mask `(height, width)`.
        """
        count = float(read[1].sum())
        if count:
            self._pending.append((len(self._counts), read))
        self._counts.append(count)
        if len(self._pending) >= self._batch or (cell.last and self._pending):
            self._measure()
        if cell.last:
            self._complete(cell.row)

    def __call__(self, x: Tensor, valid: Tensor | None, windows: Sequence[Window]) -> Tensor:
        """Translate windows.

        Args:
            x: levels (samples, bands, height, width), 0 where not valid.
            valid: mask (samples, 1, height, width); None: all are valid.
            windows: where the samples lie in the scene, not above what was forgotten.

        Returns:
            Levels (samples, bands of the product, height, width).

        Raises:
            ValueError: the cells around a window have not been measured, or are forgotten.
        """
        self._map.clear_blocks()
        out: Tensor = self._generator(x, valid, [(w.row, w.col) for w in windows])
        self._map.clear_blocks()
        return out

    def forget_above(self, row: int) -> None:
        """Forget the cells that only rows of pixels above this one need."""
        first = self._map.rows_around(row, 0).start
        self._map.drop_before(first)
        for layer in self._layers:
            layer.drop_before(first)

    def _measure(self) -> None:
        """Run the pending cells, each normalised by itself.

        Raises:
            MemoryShortage: not even one of them fits into memory.
        """
        pending, self._pending = self._pending, []
        while pending:
            some = pending[: self._batch]
            try:
                with naming_shortage():
                    collected = self._collect([read for _, read in some])
            except MemoryShortage:
                if self._batch == 1:
                    raise
                self._batch //= 2
                release(self._device)
                log.warning("out of memory: goes on with %d cells at a time", self._batch)
                continue
            self._found.append(([col for col, _ in some], collected))
            pending = pending[len(some) :]
        self._spread()

    def _collect(self, reads: Sequence[Read]) -> list[Moments]:
        for norm in self._norms:
            norm.mode = "collect"
        x, mask = to_tensors(reads, self._device)
        with torch.inference_mode():
            self._generator(x, mask)
        return [norm.collected for norm in self._norms if norm.collected is not None]

    def _complete(self, row: int) -> None:
        """Hand a row over to the layers; a cell without a valid pixel has no say."""
        self._map.put(row, torch.tensor(self._counts))
        for index, (norm, layer) in enumerate(zip(self._norms, self._layers, strict=True)):
            mean = torch.zeros(len(self._counts), norm.channels, device=self._device)
            var = torch.zeros_like(mean)
            for cols, collected in self._found:
                mean[cols] = collected[index].mean.float()
                var[cols] = collected[index].var.float()
            layer.put(row, mean, var)
        self._counts, self._found = [], []

    def _spread(self) -> None:
        for norm, layer in zip(self._norms, self._layers, strict=True):
            norm.collected = None
            norm.spread(layer)
