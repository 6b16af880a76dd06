"""Saves that are written beside the training: of their own step, one at a time, none forgotten."""

from __future__ import annotations

import copy
import importlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geocyclegan.bundle import load_bundle
from geocyclegan.errors import Interrupted, OutputError
from geocyclegan.training import saving
from geocyclegan.training.checkpoint import checkpoints, load_latest, save_checkpoint
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train
from geocyclegan.training.saving import Saver, overlaps
from geocyclegan.training.signals import StopRequest
from geocyclegan.training.state import TrainingState

loop: Any = importlib.import_module("geocyclegan.training.loop")

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]


def test_it_is_for_devices_that_train_without_the_cpu() -> None:
    assert overlaps(torch.device("cuda"))
    assert not overlaps(torch.device("cpu"))


def _state() -> dict[str, Any]:
    weight = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
    networks = OrderedDict(w=weight, tied=weight, empty=torch.empty(0))
    networks._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    return {
        "networks": networks,
        "groups": [{"betas": (0.5, 0.999), "step": torch.tensor(3.0)}, None, "text"],
        "half": torch.ones(3, dtype=torch.bfloat16),
    }


def test_what_is_written_is_what_was_there(assert_equal: Any) -> None:
    """Whatever training does to it meanwhile."""
    state, go, written = _state(), threading.Event(), []
    expected = copy.deepcopy(state)

    def write(content: Any) -> None:
        go.wait(10)
        written.append(copy.deepcopy(content))

    with Saver(overlap=True) as saver:
        saver.save(state, write)
        state["networks"]["w"].zero_()
        state["groups"][0]["step"] += 1
        state["groups"][0]["betas"] = None
        state["groups"].append("more")
        assert not written
        go.set()
    (found,) = written
    assert_equal(found, expected)
    assert found["networks"]["w"] is found["networks"]["tied"]
    assert found["networks"]["w"].is_contiguous(memory_format=torch.channels_last)
    assert found["networks"]._metadata == {"": {"version": 2}}


@pytest.fixture
def assert_equal() -> Any:
    def compare(a: Any, b: Any) -> None:
        assert type(a) is type(b)
        if isinstance(a, Tensor):
            assert torch.equal(a, b)
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                compare(a[key], b[key])
        elif isinstance(a, list | tuple):
            for one, two in zip(a, b, strict=True):
                compare(one, two)
        else:
            assert a == b

    return compare


def test_memory_of_the_copy_is_used_again_when_it_is_free() -> None:
    state, places, busy = _state(), [], threading.Event()

    def write(content: Any) -> None:
        assert not busy.is_set()
        busy.set()
        places.append([content["half"].data_ptr(), content["networks"]["w"].data_ptr()])
        busy.clear()

    with Saver(overlap=True) as saver:
        for _ in range(3):
            saver.save(state, write)
            saver.settle()
        assert places[0] == places[1] == places[2]
        state["half"] = torch.ones(5)
        held: list[Any] = []
        saver.save(state, held.append)
        saver.wait()
        assert torch.equal(held[0]["half"], torch.ones(5))


def _full(content: Any) -> None:
    raise OutputError("x: no space")


@pytest.mark.parametrize("when", ["check", "wait", "save", "leave"])
def test_a_failure_is_raised_once(when: str) -> None:
    written: list[Any] = []

    def use() -> None:
        with Saver(overlap=True) as saver:
            saver.save({}, _full)
            saver.settle()
            if when == "check":
                saver.check()
            elif when == "wait":
                saver.wait()
            elif when == "save":
                saver.save({}, written.append)

    with pytest.raises(OutputError, match="no space") as error:
        use()
    assert not written
    assert error.value.__context__ is None


