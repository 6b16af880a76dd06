"""Standard streams that are not there (some daemons, `2>&-`, pythonw), or that take no more."""

from __future__ import annotations

import errno
import os
import sys

import click

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


def why_not_written(error: OSError) -> str | None:
    """Say why standard output takes no more, if that is what an error was about, else None.

    What could not be written is dropped then, so that nothing fails on it again.

    Args:
        error: that ended the command.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # All results are printed by it, and errors are lost with what they would have been told to.
    if trace is None or trace.tb_frame.f_code is not click.echo.__code__:
        return None
    if error.errno == errno.EPIPE:
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return f"standard output: cannot be written ({error.strerror or error})"
