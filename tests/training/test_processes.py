"""Runs in processes of their own: signals end them cleanly, and a kill loses nothing.

The processes are forked from a server that has imported everything, which saves seconds each.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from geocyclegan.bundle import load_bundle
from geocyclegan.cli.main import main
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]
Start = Callable[..., BaseProcess]


def _saving_beside() -> None:
    """The command line, with saves that are written beside the training, as on CUDA."""
    loop: Any = importlib.import_module("geocyclegan.training.loop")
    loop.overlaps = lambda device: True
    main()


@pytest.fixture(scope="module")
def start() -> Start:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["geocyclegan.training.loop", "geocyclegan.cli.train", "torch.utils.tensorboard"]
    )

    def begin(
        monkeypatch: pytest.MonkeyPatch, *arguments: object, beside: bool = False
    ) -> BaseProcess:
        monkeypatch.setattr(sys, "argv", ["geocyclegan", *map(str, arguments)])
        process = context.Process(target=_saving_beside if beside else main)
        process.start()
        return process

    return begin


def _options(config: TrainConfig) -> list[object]:
    """The command line that gives this configuration."""
    words: list[object] = ["-q", "train", config.chips]
    for name, value in config.to_dict().items():
        if isinstance(value, bool):
            words += [f"--{name}"] if value and name != "flip" else []
        elif name != "chips" and value is not None:
            words += [f"--{name}", value]
    return words


def _lines(run: Path) -> int:
    try:
        return len((run / "log.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def _wait(process: BaseProcess, run: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while _lines(run) < lines and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "beside"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
def test_signals_save(
    tiny: MakeConfig,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    beside: bool,
) -> None:
    config = tiny(steps=100_000, save_every=100_000, log_every=1, panel_every=0, val_every=0)
    process = start(monkeypatch, *_options(config), beside=beside)
    run = config.out / "run"
    _wait(process, run, 3)
    assert process.pid is not None
    began = time.monotonic()
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == 128 + number
    assert time.monotonic() - began < 10
    step = _lines(run)
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == [f"step_{step:07d}.pt"]
    assert load_bundle(run).training["steps"] == step
    # What was saved goes on.
    assert train(config.updated({"steps": step + 1}), resume=True).steps == step + 1


def _kill_and_resume(
    config: TrainConfig,
    kills: int,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    beside: bool,
) -> Path:
    """Kill a run again and again, at least once within a save, and let it end."""
    draw, run = random.Random(kills), config.out / "run"
    options = _options(config)
    for kill in range(kills):
        resume = ["--resume"] if (run / "config.yaml").exists() else []
        process = start(monkeypatch, *options, *resume, beside=beside)
        _wait(process, run, min(_lines(run) + draw.randrange(1, 5), (config.steps or 0) - 2))
        if kill % 2:
            deadline = time.monotonic() + 10
            while not list(run.glob("**/.*part*")) and time.monotonic() < deadline:
                if not process.is_alive():
                    break
        else:
            time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.join()
    process = start(monkeypatch, *options, "--resume", beside=beside)
    process.join(120)
    assert process.exitcode == 0
    return run


@pytest.mark.parametrize("beside", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_runs_equal_an_uninterrupted_one(
    tiny: MakeConfig,
    start: Start,
    assert_same_run: SameRun,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    beside: bool,
    tmp_path: Path,
) -> None:
    steps = 20 if kills < 10 else 120
    config = tiny(steps=steps, save_every=2, log_every=1, val_every=5, panel_every=7)
    whole = train(config.updated({"out": tmp_path / "whole"}))
    run = _kill_and_resume(config, kills, start, monkeypatch, beside)
    assert_same_run(run, whole.run)
    assert not list(run.rglob(".*part*"))
