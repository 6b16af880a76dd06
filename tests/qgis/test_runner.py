"""The plugin's child process, without QGIS: where it is, what it sees, how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.progress import Progress
from geocyclegan.qgis.plugin.geocyclegan_processing.runner import (
    SCRUBBED,
    TAIL_LINES,
    Finished,
    ProgressLine,
    ToolkitError,
    child_environment,
    find_executable,
    parse_progress,
    run_child,
)

posix = pytest.mark.skipif(os.name != "posix", reason="needs process groups")
ROOT = Path(__file__).parents[2]


def run(
    code: str,
    *,
    is_canceled: Callable[[], bool] = lambda: False,
    lines: list[str] | None = None,
    progress: list[ProgressLine] | None = None,
    grace_s: float = 10.0,
) -> Finished:
    return run_child(
        [sys.executable, "-c", code],
        on_line=(lines if lines is not None else []).append,
        on_progress=(progress if progress is not None else []).append,
        is_canceled=is_canceled,
        environment=child_environment() | {"PYTHONPATH": str(ROOT)},
        grace_s=grace_s,
    )


def wait_for(path: Path) -> Callable[[], bool]:
    """Cancel as soon as a file is there, or after a long while."""
    deadline = time.monotonic() + 30
    return lambda: path.exists() or time.monotonic() > deadline


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Say whether a process is gone, or at least dead."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    return make


@posix
def test_the_command_is_looked_for_in_order(command: Callable[[str], Path]) -> None:
    given, named, saved, found = (
        command(f"{name}/geocyclegan") for name in ("given", "named", "saved", "path")
    )
    environment = {"GEOCYCLEGAN_EXECUTABLE": str(named), "PATH": str(found.parent)}
    only_path = {"PATH": str(found.parent)}
    assert find_executable(str(given), str(saved), environment) == str(given)
    assert find_executable("", str(saved), environment) == str(named)
    assert find_executable(" ", str(saved), only_path) == str(saved)
    assert find_executable("", "", only_path) == str(found)


@posix
def test_the_folder_of_an_environment_will_do(command: Callable[[str], Path]) -> None:
    path = command("venv/bin/geocyclegan")
    assert find_executable(str(path.parent), "", {}) == str(path)
    assert find_executable(str(path.parents[1]), "", {}) == str(path)


@posix
def test_a_missing_command_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="geocyclegan qgis install"):
        find_executable("", "", {"PATH": str(tmp_path)})
    with pytest.raises(ToolkitError, match=r"gone.*GEOCYCLEGAN_EXECUTABLE.*does not exist"):
        find_executable("", "", {"GEOCYCLEGAN_EXECUTABLE": str(tmp_path / "gone")})
    with pytest.raises(ToolkitError, match="a folder without"):
        find_executable(str(tmp_path), "", {})
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(ToolkitError, match=r"QGIS's settings, is not executable"):
        find_executable("", str(plain), {})


def test_what_is_qgis_own_is_kept_from_the_child() -> None:
    found = child_environment(dict.fromkeys(SCRUBBED, "x") | {"HOME": "h", "AWS_REGION": "r"})
    assert not set(SCRUBBED) & set(found)
    assert found["HOME"] == "h"
    assert found["AWS_REGION"] == "r"
    assert found["GEOCYCLEGAN_EXIT_WITH_STDIN"] == "1"


def test_progress_is_read_as_the_toolkit_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, "infer", "tile", kind="json") as bar:
        for _ in range(4):
            bar.update(loss=1.5)
    first, last = (parse_progress(line) for line in capsys.readouterr().err.splitlines()[::1][-2:])
    assert first is not None
    assert last is not None
    assert (first.stage, first.done, first.total, first.percent) == ("infer", 0, 4, 0)
    assert (last.done, last.percent, last.unit) == (4, 100, "tile")


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_other_line_is_no_progress(line: str) -> None:
    assert parse_progress(line) is None


@pytest.mark.parametrize(
    ("eta", "text"),
    [
        (None, "train: 1 of 4 steps"),
        (0.2, "train: 1 of 4 steps, about 1 s left"),
        (300, "train: 1 of 4 steps, about 5 min left"),
        (9000, "train: 1 of 4 steps, about 2.5 h left"),
    ],
)
def test_progress_in_words(eta: float | None, text: str) -> None:
    assert ProgressLine("train", 1, 4, "step", eta).text() == text


def test_lines_and_progress_arrive_apart() -> None:
    lines: list[str] = []
    progress: list[ProgressLine] = []
    line = {"event": "progress", "stage": "s", "done": 1, "total": 2}
    done = run(
        f"import sys; print('one'); print({json.dumps(line)!r}, file=sys.stderr); print('größer')",
        lines=lines,
        progress=progress,
    )
    assert done == Finished(0, ("one", "größer"), False)
    assert lines == ["one", "größer"]
    assert [p.percent for p in progress] == [50]


def test_a_failure_keeps_its_last_lines() -> None:
    done = run("for i in range(50): print(i)\nraise SystemExit(3)")
    assert done.code == 3
    assert done.tail == tuple(str(i) for i in range(50 - TAIL_LINES, 50))


def test_a_program_that_cannot_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="nothing-here cannot be started"):
        run_child(
            [str(tmp_path / "nothing-here")],
            on_line=print,
            on_progress=print,
            is_canceled=lambda: False,
        )


@posix
def test_cancel_lets_the_child_clean_up(tmp_path: Path) -> None:
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def stop(*_): pathlib.Path({str(saved)!r}).touch(); print('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    done = run(code, is_canceled=wait_for(ready))
    assert done == Finished(143, ("saved",), True)
    assert saved.exists()


_STUBBORN = (
    "import os, pathlib, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'])\n"
    "part = pathlib.Path({0!r} + '.part'); part.write_text(f'{{os.getpid()}} {{child.pid}}')\n"
    "part.rename({0!r})\n"
)


@posix
def test_cancel_kills_a_tree_that_does_not_listen(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    done = run(
        _STUBBORN.format(str(ready)) + "time.sleep(60)", is_canceled=wait_for(ready), grace_s=0.3
    )
    assert done.canceled
    assert done.code == -signal.SIGKILL
    assert all(is_gone(int(pid)) for pid in ready.read_text().split())


@posix
def test_nothing_is_left_of_a_child_that_ends_before_its_workers(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    started = time.monotonic()
    done = run(_STUBBORN.format(str(ready)) + "sys.exit(1)", grace_s=0.3)
    assert (done.code, done.canceled) == (1, False)
    assert time.monotonic() - started < 20
    assert all(is_gone(int(pid)) for pid in ready.read_text().split())


@posix
def test_a_toolkit_behind_a_launcher_is_asked_to_stop_through_its_input(tmp_path: Path) -> None:
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        "from geocyclegan.cli.parent import follow_stdin\n"
        f"def stop(*_): pathlib.Path({str(saved)!r}).touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop); follow_stdin()\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    done = run_child(
        ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", code],
        on_line=print,
        on_progress=print,
        is_canceled=wait_for(ready),
        environment=child_environment() | {"PYTHONPATH": str(ROOT)},
        grace_s=10,
    )
    assert done.canceled
    assert saved.exists()


@posix
def test_the_child_does_not_outlive_an_error_of_ours(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def fail(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="hello"):
        run_child(
            [sys.executable, "-c", _STUBBORN.format(str(ready)) + "print('hello'); time.sleep(60)"],
            on_line=fail,
            on_progress=print,
            is_canceled=lambda: False,
            grace_s=0.3,
        )
    assert all(is_gone(int(pid)) for pid in ready.read_text().split())
