"""What the rows of `reliability.py` share: sample chips, a small model, and commands in processes.

A command is the real one, `geocyclegan.cli.main.main`, in a process of its own that is forked from
this one, which has done the imports: so a random moment falls into the work, not into the imports.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

SIZE = 96
STEPS, SAVE_EVERY = 60, 5
LIMIT = 300.0
"""Seconds after which a process counts as hanging."""


@dataclass
class Outcome:
    """What came of the trials of a row.

    Attributes:
        failures: what went wrong, in words; one for each trial that did.
        trials: how many there were.
        notes: figures worth a word.
    """

    failures: list[str] = field(default_factory=list)
    trials: int = 0
    notes: list[str] = field(default_factory=list)
    current: ClassVar[Outcome | None] = None

    def __post_init__(self) -> None:
        Outcome.current = self

    def add(self, failure: str | None) -> None:
        """Count a trial; None: it held."""
        self.trials += 1
        if failure is not None:
            self.failures.append(" ".join(failure.split()))
            print(f"    trial {self.trials}: {failure}", file=sys.stderr, flush=True)


class Process:
    """A command that runs.

    Args:
        arguments: of `geocyclegan`.
        folder: where it runs, and where its words go.
        prepare: called in the process before the command, to inject a fault.
        waits: whether it stops before the command until it gets SIGCONT.
    """

    _count = 0
    running: ClassVar[dict[int, Process]] = {}

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        prepare: Callable[[], object] | None = None,
        *,
        waits: bool = False,
    ) -> None:
        Process._count += 1
        self._log = folder / f".log{Process._count}"
        self.code: int | None = None
        self.processor = 0.0
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.id = os.fork()
        if not self.id:
            self._run([str(each) for each in arguments], folder, prepare, waits)
        Process.running[self.id] = self

    def _run(
        self,
        arguments: list[str],
        folder: Path,
        prepare: Callable[[], object] | None,
        waits: bool,
    ) -> None:
        code = 70
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(folder)
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.argv = ["geocyclegan", *arguments]
            if prepare is not None:
                prepare()
            if waits:
                os.kill(os.getpid(), signal.SIGSTOP)
            from geocyclegan.cli.main import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, as `subprocess` has it; None while it runs."""
        if self.code is None:
            done, status, usage = os.wait4(self.id, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
                Process.running.pop(self.id, None)
                self.processor = usage.ru_utime + usage.ru_stime
        return self.code

    def wait(self, seconds: float = LIMIT) -> int | None:
        """Wait for its end; None: it did not come, and it was killed."""
        until(lambda: self.poll() is not None, seconds)
        if self.poll() is None:
            self.kill()
            return None
        return self.code

    def watch(self, ready: Callable[[], object], seconds: float) -> None:
        """Wait for something that it does, for its end, or for so long."""
        until(lambda: ready() or self.poll() is not None, seconds, 0.0002)

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self.poll() is None:
            os.kill(self.id, signal.SIGKILL)
            until(lambda: self.poll() is not None, 30)

    def said(self) -> str:
        """Everything that it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def error(self) -> str:
        """Its error line; empty if there is none."""
        return next((li for li in self.said().splitlines() if li.startswith("Error:")), "")

    def is_clear(self, codes: Sequence[int] = (1, 2)) -> str | None:
        """None if it ended in one clear line; else what is wrong."""
        lines = [line for line in self.said().splitlines() if line.startswith("Error:")]
        if self.code not in codes:
            return f"exit {self.code}: {self.said()[-300:]}"
        if "Traceback" in self.said() or len(lines) != 1 or "Error: unexpected" in lines[0]:
            return f"not one clear line: {self.said()[-400:]}"
        return None


def until(ready: Callable[[], object], seconds: float, pause: float = 0.001) -> bool:
    """Wait for something; False if it did not come."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Bench:
    """A folder with chips of two sample scenes and a model trained on them for some steps."""

    def __init__(self, folder: Path) -> None:
        from geocyclegan import samples

        self.folder = folder
        self.random = random.Random(0)
        self.scene = samples.path("spain_sentinel1")
        self.partner = samples.path("spain_sentinel2")
        self.chips = folder / "chips"
        # Uncompressed, so that a flipped bit is one of a pixel, not a decoder's complaint.
        for domain, scene, bands in (("a", self.scene, "1,2"), ("b", self.partner, "2,3,4")):
            self.do(*self.chip(scene, self.chips), "--domain", domain, "--bands", bands)
        self.whole = folder / "whole"
        self.do(*self.train(self.whole))
        self.model = self.whole / "run" / "model"

    def chip(self, scene: Path, out: Path) -> list[object]:
        """Arguments that chip a scene."""
        return ["-q", "chip", scene, "--out", out, "--size", SIZE, "--compress", "none"]

    def train(self, out: Path, steps: int = STEPS, chips: Path | None = None) -> list[object]:
        """Arguments of a small training run called `run`."""
        network = ["--generator", "resnet6", "--width", 4, "--crop", 32, "--pool", 4]
        often = ["--save-every", SAVE_EVERY, "--log-every", 1, "--val-every", 25]
        where = ["--out", out, "--name", "run", "--device", "cpu", "--precision", "32"]
        often += ["--panel-every", 30]
        return ["-q", "train", chips or self.chips, *network, "--steps", steps, *often, *where]

    def infer(self, out: Path, model: Path | None = None) -> list[object]:
        """Arguments that translate the sample scene, in tiles."""
        how = ["--tile", 96, "--norm-stats", "dense", "--device", "cpu", "--precision", "32"]
        return ["-q", "infer", self.scene, "--model", model or self.model, "--out", out, *how]

    def start(self, *arguments: object, prepare: Callable[[], object] | None = None) -> Process:
        """Begin a command."""
        return Process(arguments, self.folder, prepare)

    def do(self, *arguments: object) -> Process:
        """Run a command that must work.

        Raises:
            RuntimeError: it did not, so that there is nothing to measure.
        """
        process = self.start(*arguments)
        if process.wait() != 0:
            raise RuntimeError(f"{arguments}: {process.said()}")
        return process

    def fresh(self, name: str) -> Path:
        """An empty folder of that name."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def logged(run: Path) -> int:
    """How many steps a run has logged."""
    try:
        return max(len((run / "log.csv").read_text().splitlines()) - 1, 0)
    except FileNotFoundError:
        return 0


def newest(run: Path) -> int:
    """The step of a run's newest checkpoint; 0 if there is none."""
    found = sorted((run / "checkpoints").glob("step_*.pt"))
    return int(found[-1].stem.removeprefix("step_")) if found else 0


def same_run(run: Path, other: Path) -> str | None:
    """None if two runs ended with the same weights, bit for bit, and the same logs."""
    for name in ("model/model.safetensors", "log.csv", "validation.csv"):
        one, two = run / name, other / name
        if not one.exists() or one.read_bytes() != two.read_bytes():
            return f"{name} is not that of the uninterrupted run"
    return None


def leftovers(folder: Path) -> list[str]:
    """Temporary files that should be gone."""
    return sorted(p.name for p in folder.rglob(".*") if ".part" in p.name or ".work" in p.name)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder that is not a lock."""
    from geocyclegan.files import sha256

    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in path.name and ".holder" not in path.name
    }


@contextmanager
def small_disk(folder: Path, size: int | None) -> Iterator[Path]:
    """A file system in memory of so many bytes; it needs the rights of root."""
    import subprocess

    folder.mkdir(parents=True, exist_ok=True)
    options = "size=100%" if size is None else f"size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, options: str) -> None:
    """Mount a small disk again with other options."""
    import subprocess

    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
