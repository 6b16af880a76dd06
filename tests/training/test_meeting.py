"""Several machines without torchrun: processes that wait end in a line, and take signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from geocyclegan.errors import OptionError, TrainingError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.meeting import meet, require_launcher

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs gloo and signals")

MakeConfig = Callable[..., TrainConfig]

LIMIT = 120
SCHEDULERS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK", "WORLD_SIZE")


def begin(config: TrainConfig, **known: str) -> subprocess.Popen[str]:
    """Start the command on what it takes for one of two machines."""
    options = ["--generator", "resnet6", "--width", "4", "--crop", "24", "--steps", "2"]
    options += ["--device", "cpu", "--panel-every", "0", "--val-every", "0", "--nodes", "2"]
    command = [sys.executable, "-m", "geocyclegan", "-v", "train", str(config.chips)]
    command += ["--out", str(config.out), "--name", "run", *options]
    environment = {key: value for key, value in os.environ.items() if key not in SCHEDULERS}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment | known,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def place() -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"it never said: {text}")


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def test_machines_without_a_launcher_are_refused(tiny: MakeConfig) -> None:
    config = tiny()
    with begin(config) as process:
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    (line,) = errors(said)
    assert "torchrun --nnodes 2" in line
    assert not (config.out / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_wait(tiny: MakeConfig, number: signal.Signals) -> None:
    config = tiny()
    with begin(config, NODE_RANK="0", **place()) as process:
        read_until(process, "process 0 of 2 waits for the others")
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    (line,) = errors(said)
    assert f"stopped by {number.name} while waiting" in line
    assert not (config.out / "run").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_who_comes_alone_waits_for_so_long_only(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in place().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("geocyclegan.training.meeting.PATIENCE", timedelta(seconds=1))
    environment = LightningEnvironment()
    environment.set_world_size(2)
    environment._global_rank = rank  # set_global_rank would change Lightning's idea of this process
    with pytest.raises(
        TrainingError, match=r"not all of 2 processes met at 127.0.0.1:\d+ within 1 s"
    ):
        meet(environment)


def test_two_machines_by_hand(tiny: MakeConfig) -> None:
    config, where = tiny(), place()
    with begin(config, NODE_RANK="0", **where) as one, begin(config, NODE_RANK="1", **where) as two:
        said = [process.communicate(timeout=LIMIT)[1] for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert (config.out / "run" / "model" / "model.json").is_file()


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"MASTER_ADDR": "a"}, "set MASTER_PORT, NODE_RANK"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "29500"}, "set NODE_RANK"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "29500", "NODE_RANK": "2"}, "NODE_RANK is 2"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "x", "NODE_RANK": "1"}, "MASTER_PORT is x"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, str], told: str
) -> None:
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=told):
        require_launcher(2, 4)
    require_launcher(1, 4)
