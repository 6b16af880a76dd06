"""End with the program that started this one, where that program asks for it.

A program that starts `geocyclegan` as its child, such as QGIS, may be killed. If it sets
`GEOCYCLEGAN_EXIT_WITH_STDIN=1` and holds the child's standard input open, the end of that input
says that it is gone, or that it wants the child to stop: the command then ends as by SIGTERM.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import threading
import time

VARIABLE = "GEOCYCLEGAN_EXIT_WITH_STDIN"
GRACE_S = 20.0
"""How long the command may take to save and clean up before it is ended the hard way."""


def follow_stdin() -> None:
    """Watch standard input from now on, if the environment asks for it."""
    # Taken out, since a command's own child processes have another standard input.
    if os.environ.pop(VARIABLE, "") == "1":
        threading.Thread(target=_watch, name="stdin", daemon=True).start()


def _watch() -> None:
    try:
        # Not sys.stdin, whose lock a daemon thread must not hold when the interpreter ends.
        while os.read(0, 1024):
            pass
    except OSError:
        pass
    outputs = {1, 2}
    # A program that dies closes its ends of the pipes one after the other.
    _silence_broken(outputs, 0.2)
    if os.name == "posix":
        # A real signal also wakes a main thread that waits.
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
    end = time.monotonic() + GRACE_S
    _silence_broken(outputs, GRACE_S)
    time.sleep(max(end - time.monotonic(), 0.0))
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


def _silence_broken(outputs: set[int], seconds: float) -> None:
    """Send to nowhere what nobody reads any more, so that saving does not fail on a message.

    Args:
        outputs: descriptors to watch; those that were broken are taken out.
        seconds: how long they are watched, unless all break before.
    """
    if os.name != "posix":
        return
    ask, end = select.poll(), time.monotonic() + seconds
    for number in outputs:
        ask.register(number, 0)
    while outputs and (left := end - time.monotonic()) > 0:
        for number, event in ask.poll(1000 * left):
            ask.unregister(number)
            outputs.discard(number)
            if event & (select.POLLERR | select.POLLNVAL):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
