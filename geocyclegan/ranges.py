"""From where to where numbers may go that several rooms look at. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from geocyclegan.errors import OptionError

RANGES: Mapping[str, tuple[float, float, str]] = {
    "cycle_features": (0.0, 1.0, "a share"),
    "cycle_end": (0.0, 1.0, "a share"),
    # Beyond 2, interpolation between four pixels would skip some of those that it shrinks.
    "zoom": (1.0, 2.0, "a factor"),
    "rotate": (0.0, 180.0, "degrees"),
    "jitter_db": (0.0, 20.0, "decibel"),
    "jitter_gain": (0.0, 0.99, "a share"),
    "jitter_offset": (0.0, 0.99, "a share"),
    "speckle": (0.1, 1000.0, "looks"),
    "band_dropout": (0.0, 0.99, "a share"),
}
"""Of options by name: the least, the most, both allowed, and what is counted."""


def require_in_range(name: str, value: float | None, told: str | None = None) -> None:
    """Let a number pass that is within its range, and None, which is no number.

    Args:
        name: a key of `RANGES`.
        value: the number.
        told: the option it was given by, such as `--jitter-gain`; None: none.

    Raises:
        OptionError: it is not, with the range.
    """
    low, high, what = RANGES[name]
    if value is not None and not low <= value <= high:
        found = f"{told} {value}:" if told else f"{name} is {value};"
        raise OptionError(f"{found} expected {what} from {low:g} to {high:g}")
