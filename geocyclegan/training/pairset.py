"""Paired chips that help unpaired training: opened, matched, and put into its levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from geocyclegan.chips.alike import difference
from geocyclegan.chips.manifest import DomainName, Split
from geocyclegan.chips.pairs import Pairs, find_pairs, require_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import OptionError
from geocyclegan.raster.domain import Domain

_DOMAINS: tuple[DomainName, ...] = ("a", "b")


@dataclass(frozen=True)
class PairSet:
    """Chips of A and B, and which of them show the same ground.

    Attributes:
        folder: where they lie.
        a: chips of A.
        b: chips of B.
        pairs: pairs (number in A, number in B); of a training set, one or more.
    """

    folder: Path
    a: ChipSet
    b: ChipSet
    pairs: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def to_json(self) -> list[Any]:
        """Return what a resumed run must find unchanged."""
        return [[self.a.paths[i].name, self.b.paths[j].name] for i, j in self.pairs] + [self.a.size]


@dataclass(frozen=True)
class Hints:
    """The pairs of a folder made by `chip --pair`.

    Attributes:
        train: those to learn from.
        val: those held out, none or more.
    """

    train: PairSet
    val: PairSet

    @classmethod
    def open(
        cls, folder: Path, option: str, domains: tuple[Domain, Domain], absent: int = 0
    ) -> Self:
        """Open a folder of pairs, to be read in the levels of a run's own chips.

        Args:
            folder: the chip folder.
            option: the option that named it, for messages.
            domains: A and B of the run.
            absent: how many listed chips of each set may be missing.

        Raises:
            ChipsError: the folder has no pairs, or is damaged.
            OptionError: its images are not of the run's domains.
        """
        train = _sets(folder, option, domains, "train", absent)
        val = _sets(folder, option, domains, "val", absent)
        return cls(
            PairSet(folder, *train, require_pairs(folder, *train)),
            PairSet(folder, *val, find_pairs(folder, *val)),
        )


def _sets(
    folder: Path, option: str, domains: tuple[Domain, Domain], split: Split, absent: int
) -> tuple[ChipSet, ChipSet]:
    sets = [ChipSet.open(folder, domain, split, absent=absent) for domain in _DOMAINS]
    a = _alike(sets[0], "A", option, folder, domains[0])
    b = _alike(sets[1], "B", option, folder, domains[1])
    return a, b


def _alike(chips: ChipSet, name: str, option: str, folder: Path, domain: Domain) -> ChipSet:
    """The same chips with the radiometry of the run, so that a level means one thing."""
    found = difference(domain, chips.domain)
    if found is not None:
        raise OptionError(
            f"{option} {folder}: its chips of {name} have {found[1]}, those to train on have"
            f" {found[0]}; cut the pairs from the same kind of scenes, A before --pair B"
        )
    return replace(chips, domain=domain)
