"""Logs go on where the run goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geocyclegan.errors import OutputError
from geocyclegan.training.logs import CsvLog, TensorBoardLog

FileLimit = Callable[[int], AbstractContextManager[None]]


def _write(path: Path, steps: range, start: int = 0) -> CsvLog:
    log = CsvLog(path, start)
    for step in steps:
        log.write(step, {"epoch": 1, "loss": step / 3})
    return log


def test_a_resumed_log_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    _write(whole, range(1, 10))
    _write(parts, range(1, 8))
    with open(parts, "a") as file:
        file.write("8,1,2.6")
    assert CsvLog(parts, 7).last == 7
    _write(parts, range(6, 10), start=5)
    assert parts.read_bytes() == whole.read_bytes()
    assert whole.read_text().splitlines()[:2] == ["step,epoch,loss", "1,1,0.3333333"]


def test_a_log_whose_rows_all_go_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    _write(path, range(5, 8))
    log = CsvLog(path, 4)
    assert not path.exists()
    assert log.last == -1
    log.flush()
    log.write(5, {"other": 1.0})
    assert path.read_text() == "step,other\n5,1\n"


def test_a_column_that_comes_later(tmp_path: Path) -> None:
    """As the correlation of classes, which look alike at first; rows may also lack one."""
    path = tmp_path / "log.csv"
    rows: list[dict[str, float]] = [{"a": 1.5}, {"a": 2.5, "b": 3.5}, {"b": 4.5}]
    log = CsvLog(path)
    for step, row in enumerate(rows, 1):
        log.write(step, row)
    whole = path.read_text()
    assert whole == "step,a,b\n1,1.5,\n2,2.5,3.5\n3,,4.5\n"
    assert log.column("b") == ((2, 3), (3.5, 4.5))
    resumed = CsvLog(path, 1)
    for step, row in enumerate(rows[1:], 2):
        resumed.write(step, row)
    assert path.read_text() == whole


def test_half_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,lo")
    CsvLog(path, 4).write(5, {"loss": 1.0})
    assert path.read_text() == "step,loss\n5,1\n"


def test_tensorboard_hides_what_is_done_again(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as board:
        for step in range(1, 7):
            board.scalars("losses", step, {"g": float(step)})
        board.image("panel", 6, np.zeros((4, 5, 3), np.uint8))
    with TensorBoardLog(tmp_path, 4) as board:
        for step in range(5, 9):
            board.scalars("losses", step, {"g": 10.0 * step})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("losses/g")]
    assert scalars == [(s, float(s)) for s in range(1, 5)] + [(s, 10.0 * s) for s in range(5, 9)]


def test_tensorboard_on_a_full_disk_is_told_of_once(
    tmp_path: Path,
    file_limit: FileLimit,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    hook = threading.excepthook
    with file_limit(0), pytest.raises(OutputError, match=r"cannot be written \(File too large\)"):
        TensorBoardLog(tmp_path / "other")
    assert threading.excepthook is hook
    with TensorBoardLog(tmp_path) as board:
        board.scalars("losses", 1, {"g": 1.0})
        with file_limit(20_000):
            for step in range(2, 50):
                board.image("panel", step, noise)
    assert len(caplog.messages) == 1
    assert "cannot be written (File too large); the run goes on without" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is hook


def test_rows_that_cannot_be_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_limit: FileLimit
) -> None:
    log = CsvLog(tmp_path / "log.csv")
    log.write(1, {"loss": 1.0})

    def broken(number: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OutputError, match=r"log.csv: cannot be written \(Input/output error"):
            log.flush()
    for step in range(2, 9):
        log.write(step, {"loss": 1.0})
    before = (tmp_path / "log.csv").read_bytes()
    with file_limit(10), pytest.raises(OutputError, match=r"log.csv: cannot be written \(File too"):
        CsvLog(tmp_path / "log.csv", 5)
    assert (tmp_path / "log.csv").read_bytes() == before
