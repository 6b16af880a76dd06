"""Tiles through a generator: in batches, in parts where memory runs out, waited for late."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from geocyclegan.errors import MemoryShortage
from geocyclegan.inference.levels import Levels, Mask, Output, Read
from geocyclegan.inference.memory import SMALLEST_TILE, naming_shortage, release
from geocyclegan.inference.transfer import Result, Runner
from geocyclegan.models.generator import Generator
from geocyclegan.raster.windows import Tile, TilePlan, Window, round_up, split_tile

log = logging.getLogger(__name__)

Item = TypeVar("Item")


Forward = Callable[[list[Window], torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Takes windows, their levels and their mask, and gives levels."""


class TileForward:
    """Runs tiles of one scene.

    Where memory runs out, fewer tiles go at once, and then tiles in parts: with a halo and
    statistics that do not depend on the tile, the pixels are the same.

    Args:
        forward: runs the generator on the windows of a batch, given their levels (samples, bands,
            height, width) and mask (samples, 1, height, width) or None, all of one size.
        geometry: the generator.
        plan: the tiles of the scene.
        core: px per side of a tile's core.
        device: where the generator is.
        at_once: most tiles per forward pass.
        bands: of the product.
        divisible: whether parts of a tile become the pixels of the whole tile.
    """

    def __init__(
        self,
        forward: Forward,
        geometry: Generator,
        plan: TilePlan,
        core: int,
        device: torch.device,
        at_once: int,
        *,
        divisible: bool,
    ) -> None:
        self._forward, self._geometry, self._plan = forward, geometry, plan
        self._device, self._at_once, self._divisible = device, at_once, divisible
        self._core, self._side = core, core
        self._runner = Runner(device)
        self.depth = self._runner.depth

    def start(self, batch: list[tuple[Tile, Read]], cells: int) -> Launched:
        """Start tiles.

        Args:
            batch: tiles, each with the levels `(bands, height, width)` and the valid mask
                `(height, width)` of what it reads.
            cells: how many cells were measured for them.

        Raises:
            MemoryShortage: not even small parts of a tile fit into memory.
        """
        # No forward pass for the sea of nodata around a swath.
        some = [
            (tile, read) for tile, read in batch if read[1][tile.core.slices_in(tile.read)].any()
        ]
        while True:
            parts = [self._parts(tile, read) for tile, read in some]
            try:
                with naming_shortage():
                    results = self._run([part for of_tile in parts for part in of_tile])
                break
            except MemoryShortage as error:
                self._shrink(error)
        waiting = iter(results)
        found = {
            tile.core: [(part.core, next(waiting)) for part, _ in of_tile]
            for (tile, _), of_tile in zip(some, parts, strict=True)
        }
        masks = [(tile.core, read[1][tile.core.slices_in(tile.read)]) for tile, read in batch]
        return Launched(masks, found, self._geometry.out_channels, cells)

    def _parts(self, tile: Tile, read: Read) -> list[tuple[Tile, Read]]:
        """Cut a tile that takes too much memory; most do not."""
        if max(tile.core.shape) <= self._side:
            return [(tile, read)]
        parts = []
        for part in split_tile(
            tile,
            self._plan.height,
            self._plan.width,
            core=self._side,
            halo=self._geometry.halo or 0,
            stride=self._geometry.stride,
            min_size=self._geometry.min_size,
        ):
            rows, cols = part.read.slices_in(tile.read)
            parts.append((part, (read[0][:, rows, cols], read[1][rows, cols])))
        return parts

    def _run(self, parts: list[tuple[Tile, Read]]) -> list[Result]:
        """Start forward passes; what is returned gives the core of each part."""
        results: list[Result] = []
        # Where the scene is small, parts of a tile may be of several sizes.
        at_once = self._at_once if self._side == self._core else 1
        for chunk in chunks(parts, at_once):
            forward = partial(self._forward, [tile.read for tile, _ in chunk])
            result = self._runner.run([read for _, read in chunk], forward)
            results += [_core_of(result, index, tile) for index, (tile, _) in enumerate(chunk)]
        return results

    def _shrink(self, error: MemoryShortage) -> None:
        release(self._device)
        if self._at_once > 1:
            self._at_once //= 2
            log.warning("out of memory: goes on with %d tiles at a time", self._at_once)
        elif self._divisible:
            self._side = halved(self._side, self._geometry.stride, error)
        else:
            raise MemoryShortage(
                f"out of memory ({error}); --norm-stats tile depends on the tile, so it is not"
                " halved by itself: give a smaller --tile"
            )


@dataclass(frozen=True, eq=False)
class Launched:
    """Tiles that were started together.

    Attributes:
        masks: core and valid mask `(height, width)` of each tile, of its core.
        results: by core, the parts of each tile that has valid pixels, and what waits for their
            levels `(bands, height, width)`.
        bands: of the product.
        cells: that were measured for them.
    """

    masks: list[tuple[Window, Mask]]
    results: dict[Window, list[tuple[Window, Result]]]
    bands: int
    cells: int

    def outputs(self, done: Collection[Window]) -> Iterator[Output]:
        """Wait for the tiles and yield them, without those whose core is in `done`."""
        cells = self.cells
        for core, valid in self.masks:
            if core not in done:
                yield Output(core, self._levels(core), valid, 1 + cells)
                cells = 0

    def _levels(self, core: Window) -> Levels:
        parts = self.results.get(core, [])
        if len(parts) == 1:
            return parts[0][1]()
        levels = np.zeros((self.bands, *core.shape), np.float32)
        for part, result in parts:
            rows, cols = part.slices_in(core)
            levels[:, rows, cols] = result()
        return levels


def halved(side: int, stride: int, error: MemoryShortage) -> int:
    """Return half a tile's side, a multiple of the stride, and log that memory ran out.

    Raises:
        MemoryShortage: tiles are as small as they get.
    """
    half = round_up(-(-side // 2), stride)
    if side <= SMALLEST_TILE or half >= side:
        raise MemoryShortage(
            f"out of memory ({error}), even with tiles of {side} px; free some memory or choose"
            " another --device"
        )
    log.warning(
        "out of memory with tiles of %d px: goes on with %d px, which gives the same pixels",
        *(side, half),
    )
    return half


def chunks(items: list[Item], size: int) -> list[list[Item]]:
    """Cut a list into lists of `size` items, the last of which may be shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _core_of(result: Result, index: int, tile: Tile) -> Result:
    rows, cols = tile.core.slices_in(tile.read)
    return lambda: result()[index, :, rows, cols]
