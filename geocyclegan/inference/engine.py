"""The tile engine: reads windows of a scene, runs a generator, gives finished product windows.

Memory is that of a few tiles (generators with a bounded receptive field) or of one row of windows
(generators that must blend), never of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import (
    Tile,
    Window,
    blend_weights,
    round_up,
    starts,
    tile_plan,
)

Levels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

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

    def __call__(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Translate `(samples, bands, height, width)` levels; see `models.generator`."""
        ...


class Source(Protocol):
    """What the engine needs to know of a scene."""

    def read(self, window: Window) -> tuple[npt.NDArray[Any], Mask]:
        """Return pixels `(bands, height, width)` and the valid mask of a window inside."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How to cut a scene.

    Attributes:
        tile: px per tile side without its halo; None chooses by device and scene.
        batch: tiles per forward pass; None chooses by device.
        window: side of the windows of a generator without a bounded receptive field.
    """

    tile: int | None = None
    batch: int | None = None
    window: int = 256


@dataclass(frozen=True)
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
        options: how to cut.
    """

    def __init__(
        self,
        generator: Translator,
        source: Domain,
        target: Domain,
        device: torch.device,
        options: EngineOptions,
    ) -> None:
        self._generator, self._device = generator, device
        self._source, self._target = source, target
        self._options = options
        cuda = device.type == "cuda"
        self._batch = options.batch or (_BATCH_CUDA if cuda else 1)

    def core_size(self, height: int, width: int) -> int:
        """Pixels per side of the tiles that a scene of this shape is cut into."""
        stride = self._generator.stride
        if self._options.tile is not None:
            return round_up(self._options.tile, stride)
        if height * width <= _UNTILED_PIXELS:
            return round_up(max(height, width), stride)
        default = _TILE_CUDA if self._device.type == "cuda" else _TILE_CPU
        return round_up(default, stride)

    def count(self, height: int, width: int) -> int:
        """Count the tiles of a scene of this shape."""
        if self._generator.halo is None:
            rows, cols, _ = self._blend_starts(height, width)
            return len(rows) * len(cols)
        core = self.core_size(height, width)
        return -(-height // core) * -(-width // core)

    def run(self, scene: Source, height: int, width: int) -> Iterator[tuple[Piece, int]]:
        """Translate a scene.

        Args:
            scene: gives pixels and masks.
            height: rows of the scene.
            width: columns of the scene.

        Yields:
            Finished pieces that partition the scene, each with the number of tiles done since the
            last one.
        """
        if self._generator.halo is None:
            yield from self._run_blended(scene, height, width)
            return
        plan = tile_plan(
            height,
            width,
            core=self.core_size(height, width),
            halo=self._generator.halo,
            stride=self._generator.stride,
            min_size=self._generator.min_size,
        )
        pending: list[tuple[Tile, Levels, Mask]] = []
        for tile in plan:
            levels, valid = self._read(scene, tile.read, height, width)
            core_valid = valid[tile.core.slices_in(tile.read)]
            if not core_valid.any():
                # Nothing to translate: no forward pass for the sea of nodata around a swath.
                yield self._finish(tile, self._empty(tile.core), core_valid), 1
                continue
            pending.append((tile, levels, valid))
            if len(pending) == self._batch:
                yield from self._flush(pending)
                pending = []
        yield from self._flush(pending)

    def _flush(self, pending: list[tuple[Tile, Levels, Mask]]) -> Iterator[tuple[Piece, int]]:
        if not pending:
            return
        outputs = self._forward([p[1] for p in pending], [p[2] for p in pending])
        for (tile, _, valid), output in zip(pending, outputs, strict=True):
            rows, cols = tile.core.slices_in(tile.read)
            yield self._finish(tile, output[:, rows, cols], valid[rows, cols]), 1

    def _finish(self, tile: Tile, levels: Levels, valid: Mask) -> Piece:
        return Piece(tile.core, self._target.to_pixels(levels, valid), valid)

    def _empty(self, window: Window) -> Levels:
        return np.zeros((self._target.count, *window.shape), np.float32)

    def _read(self, scene: Source, window: Window, height: int, width: int) -> tuple[Levels, Mask]:
        """Read a window as levels; what lies beyond the scene repeats its last row and column.

        Repeating is for the pad to a multiple of the stride only: at the border itself the
        generator's own padding acts.
        """
        inside = window.clip(height, width)
        pixels, valid = scene.read(inside)
        levels = self._source.to_levels(pixels, valid)
        pad = ((0, window.height - inside.height), (0, window.width - inside.width))
        if pad != ((0, 0), (0, 0)):
            levels = np.pad(levels, ((0, 0), *pad), mode="edge")
            valid = np.pad(valid, pad, mode="constant", constant_values=False)
        return levels, valid

    def _forward(self, levels: list[Levels], valid: list[Mask]) -> Levels:
        x = torch.from_numpy(np.stack(levels)).to(self._device)
        mask: Tensor | None = None
        if not all(v.all() for v in valid):
            mask = torch.from_numpy(np.stack(valid)[:, None]).to(self._device)
        with torch.inference_mode():
            output = self._generator(x, mask)
        result: Levels = output.float().cpu().numpy()
        return result

    def _blend_starts(self, height: int, width: int) -> tuple[list[int], list[int], int]:
        size = round_up(
            max(self._options.tile or self._options.window, self._generator.min_size),
            self._generator.stride,
        )
        step = max(size // 2, 1)
        return starts(height, size, step), starts(width, size, step), size

    def _run_blended(self, scene: Source, height: int, width: int) -> Iterator[tuple[Piece, int]]:
        """Fixed windows, half overlapping, whose weights sum to one at every pixel."""
        rows, cols, size = self._blend_starts(height, width)
        overlap = size // 2
        row_weights = blend_weights(height, rows, size, overlap)
        col_weights = blend_weights(width, cols, size, overlap)
        sums = np.zeros((self._target.count, size, width + size), np.float32)
        masks = np.zeros((size, width), np.bool_)
        for i, row in enumerate(rows):
            for col, col_weight in zip(cols, col_weights, strict=True):
                window = Window(row, col, size, size)
                levels, valid = self._read(scene, window, height, width)
                inside = min(size, width - col)
                masks[:, col : col + inside] = valid[:, :inside]
                if valid.any():
                    weight = row_weights[i][:, None] * col_weight[None, :]
                    sums[:, :, col : col + size] += (
                        self._forward([levels], [valid])[0] * weight
                    ).astype(np.float32)
            stop = rows[i + 1] if i + 1 < len(rows) else height
            done = stop - row
            yield self._finish_rows(row, done, width, sums, masks), len(cols)
            # What the next row of windows adds to moves up.
            sums[:, : size - done] = sums[:, done:].copy()
            sums[:, size - done :] = 0.0

    def _finish_rows(self, row: int, count: int, width: int, sums: Levels, masks: Mask) -> Piece:
        valid = masks[:count].copy()
        pixels = self._target.to_pixels(sums[:, :count, :width], valid)
        return Piece(Window(row, 0, count, width), pixels, valid)
