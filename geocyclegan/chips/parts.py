"""How a scene is divided among processes, so that each of its blocks is decoded once.

A scene is cut into cells along its blocks. Each cell has the windows that begin in it, and its part
is the cell and these windows: what two parts share is read twice, which is nothing where windows
neither overlap nor lie across blocks. Parts depend on the scene and the windows alone, not on the
number of processes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geocyclegan.raster.windows import Window

# Samples (pixels x bands) that a process holds at once; the second where files are stored in strips
# as wide as the scene, since a narrower part would decode all of each strip.
SAMPLES_AT_ONCE = 1 << 24
_SAMPLES_IN_STRIPS = 1 << 27


@dataclass(frozen=True)
class Part:
    """A piece of a scene for one process.

    Attributes:
        core: the pixels whose statistics it gives; cores partition the scene.
        read: core and windows together; may reach beyond the scene.
        windows: indexes of the windows that begin in the core.
    """

    core: Window
    read: Window
    windows: tuple[int, ...]


def divide(
    shape: tuple[int, int],
    bands: int,
    block: tuple[int, int],
    windows: Sequence[Window],
    size: int,
    step: int,
) -> Iterator[Part]:
    """Divide a scene, row by row of cells.

    Args:
        shape: rows and columns of the scene.
        bands: number of bands.
        block: rows and columns of its blocks.
        windows: the windows, of one size.
        size: their side in pixels.
        step: pixels from one to the next; for random windows their size.
    """
    height, width = shape
    rows, cols = _cell(shape, bands, block, size, step)
    tops, lefts = _edges(height, rows, size), _edges(width, cols, size)
    inside: dict[tuple[int, int], list[int]] = {}
    for i, window in enumerate(windows):
        cell = bisect_right(tops, window.row) - 1, bisect_right(lefts, window.col) - 1
        inside.setdefault(cell, []).append(i)
    for i, (top, bottom) in enumerate(zip(tops, [*tops[1:], height], strict=True)):
        for j, (left, right) in enumerate(zip(lefts, [*lefts[1:], width], strict=True)):
            chosen = inside.get((i, j), [])
            row_stop = max([bottom, *(windows[k].row_stop for k in chosen)])
            col_stop = max([right, *(windows[k].col_stop for k in chosen)])
            yield Part(
                Window(top, left, bottom - top, right - left),
                Window(top, left, row_stop - top, col_stop - left),
                tuple(chosen),
            )


def _cell(
    shape: tuple[int, int], bands: int, block: tuple[int, int], size: int, step: int
) -> tuple[int, int]:
    """Return rows and columns of a cell, multiples of the step and, where it can be, of blocks."""
    width = shape[1]
    pixels = max(SAMPLES_AT_ONCE // bands, 1)
    down = _unit(step, block[0], size, pixels // min(width, 4 * size))
    in_strips = block[1] >= width
    if down * width <= (_SAMPLES_IN_STRIPS // bands if in_strips else pixels):
        return max(pixels // (down * width), 1) * down, width
    across = _unit(step, block[1], size, pixels // down)
    return down, max(pixels // (down * across), 1) * across


def _unit(step: int, block: int, size: int, most: int) -> int:
    """Return the smallest cell side worth having: whole steps and whole blocks."""
    both = math.lcm(step, block)
    if both > max(most, 2 * size):
        both = step if step >= block else block
    return both * max(1, size // both)


def _edges(length: int, cell: int, size: int) -> list[int]:
    """Return where cells begin; a last one smaller than a window joins the one before it."""
    edges = list(range(0, length, cell))
    if len(edges) > 1 and length - edges[-1] < size:
        edges.pop()
    return edges
