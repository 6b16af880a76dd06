"""Statistics that vary over a scene: a map on a lattice of cells, in absolute coordinates.

Each cell is as large as a training crop. The statistics at a pixel are those of the crop around it,
as far as the lattice can tell: the crop shares with each of the four cells around it the area that
bilinear interpolation gives as a weight, so these four are merged with that weight times their
valid pixels. The variance of the merger has two parts, within cells and between them, and both are
sums of products that are not negative: nothing cancels, and the map is continuous.

A pixel's statistics depend on where in the scene it is and not on the tile that asks, so tiles
agree. Source of the idea: Ho et al., "Every Pixel Has its Moments: Ultra-High-Resolution Unpaired
Image-to-Image Translation via Dense Normalization", ECCV 2024.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

Corner = tuple[int, int]
At = tuple[int, int]

_PAIRS = tuple(combinations(range(4), 2))


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a window that lies between the same four cells.

    Attributes:
        rows: rows of the window.
        cols: columns of the window.
        corners: (row, column) of the four cells in the lattice.
        weights: (10, rows, columns): of the four cells, then of the six pairs of cells.
    """

    rows: slice
    cols: slice
    corners: tuple[Corner, Corner, Corner, Corner]
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Strip:
    """All columns of a window, in the rows that lie between the same two rows of cells.

    Attributes:
        rows: rows of the window.
        low: the row of cells above them.
        high: the row of cells below them.
        before: (columns,) the column of cells to the left of each column of the window.
        after: (columns,) the same to the right.
        weights: (columns, rows, 10): of the four cells around a pixel, then of the six pairs.
    """

    rows: slice
    low: int
    high: int
    before: Tensor
    after: Tensor
    weights: Tensor


