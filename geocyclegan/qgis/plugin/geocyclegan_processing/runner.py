# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the `geocyclegan` command as a child process. Nothing here needs QGIS.

The toolkit lives in a Python environment of its own, since neither PyTorch nor rasterio gets along
with the libraries that QGIS has loaded. So it is found, never imported, and gets an environment
without the variables by which QGIS tells its own Python, GDAL and PROJ where their files are.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

EXECUTABLE_VARIABLE = "GEOCYCLEGAN_EXECUTABLE"
EXECUTABLE_SETTING = "GEOCYCLEGAN_EXECUTABLE"
"""Name of the setting under Processing/Configuration in QGIS's settings."""

TAIL_LINES = 20
GRACE_S = 15.0
POLL_S = 0.1

# A leaked PROJ_LIB makes rasterio write products without their EPSG code; the others end in
# crashes or in modules of another Python.
SCRUBBED = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
    "PROJ_LIB",
    "PROJ_DATA",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FRAMEWORK_PATH",
    "QT_PLUGIN_PATH",
)


class ToolkitError(Exception):
    """The toolkit was not found, or did not do what was asked; the text is for the user."""


class ProgressLine(NamedTuple):
    """How far a stage of the work is.

    Attributes:
        stage: what is being done.
        done: units done.
        total: units in all; 0 if nobody knows.
        unit: what is counted.
        eta_s: seconds left, if known.
    """

    stage: str
    done: int
    total: int
    unit: str = ""
    eta_s: float | None = None

    @property
    def percent(self) -> float:
        """Share done, from 0 to 100."""
        return 100.0 * min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    def text(self) -> str:
        """Return a line for people, such as `train: 40 of 200 steps, about 3 min left`."""
        # Units come in the singular; "it" is none.
        units = f" {self.unit}s" if self.unit and self.unit != "it" else ""
        line = f"{self.stage}: {self.done} of {self.total}{units}"
        if self.eta_s is None or self.done >= self.total:
            return line
        if self.eta_s < 90:
            return f"{line}, about {max(round(self.eta_s), 1)} s left"
        if self.eta_s < 5400:
            return f"{line}, about {round(self.eta_s / 60)} min left"
        return f"{line}, about {self.eta_s / 3600:.1f} h left"


class Finished(NamedTuple):
    """How a child process ended.

    Attributes:
        code: its exit code; negative, the signal that ended it.
        tail: its last lines that were not progress.
        canceled: True if it was stopped on request.
    """

    code: int
    tail: tuple[str, ...]
    canceled: bool


def find_executable(
    given: str = "", saved: str = "", environment: Mapping[str, str] = os.environ
) -> str:
    """Return the path of the `geocyclegan` command.

    Looked for in this order: what the user gave, the variable GEOCYCLEGAN_EXECUTABLE, what
    `geocyclegan qgis install` saved, PATH. The running program is QGIS, so its own Python is never
    taken.

    Args:
        given: path of the command or of its environment's folder, or nothing.
        saved: the same from QGIS's settings.
        environment: the environment of QGIS.

    Raises:
        ToolkitError: it is nowhere, or the path named first is not a command.
    """
    sources = (
        ("the parameter 'geocyclegan command'", given),
        (f"the environment variable {EXECUTABLE_VARIABLE}", environment.get(EXECUTABLE_VARIABLE)),
        ("QGIS's settings", saved),
    )
    for source, text in sources:
        if text and text.strip():
            return _command_at(Path(text.strip()).expanduser(), source)
    found = shutil.which("geocyclegan", path=environment.get("PATH", ""))
    if found:
        return found
    raise ToolkitError(
        "the geocyclegan command was not found. Install geocyclegan in a Python environment of its"
        " own and run `geocyclegan qgis install` there once, or give the path of the command in the"
        " advanced parameter 'geocyclegan command'"
    )


