"""Generators without a bounded receptive field: windows of one size whose weights sum to one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from geocyclegan.errors import MemoryShortage
from geocyclegan.inference.levels import Levels, Output, Read, SceneLevels
from geocyclegan.inference.memory import naming_shortage
from geocyclegan.inference.threads import prefetch
from geocyclegan.raster.windows import Window, blend_weights, starts


@dataclass(frozen=True)
class BlendPlan:
    """Half-overlapping windows over a scene.

    Attributes:
        height: rows of the scene.
        width: columns of the scene.
        size: side of a window.
    """

    height: int
    width: int
    size: int

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""
        return starts(self.height, self.size, max(self.size // 2, 1))

    @property
    def cols(self) -> list[int]:
        """First columns of the windows."""
        return starts(self.width, self.size, max(self.size // 2, 1))

    @property
    def bands(self) -> list[Window]:
        """Row bands that are finished once a row of windows is done."""
        edges = pairwise([*self.rows, self.height])
        return [Window(row, 0, stop - row, self.width) for row, stop in edges]


def blended(
    levels: SceneLevels,
    plan: BlendPlan,
    channels: int,
    forward: Callable[[Window, Read], Levels],
    done: Collection[Window],
) -> Iterator[Output]:
    """Translate a scene band by band.

    Args:
        levels: the scene.
        plan: its windows.
        channels: bands of the product.
        forward: translates a window, given its levels `(bands, size, size)` and valid mask
            `(size, size)`, to levels `(channels, size, size)`.
        done: row bands that are left out.

    Yields:
        Each row band of the plan that is not in `done`, levels and mask as wide as the scene.

    Raises:
        MemoryShortage: a window does not fit into memory.
        SceneError: the scene cannot be read.
    """
    height, width, size = plan.height, plan.width, plan.size
    rows, cols, bands = plan.rows, plan.cols, plan.bands
    row_weights = blend_weights(height, rows, size, size // 2)
    col_weights = blend_weights(width, cols, size, size // 2)
    sums = np.zeros((channels, size, width + size), np.float32)
    masks = np.zeros((size, width), np.bool_)
    missing = [row for row, band in enumerate(bands) if band not in done]
    if not missing:
        return
    # What overlaps the first row that is missing is run again, for its share in the sum.
    first = next(i for i, row in enumerate(rows) if row + size > rows[missing[0]])
    windows = (
        (i, j, Window(rows[i], cols[j], size, size))
        for i in range(first, missing[-1] + 1)
        for j in range(len(cols))
    )
    with closing(prefetch(windows, lambda job: levels.read(job[2]))) as reads:
        for (i, j, window), read in reads:
            col, valid = window.col, read[1]
            inside = min(size, width - col)
            masks[:, col : col + inside] = valid[:, :inside]
            if valid.any():
                weight = row_weights[i][:, None] * col_weights[j][None, :]
                output = _window(forward, window, read)
                sums[:, :, col : col + size] += (output * weight).astype(np.float32)
            if j + 1 < len(cols):
                continue
            ready = bands[i].height
            if bands[i] not in done:
                levels_out, valid_out = sums[:, :ready, :width].copy(), masks[:ready].copy()
                yield Output(bands[i], levels_out, valid_out, len(cols))
            # What the next row of windows adds to moves up.
            sums[:, : size - ready] = sums[:, ready:].copy()
            sums[:, size - ready :] = 0.0


def _window(forward: Callable[[Window, Read], Levels], window: Window, read: Read) -> Levels:
    try:
        with naming_shortage():
            return forward(window, read)
    except MemoryShortage as error:
        raise MemoryShortage(
            f"out of memory with windows of {window.width} px ({error}), and this generator takes"
            " no smaller ones; free some memory or choose another --device"
        ) from error
