"""Chips that cannot be read: how many a run may go without, which they are, and what replaces them.

A chip that was found bad stays out to the end of the run, also after `--resume` and if it was
mended meanwhile, so that a resumed run is the uninterrupted one. What takes its place is drawn by
the seed and the number of the sample, from random numbers that nothing else uses: samples whose
chips are sound are those of a run without bad chips.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from geocyclegan.errors import ChipsError
from geocyclegan.training.ranks import Ranks
from geocyclegan.training.sampler import random_of

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

_SKIPPED = "%s; skipped, %d of at most %d (--max-bad)"

A_SIDE, B_SIDE, PAIR = 5, 6, 7
"""Streams of random numbers of what replaces a chip of A, one of B, and a pair."""


class SkippedChip(ChipsError):
    """A chip cannot be read, and the run may go on without it."""


class Skips:
    """The chips that a run goes without; safe to use from many threads.

    The limit is of the whole run: processes that train together tell each other after each step
    which chips they found.

    Args:
        limit: how many distinct chips, those of all sets together (`--max-bad`).
        seed: of what replaces them.
        roots: folders of the run's chips by a name that stays when they move, "" for its own.
    """

    def __init__(
        self, limit: int = 0, seed: int = 0, roots: Mapping[str, Path] | None = None
    ) -> None:
        self.limit, self.seed = limit, seed
        self._roots = dict(roots or {})
        self._lock = threading.Lock()
        # Those that this process found drive what it reads; the others count.
        self._own: dict[str, str] = {}
        self._all: dict[str, str] = {}
        self._untold: list[tuple[str, str]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The chips by folder and file name, in the order in which they were found."""
        with self._lock:
            return tuple(dict.fromkeys([*self._all, *self._own]))

    def require(self, path: Path) -> None:
        """Let a chip pass that was not found bad.

        Raises:
            SkippedChip: it was.
        """
        if self.limit and self._own and (found := self._own.get(self._name(path))) is not None:
            raise SkippedChip(found)

    def is_out(self, path: Path) -> bool:
        """Whether a chip was found bad here."""
        return bool(self._own) and self._name(path) in self._own

    def refuse(self, path: Path, error: ChipsError) -> SkippedChip:
        """Take in that a chip cannot be read.

        Returns:
            What is to be raised, where the run may go on without it.

        Raises:
            ChipsError: it may not.
        """
        if not self.limit:
            raise ChipsError(
                f"{error}; or let training go on without such chips: --max-bad N"
            ) from error
        name = self._name(path)
        with self._lock:
            if name not in self._own:
                self._own[name] = str(error)
                self._untold.append((name, str(error)))
                count = len(self._own.keys() | self._all.keys())
                if count > self.limit:
                    raise ChipsError(self._too_many(count, str(error))) from error
                log.warning(_SKIPPED, error, count, self.limit)
        return SkippedChip(str(error))

    def settle(self, ranks: Ranks) -> None:
        """Tell the other processes what was found since the last time, and hear it from them.

        Raises:
            ChipsError: it is too many now, in every process.
        """
        with self._lock:
            mine, self._untold = self._untold, []
        if self.limit and ranks.largest(len(mine)):
            for rank, found in enumerate(ranks.share(mine)):
                for name, error in found:
                    self._hear(name, error, aloud=ranks.leads and rank > 0)
        if len(self._all) > self.limit:
            error = next(reversed(self._all.values()))
            raise ChipsError(self._too_many(len(self._all), error))

    def _hear(self, name: str, error: str, *, aloud: bool) -> None:
        """Count a chip that some process found; `aloud`: it has not been told of."""
        with self._lock:
            if name in self._all:
                return
            self._all[name] = error
            count = len(self._all.keys() | self._own.keys())
        if aloud:
            log.warning(_SKIPPED, error, count, self.limit)

    def state(self) -> dict[str, str]:
        """Return what this process found, for its checkpoint."""
        with self._lock:
            return dict(self._own)

    def load(self, own: Mapping[str, Any], everybody: Iterable[Mapping[str, Any]]) -> None:
        """Go on with what checkpoints hold.

        Args:
            own: of this process.
            everybody: of all processes.
        """
        with self._lock:
            self._own = {str(name): str(error) for name, error in own.items()}
            self._all = {str(k): str(v) for each in everybody for k, v in each.items()}
        if self._all:
            log.info("goes on without %d chips: %s", len(self._all), ", ".join(self._all))

    def stand_ins(
        self, first: T, others: Callable[[], Sequence[T]], sample: int, stream: int
    ) -> Iterator[T]:
        """Yield what a sample asks for, then what may replace it, in random order.

        Args:
            first: what the sampler drew.
            others: gives what may be drawn instead, `first` among it or not; seldom asked.
            sample: number of the sample.
            stream: `A_SIDE`, `B_SIDE` or `PAIR`.
        """
        yield first
        found = others()
        for number in random_of(self.seed, stream, sample).permutation(len(found)):
            if found[number] != first:
                yield found[number]

    def _name(self, path: Path) -> str:
        for name, root in self._roots.items():
            if path.is_relative_to(root):
                return f"{name}{path.relative_to(root).as_posix()}"
        return str(path)

    def _too_many(self, count: int, error: str) -> str:
        return (
            f"{error}; with it {count} chips cannot be read, more than --max-bad {self.limit};"
            " mend them, or give a larger one with --resume"
        )


def first_readable(tries: Iterable[T], read: Callable[[T], R]) -> tuple[T, R]:
    """Read the first of some things that can be read.

    Returns:
        Which it is, and what was read.

    Raises:
        ChipsError: none can be, or more chips are bad than may be.
    """
    last: SkippedChip | None = None
    for each in tries:
        try:
            return each, read(each)
        except SkippedChip as error:
            last = error
    raise ChipsError(f"{last}; nothing that could take its place can be read either") from last


def rotated(things: Sequence[T], start: int) -> Iterator[T]:
    """Yield all things from one on, going around."""
    for offset in range(len(things)):
        yield things[(start + offset) % len(things)]