def _command_at(path: Path, source: str) -> str:
    places = [path]
    if path.is_dir():
        names = ("geocyclegan.exe", "geocyclegan") if os.name == "nt" else ("geocyclegan",)
        folders = (path, path / "bin", path / "Scripts")
        places = [folder / name for folder in folders for name in names]
    for place in places:
        if place.is_file():
            if os.access(place, os.X_OK):
                return str(place)
            raise ToolkitError(f"{place}, from {source}, is not executable")
    if path.is_dir():
        raise ToolkitError(f"{path}, from {source}, is a folder without a geocyclegan command")
    raise ToolkitError(
        f"{path}, from {source}, does not exist; give the path of the geocyclegan command"
    )


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for the toolkit: that of QGIS without what is QGIS's own."""
    kept = {name: value for name, value in environment.items() if name not in SCRUBBED}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "GEOCYCLEGAN_EXIT_WITH_STDIN": "1",
    }


def parse_progress(line: str) -> ProgressLine | None:
    """Read a line of `--progress json`; None if it is something else."""
    if not line.startswith("{"):
        return None
    try:
        fields: Any = json.loads(line)
        if fields["event"] != "progress":
            return None
        eta = fields.get("eta_s")
        return ProgressLine(
            str(fields["stage"]),
            int(fields["done"]),
            int(fields["total"] or 0),
            str(fields.get("unit", "")),
            None if eta is None else float(eta),
        )
    except (ValueError, KeyError, TypeError):
        return None


def run_child(
    command: Sequence[str],
    *,
    on_line: Callable[[str], None],
    on_progress: Callable[[ProgressLine], None],
    is_canceled: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> Finished:
    """Run a command to its end, or until it is canceled.

    Args:
        command: the program and its arguments; no shell sees them.
        on_line: called with each line of output that is not progress.
        on_progress: called with each line of progress.
        is_canceled: asked every tenth of a second.
        environment: of the child; None: `child_environment()`.
        grace_s: how long a canceled command may take to save and clean up, in seconds.

    Raises:
        ToolkitError: the command cannot be started.
    """
    process = _start(command, child_environment() if environment is None else environment)
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def take(line: str) -> None:
        progress = parse_progress(line)
        if progress is not None:
            on_progress(progress)
        elif line.strip():
            tail.append(line)
            on_line(line)

    canceled = False
    try:
        while process.poll() is None:
            if is_canceled():
                canceled = True
                break
            with suppress(queue.Empty):
                take(lines.get(timeout=POLL_S))
    finally:
        # Whatever happened here, neither the child nor a worker of it outlives this call.
        _stop(process, grace_s)
        reader.join(1.0)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()
    while not lines.empty():
        take(lines.get_nowait())
    return Finished(process.wait(), tuple(tail), canceled)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, with an open standard input."""
    apart: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
        apart = {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            text=True,
            encoding="utf-8",
            errors="replace",
            **apart,
        )
    except OSError as error:
        raise ToolkitError(f"{command[0]} cannot be started: {error.strerror or error}") from error


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with suppress(ValueError, OSError):
        for line in process.stdout:
            lines.put(line.rstrip("\n"))


def _stop(process: subprocess.Popen[str], grace_s: float) -> None:
    """Ask the command to stop if it runs, wait, and kill what is left of its process group.

    Only the command itself is asked, since it ends its workers in an order that lets it save; a
    launcher between us and it sees its standard input end.
    """
    deadline = time.monotonic() + grace_s
    if os.name == "posix":
        process.terminate()
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S / 2)
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(POLL_S / 2)
    if os.name == "posix":
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        tree = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True, check=False)
    process.wait()


def _lives(process: subprocess.Popen[str]) -> bool:
    """Say whether anything of the command's process group is left."""
    if process.poll() is None:
        return True
    if os.name != "posix":
        return False
    try:
        os.killpg(process.pid, 0)
    except OSError:
        return False
    return True
