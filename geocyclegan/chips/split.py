"""Train and validation, apart in space: pure geometry, neither pixels nor names.

The ground of a scene is cut into cells of about a chip, gathered in blocks, and whole blocks are
set aside for validation. Cells that chips of other scenes show already are on the side of those,
and on neither where these differ. A window is for validation if it touches validation cells only,
for training if it touches training cells only, and is dropped otherwise, so no ground is ever in
both. With a stride of the chip size no window straddles, since cells begin where windows begin,
unless other scenes say so.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

TRAIN, VAL, DROPPED = 0, 1, 2

_LARGEST_BLOCK = 4  # cells along a block's side
_FEWEST_VAL_BLOCKS = 3  # with fewer, blocks are made smaller
_CLOSE = 0.25  # where the share is off by more of what was asked, too
_TRIALS = 8
_MOST_OWED = 3.0  # chips

Marks = npt.NDArray[np.bool_]
Split = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Spans:
    """Which cells each window touches: first and last row and column of cells `(n,)`."""

    top: npt.NDArray[np.int64]
    bottom: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.top)

    def among(self, chosen: npt.NDArray[Any]) -> Self:
        """Return some of them."""
        return type(self)(
            *(side[chosen] for side in (self.top, self.bottom, self.left, self.right))
        )

    @classmethod
    def join(cls, spans: Sequence[Spans]) -> Self:
        """Put several together."""
        return cls(
            *(
                np.concatenate([getattr(each, side) for each in spans])
                for side in ("top", "bottom", "left", "right")
            )
        )

    def touched(self, marks: Marks) -> npt.NDArray[np.int64]:
        """Return how many marked cells each window touches `(n,)`."""
        # Sums over rectangles, as differences of a summed-area table (Crow 1984).
        table = np.zeros((marks.shape[0] + 1, marks.shape[1] + 1), np.int64)
        table[1:, 1:] = marks.astype(np.int64).cumsum(0).cumsum(1)
        bottom, right = self.bottom + 1, self.right + 1
        found: npt.NDArray[np.int64] = (
            table[bottom, right]
            - table[self.top, right]
            - table[bottom, self.left]
            + table[self.top, self.left]
        )
        return found

    def mark(self, shape: tuple[int, int]) -> Marks:
        """Return which cells are touched by any window."""
        steps = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
        for rows, cols, sign in (
            (self.top, self.left, 1),
            (self.bottom + 1, self.left, -1),
            (self.top, self.right + 1, -1),
            (self.bottom + 1, self.right + 1, 1),
        ):
            np.add.at(steps, (rows, cols), sign)
        counts: npt.NDArray[np.int64] = steps.cumsum(0).cumsum(1)[:-1, :-1]
        return counts > 0


@dataclass(frozen=True)
class Cells:
    """The cells of a scene; the outer ones reach on beyond it.

    Attributes:
        down: first row of each row of cells, from 0.
        across: first column of each column of cells, from 0.
    """

    down: tuple[int, ...]
    across: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[int], cols: Sequence[int], size: int) -> Self:
        """Cut a scene into cells that begin where windows begin and hold one or more.

        Args:
            rows: first rows of the windows, increasing from 0.
            cols: first columns of the windows, increasing from 0.
            size: side of the windows.
        """
        return cls(_edges(rows, size), _edges(cols, size))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.down), len(self.across)

    def spans(
        self,
        top: npt.NDArray[Any],
        bottom: npt.NDArray[Any],
        left: npt.NDArray[Any],
        right: npt.NDArray[Any],
    ) -> Spans:
        """Return which cells rectangles touch.

        Args:
            top: first row of each `(n,)`, may be a fraction.
            bottom: where each ends.
            left: first column of each.
            right: where each ends.
        """

        def find(edges: Sequence[int], at: npt.NDArray[Any], side: Any) -> npt.NDArray[np.int64]:
            return np.maximum(np.searchsorted(edges, at, side=side) - 1, 0).astype(np.int64)

        return Spans(
            find(self.down, top, "right"),
            find(self.down, bottom, "left"),
            find(self.across, left, "right"),
            find(self.across, right, "left"),
        )


def _edges(positions: Sequence[int], size: int) -> tuple[int, ...]:
    edges = [0]
    while (found := bisect_left(positions, edges[-1] + size)) < len(positions):
        edges.append(positions[found])
    return tuple(edges)


@dataclass(frozen=True)
class Pins:
    """Cells that other chips show `(rows, columns of cells)`.

    Attributes:
        train: training chips.
        val: validation chips.
    """

    train: Marks
    val: Marks

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Self:
        """No cell is shown by any."""
        return cls(np.zeros(shape, np.bool_), np.zeros(shape, np.bool_))

    def sides(self, free: int | Split) -> Split:
        """Return the side of each cell, `free` where no chip says so."""
        sides = np.full(self.train.shape, free, np.uint8) if isinstance(free, int) else free.copy()
        sides[self.train] = TRAIN
        sides[self.val] = VAL
        sides[self.train & self.val] = DROPPED
        return sides


@dataclass(frozen=True)
class Tally:
    """Training and validation chips that are chosen already."""

    train: int = 0
    val: int = 0

    def plus(self, split: Split) -> Tally:
        """Return the sum with others."""
        return Tally(
            self.train + int(np.count_nonzero(split == TRAIN)),
            self.val + int(np.count_nonzero(split == VAL)),
        )

    def owing(self, share: float) -> Tally:
        """Return what later scenes may make up for: nothing if another share was asked then."""
        owed = abs(share * (self.train + self.val) - self.val)
        return self if owed <= _MOST_OWED else Tally()

    def off(self, share: float) -> float:
        """Return how far the share of validation chips is from what was asked."""
        return abs(self.val / (self.train + self.val) - share) if self.train + self.val else share


def choose_cells(
    spans: Spans, pins: Pins, val: float, seed: int, before: Tally | None = None
) -> Split:
    """Choose the side of each cell.

    Args:
        spans: the windows that pass all filters.
        pins: what other chips show.
        val: share of validation windows among those that are kept.
        seed: chooses the blocks.
        before: what was chosen for other scenes; the share is that of all together.

    Returns:
        `(rows, columns of cells)` of TRAIN, VAL or DROPPED. Where no other chip says so and `val`
        is above 0, there is a window of each kind as long as two of them are disjoint, unless
        `before` has some already.
    """
    if val <= 0.0 or not len(spans):
        return pins.sides(TRAIN)
    shape = pins.train.shape
    before = before or Tally()
    best: tuple[float, Split] | None = None
    for size in range(_LARGEST_BLOCK, 0, -1):
        blocks = _Blocks.of(shape, size, spans, pins)
        if not blocks.free.size and size > 1:
            continue
        found = _best(blocks, spans, val, seed, before)
        if best is None or found[0] < best[0]:
            best = found
        enough = blocks.free.size * val >= _FEWEST_VAL_BLOCKS
        if enough and before.plus(assign(spans, best[1])).off(val) <= _CLOSE * val:
            break
    assert best is not None  # for mypy
    return best[1]


@dataclass(frozen=True)
class _Blocks:
    """Cells in blocks: which block each is in, what pins say, and blocks that nothing decides."""

    number: npt.NDArray[np.int64]
    pins: Pins
    pinned_val: Marks
    free: npt.NDArray[np.int64]

    @classmethod
    def of(cls, shape: tuple[int, int], size: int, spans: Spans, pins: Pins) -> Self:
        wide = -(-shape[1] // size)
        number = (np.arange(shape[0]) // size)[:, np.newaxis] * wide + np.arange(shape[1]) // size
        count = int(number[-1, -1]) + 1

        def total(marks: Marks) -> npt.NDArray[np.int64]:
            return np.bincount(number.ravel(), marks.ravel(), minlength=count).astype(np.int64)

        train, held = total(pins.train & ~pins.val), total(pins.val & ~pins.train)
        used = np.zeros(count, np.bool_)
        used[number[spans.top, spans.left]] = True
        return cls(number, pins, held > train, np.flatnonzero(used & (train + held == 0)))

    def sides(self, chosen: npt.NDArray[np.int64]) -> Split:
        """Return the side of each cell if these blocks are for validation."""
        val = self.pinned_val.copy()
        val[chosen] = True
        return self.pins.sides(np.where(val[self.number], VAL, TRAIN).astype(np.uint8))


def _best(
    blocks: _Blocks, spans: Spans, val: float, seed: int, before: Tally
) -> tuple[float, Split]:
    """Return, of a few equally random choices, the one that loses least and comes closest."""
    every = []
    for trial in range(_TRIALS):
        order = blocks.free[_order(len(blocks.free), seed, trial)]

        def weigh(count: int, order: npt.NDArray[np.int64] = order) -> tuple[float, bool, Split]:
            sides = blocks.sides(order[:count])
            split = assign(spans, sides)
            tally = before.plus(split)
            # Both kinds come before all else.
            lacking = float(tally.train == 0) * 20 + float(tally.val == 0) * 10
            lost = np.count_nonzero(split == DROPPED) / max(len(split), 1)
            reached = tally.val >= val * (tally.train + tally.val)
            return lacking + lost + tally.off(val), reached, sides

        every += _around(weigh, len(order))
    found = min(every, key=lambda each: each[0])
    return found[0], found[2]


def _around(
    weigh: Callable[[int], tuple[float, bool, Split]], most: int
) -> list[tuple[float, bool, Split]]:
    """Weigh the numbers of blocks about the first one that reaches the share.

    The share grows with every block.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if weigh(middle)[1]:
            high = middle
        else:
            low = middle + 1
    return [weigh(count) for count in sorted({max(low - 1, 0), low, min(low + 1, most)})]


def _order(count: int, seed: int, trial: int) -> npt.NDArray[np.int64]:
    """Return blocks 0 to count-1 in an order that is the same everywhere and for ever."""
    keys = [
        hashlib.blake2b(f"{seed}/{trial}/{block}".encode(), digest_size=8).digest()
        for block in range(count)
    ]
    return np.array(sorted(range(count), key=keys.__getitem__), np.int64)


def assign(spans: Spans, sides: Split) -> Split:
    """Return TRAIN, VAL or DROPPED for windows `(n,)`, by the sides of the cells they touch."""
    val, train = spans.touched(sides == VAL), spans.touched(sides == TRAIN)
    dropped = spans.touched(sides == DROPPED)
    mixed = (dropped > 0) | ((val > 0) & (train > 0))
    return np.where(mixed, DROPPED, np.where(val > 0, VAL, TRAIN)).astype(np.uint8)