def test_a_failure_does_not_hide_why_a_run_ends(caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        with Saver(overlap=True) as saver:
            saver.save({}, _full)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        use()
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == ["x: no space"]


def test_without_overlap_it_is_written_at_once() -> None:
    state = _state()
    written: list[Any] = []
    with Saver(overlap=False) as saver:
        saver.save(state, written.append)
        assert written[0] is state
        with pytest.raises(OutputError):
            saver.save(state, _full)
        saver.check()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_checkpoint_before_stays_until_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import os

    save_checkpoint(tmp_path, 10, {"w": torch.ones(3)})
    real, calls = os.fsync, [0]

    def fail(handle: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        real(handle)

    def write(content: Any) -> None:
        save_checkpoint(tmp_path, 20, content)

    monkeypatch.setattr(os, "fsync", fail)
    saver = Saver(overlap=True)
    with saver:
        saver.save({"w": torch.zeros(3)}, write)
        saver.settle()
        failed = len(checkpoints(tmp_path)) == 1
        if failed:
            with pytest.raises(OutputError, match="No space left"):
                saver.wait()
    state = load_latest(tmp_path)
    assert state is not None
    assert state["step"] == (10 if failed else 20)
    assert not list(tmp_path.glob(".*part*"))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "overlaps", lambda device: True)


@pytest.mark.usefixtures("beside")
def test_a_run_leaves_what_it_leaves_otherwise(
    tiny: MakeConfig, assert_same_run: SameRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"ema": 0.9, "save_every": 2, "steps": 6}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "overlaps", lambda device: False)
        whole = train(tiny(name="whole", **options)).run
    # As slow as can be: each is written while the next interval is trained.
    slow = _Slow(monkeypatch)
    run = train(tiny(**options)).run
    assert slow.behind == [1, 1, 0]
    assert_same_run(run, whole)
    for path in run.glob("checkpoints/step_0000006*"):
        path.unlink()
    assert_same_run(train(tiny(**options), resume=True).run, whole)


class _Slow:
    """Writes of checkpoints that take a step, where there is one; how many each took."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.behind: list[int] = []
        stepped = threading.Event()
        write, advance = loop.save_checkpoint, TrainingState.advance
        reached = [0]

        def late(folder: Path, step: int, content: Any) -> Any:
            stepped.clear()
            stepped.wait(5 if step < 6 else 0)
            self.behind.append(int(reached[0] > step))
            return write(folder, step, content)

        def noted(state: TrainingState, *batches: Any) -> None:
            advance(state, *batches)
            reached[0] = state.step
            stepped.set()

        patch.setattr(loop, "save_checkpoint", late)
        patch.setattr(TrainingState, "advance", noted)


@pytest.mark.usefixtures("beside")
def test_a_disk_that_fills_ends_the_run_with_the_last_good_checkpoint(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = loop.save_checkpoint

    def full(folder: Path, step: int, content: Any) -> Any:
        if step > 2:
            raise OutputError(f"{folder}: no space")
        return write(folder, step, content)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    config = tiny(steps=40, save_every=2, log_every=1, panel_every=0, val_every=0)
    with pytest.raises(OutputError, match="no space"):
        train(config)
    run = config.out / "run"
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step_0000002.pt"]
    assert load_bundle(run).training["steps"] == 2
    # At the next save at the latest.
    assert len((run / "log.csv").read_text().splitlines()) - 1 <= 6


@pytest.mark.usefixtures("beside")
def test_a_signal_leaves_its_own_step_on_the_disk(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another save is being written, too."""
    import signal

    advance, stops, enter = TrainingState.advance, [], StopRequest.__enter__

    def remember(self: StopRequest) -> StopRequest:
        stops.append(self)
        return enter(self)

    def stop(self: TrainingState, *batches: Any) -> None:
        advance(self, *batches)
        if self.step == 3:
            stops[-1].signal = signal.SIGTERM

    monkeypatch.setattr(StopRequest, "__enter__", remember)
    monkeypatch.setattr(TrainingState, "advance", stop)
    config = tiny(save_every=2, panel_every=0, val_every=0)
    with pytest.raises(Interrupted, match="step 3 of 8"):
        train(config)
    run = config.out / "run"
    assert [path.name for path in checkpoints(run / "checkpoints")] == [
        "step_0000002.pt",
        "step_0000003.pt",
    ]
    assert load_bundle(run).training["steps"] == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_from_cuda_are_of_their_moment() -> None:
    weight = torch.zeros(64, 64, 64, device="cuda")
    step = torch.zeros((), device="cuda")
    found: list[tuple[float, float, bool]] = []

    def write(content: Any) -> None:
        each = content["w"]
        found.append((float(each.min()), float(each.max()), each.is_pinned()))

    with Saver(overlap=True) as saver:
        for number in range(5):
            for _ in range(20):
                weight += 1
                step += 1
            torch.cuda.set_sync_debug_mode("error")
            try:
                saver.save({"w": weight, "step": step}, write)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            for _ in range(20):
                weight += 1
            assert number >= 0
    assert found == [(40.0 * n + 20, 40.0 * n + 20, True) for n in range(5)]
    assert saving.overlaps(weight.device)