class CellMap:
    """The lattice that all norm layers of a generator share, and how much of each cell is valid.

    Args:
        rows: centres of the rows of cells in pixels of the scene, ascending.
        cols: the same for columns.
        pixels: of a cell, in pixels of the scene; see `CellStatistics.normalize`.
    """

    def __init__(
        self, rows: Sequence[float], cols: Sequence[float], pixels: float = math.inf
    ) -> None:
        self.rows, self.cols = tuple(rows), tuple(cols)
        self.pixels = pixels
        self._counts: dict[int, list[float]] = {}
        self._blocks: dict[tuple[int, At, At], list[Block]] = {}
        self._strips: dict[tuple[int, At, At], list[Strip]] = {}

    def put(self, row: int, counts: Tensor) -> None:
        """Set how many pixels of the scene are valid in each cell of a row.

        Args:
            row: number of the row in the lattice.
            counts: (columns of the lattice,), one for each cell.
        """
        self._counts[row] = [float(count) for count in counts]

    def drop_before(self, row: int) -> None:
        """Forget the rows above one."""
        for old in [known for known in self._counts if known < row]:
            del self._counts[old]

    def rows_around(self, start: int, stop: int) -> range:
        """Rows of cells that pixel rows from `start` up to `stop` depend on."""
        return _needed(self.rows, start, stop)

    def cols_around(self, start: int, stop: int) -> range:
        """Columns of cells that pixel columns from `start` up to `stop` depend on."""
        return _needed(self.cols, start, stop)

    def blocks(self, scale: int, at: At, shape: At, device: torch.device) -> list[Block]:
        """Cut a window into blocks.

        Args:
            scale: side of one of its pixels in pixels of the scene.
            at: row and column of its first pixel in the scene, in pixels of the scene.
            shape: its rows and columns.
            device: where the weights shall be.

        Raises:
            ValueError: the cells around it have not been measured.
        """
        key = (scale, at, shape)
        if key not in self._blocks:
            self._blocks[key] = [
                self._block(row, col, device)
                for row in _segments(self.rows, at[0], shape[0], scale)
                for col in _segments(self.cols, at[1], shape[1], scale)
            ]
        return self._blocks[key]

    def _block(self, row: _Segment, col: _Segment, device: torch.device) -> Block:
        corners = (
            (row.low, col.low),
            (row.low, col.high),
            (row.high, col.low),
            (row.high, col.high),
        )
        self._require(row)
        down = row.share.to(device, torch.float32)[:, None]
        across = col.share.to(device, torch.float32)[None, :]
        areas = (
            (1 - down) * (1 - across),
            (1 - down) * across,
            down * (1 - across),
            down * across,
        )
        counts = [self._counts[i][j] for i, j in corners]
        most = max(*counts, 1e-12)
        single = torch.stack(
            [area * (count / most) for area, count in zip(areas, counts, strict=True)]
        )
        # Where all four are empty, so is the pixel, and the mask puts it to 0.
        single = single / single.sum(dim=0, keepdim=True).clamp_min(1e-12)
        pairs = torch.stack([single[a] * single[b] for a, b in _PAIRS])
        return Block(row.where, col.where, corners, torch.cat([single, pairs]))

    def strips(self, scale: int, at: At, shape: At, device: torch.device) -> list[Strip]:
        """Cut a window into strips: the same as blocks, in a few operations for a whole row.

        Args:
            scale: side of one of its pixels in pixels of the scene.
            at: row and column of its first pixel in the scene, in pixels of the scene.
            shape: its rows and columns.
            device: where the weights shall be.

        Raises:
            ValueError: the cells around it have not been measured.
        """
        key = (scale, at, shape)
        if key not in self._strips:
            cols = _segments(self.cols, at[1], shape[1], scale)
            sizes = torch.tensor([len(col.share) for col in cols])
            before, after = (
                torch.tensor(cells).repeat_interleave(sizes)
                for cells in ([col.low for col in cols], [col.high for col in cols])
            )
            across = torch.cat([col.share for col in cols]).float()
            places = [_moved(each, device) for each in (before, after, across)]
            self._strips[key] = [
                self._strip(row, before, after, places, device)
                for row in _segments(self.rows, at[0], shape[0], scale)
            ]
        return self._strips[key]

    def _strip(
        self,
        row: _Segment,
        before: Tensor,
        after: Tensor,
        places: Sequence[Tensor],
        device: torch.device,
    ) -> Strip:
        self._require(row)
        above, below = (
            torch.tensor(self._counts[cells], dtype=torch.float64) for cells in (row.low, row.high)
        )
        # (4, columns): of the four cells around a pixel.
        counts = torch.stack([above[before], above[after], below[before], below[after]])
        counts = _moved((counts / counts.amax(dim=0).clamp_min(1e-12)).float(), device)
        down, across = _moved(row.share.float(), device)[None, :], places[2][:, None]
        areas = (
            (1 - across) * (1 - down),
            across * (1 - down),
            (1 - across) * down,
            across * down,
        )
        single = torch.stack(
            [area * count[:, None] for area, count in zip(areas, counts, strict=True)]
        )
        single = single / single.sum(dim=0, keepdim=True).clamp_min(1e-12)
        pairs = [single[a] * single[b] for a, b in _PAIRS]
        weights = torch.stack([*single, *pairs], dim=2)
        return Strip(row.where, row.low, row.high, places[0], places[1], weights)

    def _require(self, row: _Segment) -> None:
        if row.low not in self._counts or row.high not in self._counts:
            raise ValueError(f"cells of the rows {row.low} and {row.high} have not been measured")

    def clear_blocks(self) -> None:
        """Forget the weights of windows that are done; they are as large as features."""
        self._blocks.clear()
        self._strips.clear()


