"""When to stop, and which weights were best: read off the validations so far.

A score is a number of `validation.csv`, with the digits that stand there, so that a run that was
resumed decides as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCORE = "score"
"""Name of the column; less is better."""


@dataclass(frozen=True)
class Scores:
    """Scores of the validations of a run.

    Attributes:
        steps: after which each was made, ascending.
        values: less is better.
    """

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def until(self, step: int) -> Scores:
        """Return those of the steps up to one."""
        count = sum(each <= step for each in self.steps)
        return Scores(self.steps[:count], self.values[:count])

    @property
    def best(self) -> int | None:
        """Step of the first of the best scores; None if there is none."""
        place = _best(self.values)
        return None if place is None else self.steps[place]

    def waited(self) -> int:
        """Return how many validations in a row have not been better than the best."""
        place = _best(self.values)
        return 0 if place is None else len(self.values) - 1 - place


def _best(values: Sequence[float]) -> int | None:
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    return min(finite, key=lambda place: values[place], default=None)


def score_of(errors: Mapping[str, float]) -> float | None:
    """Return the one number that validations are compared by; None where there is none.

    One less the mean correlation with the truth where pairs show it; else the mean sliced
    Wasserstein distance between translated and real images: of the features that the user chose,
    where there are any, and of patches where not. Cycle errors say nothing about how real
    a translation looks.
    """
    agreements = _means(errors, "r_")
    if agreements is not None:
        return 1.0 - agreements
    chosen = _means(errors, "features_swd_")
    return _means(errors, "swd_") if chosen is None else chosen


def _means(errors: Mapping[str, float], start: str) -> float | None:
    found = [errors[start + way] for way in ("a2b", "b2a") if start + way in errors]
    return sum(found) / len(found) if found else None
