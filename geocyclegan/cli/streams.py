"""Standard streams that are not there, as under some daemons, `2>&-` and pythonw."""

from __future__ import annotations

import os
import sys

_STREAMS = (0, 1, 2)


def open_missing_streams() -> None:
    """Open to nowhere what should be a standard stream and is closed.

    Otherwise the next files to be opened take their numbers, and what C libraries print as an error
    would be written into a product.
    """
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            # The smallest number that is free, and those below it are taken.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as we run
            setattr(sys, name, nowhere)
