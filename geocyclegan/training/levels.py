"""Chips as levels, decoded once while memory lasts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.labels import LabelSet
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import ChipsError
from geocyclegan.training.mapped import MappedLevels
from geocyclegan.training.skips import Skips, first_readable, rotated

CACHE_BYTES = 2 * 1024**3
"""Memory for chips that are kept as levels; the others are decoded each time."""

Levels = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.int64]


class Budget:
    """What the readers of a run share; safe to use from many threads.

    Args:
        limit: bytes of memory that they keep chips in.
        folder: where chips are kept in files instead; None: in memory.
        skips: chips that they may go without; None: no chip.
    """

    def __init__(
        self, limit: int = CACHE_BYTES, folder: Path | None = None, skips: Skips | None = None
    ) -> None:
        self.folder = folder
        self.skips = skips or Skips()
        self._left = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take `size` bytes if they are left."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class LevelReader:
    """Chips as levels in [-1, 1]; each is decoded once while memory lasts.

    What is kept is the whole chip, never a crop of it, so that augmentation stays fresh.

    Args:
        chips: the chips.
        budget: memory to keep them in.
    """

    def __init__(self, chips: ChipSet, budget: Budget) -> None:
        self.chips = chips
        self.skips = budget.skips
        self._budget = budget
        self._kept: dict[int, tuple[Levels, Valid | None]] = {}
        self._mapped: MappedLevels | None = None
        if budget.folder is not None and len(chips):
            self._mapped = MappedLevels(budget.folder, chips)

    def __len__(self) -> int:
        return len(self.chips)

    def read(self, index: int) -> tuple[Levels, Valid | None]:
        """Read a chip.

        Returns:
            Levels float32 `(bands, size, size)` in [-1, 1], 0 where invalid, and the mask
            `(size, size)`, None where all pixels are valid. They are shared: do not change them.

        Raises:
            SkippedChip: the file is missing or damaged, and the run may go on without it.
            ChipsError: it may not.
        """
        self.skips.require(self.chips.paths[index])
        kept = self._mapped.get(index) if self._mapped else self._kept.get(index)
        if kept is not None:
            return kept
        try:
            pixels, mask = self.chips.read(index)
        except ChipsError as error:
            raise self.skips.refuse(self.chips.paths[index], error) from error
        valid = None if mask.all() else mask
        levels = self.chips.domain.to_levels(pixels, valid)
        if self._mapped:
            self._mapped.put(index, levels, valid)
        elif self._budget.take(levels.nbytes + (0 if valid is None else valid.nbytes)):
            self._kept[index] = levels, valid
        return levels, valid

    def read_from(
        self, index: int, among: Sequence[int] | None = None
    ) -> tuple[Levels, Valid | None]:
        """Read a chip, or the next one that can be read.

        Args:
            index: the chip.
            among: chips that may take its place, itself among them; None: all.

        Returns:
            See `read`.

        Raises:
            ChipsError: none can be read, or more are bad than may be.
        """
        chosen = among or range(len(self))
        return first_readable(rotated(chosen, chosen.index(index)), self.read)[1]

    def read_labels(self, labels: LabelSet, index: int) -> Classes:
        """Read the labels of a chip, see `LabelSet.read`.

        Raises:
            SkippedChip: they cannot be read, and the run may go on without the chip.
            ChipsError: it may not.
        """
        try:
            return labels.read(index)
        except ChipsError as error:
            raise self.skips.refuse(self.chips.paths[index], error) from error

    @cached_property
    def _scenes(self) -> list[tuple[int, ...]]:
        """For each chip the chips of its scene."""
        found: list[tuple[int, ...]] = [()] * len(self)
        for scene in self.chips.by_scene():
            for index in scene:
                found[index] = scene
        return found

    def others(self, index: int, *, same_scene: bool) -> Sequence[int]:
        """Return the chips that may be drawn instead of one, itself among them."""
        return self._scenes[index] if same_scene else range(len(self))