class CellStatistics:
    """The statistics of one norm layer in each cell, row by row.

    Args:
        cells: the lattice.
    """

    def __init__(self, cells: CellMap) -> None:
        self.cells = cells
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}

    def put(self, row: int, mean: Tensor, var: Tensor) -> None:
        """Set a row of cells.

        Args:
            row: number of the row in the lattice.
            mean: (columns of the lattice, channels).
            var: population variances of the same shape.
        """
        self._rows[row] = mean.float(), var.float()

    def row(self, row: int) -> tuple[Tensor, Tensor]:
        """Return means and variances of a row of cells, each (columns, channels), float32.

        Raises:
            KeyError: the row has not been set, or was dropped.
        """
        return self._rows[row]

    def drop_before(self, row: int) -> None:
        """Forget the rows above one."""
        for old in [known for known in self._rows if known < row]:
            del self._rows[old]

    def normalize(self, x: Tensor, scale: int, at: At, eps: float) -> Tensor:
        """Normalise the features of one sample.

        A pixel among n others is never more than √(n − 1) standard deviations from their mean, and
        the cell that a pixel lies in has a quarter of the weight at least. What is beyond twice
        that bound is rounding, which over flat ground would grow from layer to layer until it
        overflows: the layer's statistics say that nothing varies there. It is cut off.

        Args:
            x: (channels, height, width), single precision or better.
            scale: side of one of its pixels in pixels of the scene.
            at: row and column of its first pixel in the scene, in pixels of the scene.
            eps: added to the variance.

        Returns:
            Features of the same shape.

        Raises:
            ValueError: the cells around it have not been measured.
        """
        # A GPU is slow to start many small operations, a CPU does less for each block by itself.
        out = (self._by_strips if x.is_cuda else self._by_blocks)(x, scale, at, eps)
        bound = 2.0 * math.sqrt(self.cells.pixels) / scale
        return out.clamp_(-bound, bound)

    def _by_blocks(self, x: Tensor, scale: int, at: At, eps: float) -> Tensor:
        out = torch.empty_like(x)
        shape = x.shape[-2], x.shape[-1]
        for block in self.cells.blocks(scale, at, shape, x.device):
            means = torch.stack([self._rows[i][0][j] for i, j in block.corners], dim=1)
            within = torch.stack([self._rows[i][1][j] for i, j in block.corners], dim=1)
            between = torch.stack([(means[:, a] - means[:, b]).square() for a, b in _PAIRS], dim=1)
            weights = block.weights.to(x.dtype).flatten(1)
            parts = torch.cat([within, between], dim=1).to(x)
            part = x[:, block.rows, block.cols]
            mean = (means.to(x) @ weights[:4]).view(part.shape)
            scatter = (parts @ weights).view(part.shape)
            out[:, block.rows, block.cols] = (part - mean) * scatter.add_(eps).rsqrt_()
        return out

    def _by_strips(self, x: Tensor, scale: int, at: At, eps: float) -> Tensor:
        """The same, with one small product for each column of a strip."""
        out = torch.empty_like(x)
        shape = x.shape[-2], x.shape[-1]
        for strip in self.cells.strips(scale, at, shape, x.device):
            # (columns, 4, channels): of the four cells around a pixel.
            means, within = (
                torch.stack(
                    [
                        self._rows[row][kind].index_select(0, cells)
                        for row in (strip.low, strip.high)
                        for cells in (strip.before, strip.after)
                    ],
                    dim=1,
                ).to(x)
                for kind in (0, 1)
            )
            between = torch.stack([(means[:, a] - means[:, b]).square() for a, b in _PAIRS], dim=1)
            weights = strip.weights.to(x.dtype)
            # (columns, rows, channels) to the order of `x`.
            mean = torch.bmm(weights[:, :, :4], means).permute(2, 1, 0)
            scatter = torch.bmm(weights, torch.cat([within, between], dim=1)).permute(2, 1, 0)
            out[:, strip.rows] = (x[:, strip.rows] - mean) * scatter.add_(eps).rsqrt_()
        return out


@dataclass(frozen=True, eq=False)
class _Segment:
    """Pixels of a window along one axis that lie between two neighbouring cells' centres.

    Attributes:
        where: in the window.
        low: the cell before them.
        high: the cell after them; `low` at the ends of the scene.
        share: how far each is on its way from `low` to `high`, 0 to 1.
    """

    where: slice
    low: int
    high: int
    share: Tensor


def _segments(centres: Sequence[float], start: int, count: int, scale: int) -> list[_Segment]:
    """Cut an axis of a window at the centres of the cells."""
    position = start + (torch.arange(count, dtype=torch.float64) + 0.5) * scale
    where = torch.bucketize(position, torch.tensor(centres, dtype=torch.float64), right=True)
    found: list[_Segment] = []
    values, sizes = torch.unique_consecutive(where, return_counts=True)
    first = 0
    for after, size in zip(values.tolist(), sizes.tolist(), strict=True):
        low, high = max(after - 1, 0), min(after, len(centres) - 1)
        inside = position[first : first + size]
        if low == high:
            share = torch.zeros_like(inside)
        else:
            share = (inside - centres[low]) / (centres[high] - centres[low])
        found.append(_Segment(slice(first, first + size), low, high, share))
        first += size
    return found


def _moved(x: Tensor, device: torch.device) -> Tensor:
    """A small tensor on another device, for which nobody waits."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def _needed(centres: Sequence[float], start: int, stop: int) -> range:
    first = max(bisect_right(centres, start) - 1, 0)
    last = min(bisect_right(centres, stop), len(centres) - 1)
    return range(first, last + 1)
