"""Checkpoints: whole or absent, checked before use, and nothing in them is run."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from geocyclegan.errors import BundleError, OutputError
from geocyclegan.training.checkpoint import (
    checkpoint_path,
    checkpoints,
    load_latest,
    save_checkpoint,
)

FileLimit = Callable[[int], AbstractContextManager[None]]


def _state(step: int) -> dict[str, Any]:
    return {"weights": {"w": torch.full((400,), float(step))}, "names": ["a"], "count": 3}


def _fill(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, _state(step))


def test_the_last_two_are_kept_with_their_hashes(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    _fill(tmp_path, 999_999, 5_000_000, 12_000_000)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_5000000.pt", "step_12000000.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_12000000.pt",
        "step_12000000.pt.sha256",
        "step_5000000.pt",
        "step_5000000.pt.sha256",
    ]
    state = load_latest(tmp_path)
    assert state is not None
    assert state["step"] == 12_000_000
    assert torch.equal(state["weights"]["w"], _state(12_000_000)["weights"]["w"])


def test_every_cut_and_flip_is_found_and_the_last_good_one_named(tmp_path: Path) -> None:
    _fill(tmp_path, 10, 20)
    path, draw = checkpoint_path(tmp_path, 20), random.Random(0)
    whole = path.read_bytes()
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(10)]
    for _ in range(20):
        position = draw.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[position] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(BundleError) as error:
            load_latest(tmp_path)
        assert "step_0000020.pt: damaged" in str(error.value)
        assert "the last good one is step_0000010.pt" in str(error.value)
    path.unlink()
    state = load_latest(tmp_path)
    assert state is not None
    assert state["step"] == 10


def test_200_flipped_bits_are_all_found(tmp_path: Path) -> None:
    """In the checkpoint, and in the hash beside it."""
    _fill(tmp_path, 10, 20)
    path, draw = checkpoint_path(tmp_path, 20), random.Random(0)
    files = [path, path.with_name(path.name + ".sha256")]
    for number in range(200):
        file = files[number % 2]
        sound = file.read_bytes()
        flipped = bytearray(sound)
        flipped[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(BundleError, match=r"step_0000020.pt: damaged .* step_0000010.pt;"):
            load_latest(tmp_path)
        file.write_bytes(sound)
    assert load_latest(tmp_path) is not None


def test_a_lost_hash_and_no_good_one_left(tmp_path: Path) -> None:
    _fill(tmp_path, 10, 20)
    (tmp_path / "step_0000020.pt.sha256").unlink()
    checkpoint_path(tmp_path, 10).write_bytes(b"")
    with pytest.raises(BundleError, match=r"sha256 is missing.*no good one is left"):
        load_latest(tmp_path)


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["pickle", "torch", "legacy"])
def test_nothing_in_a_checkpoint_is_run(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    evil, path = _Evil(tmp_path / "owned"), checkpoint_path(tmp_path, 1)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=kind == "torch")
    # A stranger can write a hash that fits.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    with pytest.raises(BundleError, match="safely"):
        load_latest(tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("call", ["save", "fsync", "replace", "unlink"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_nth_failing_call_leaves_one_that_loads(
    tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path, 10, 20)
    module: Any = torch if call == "save" else os
    real, calls = getattr(module, call), [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise RuntimeError("unexpected pos") if call == "save" else OSError(28, "No space left")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, call, fail)
        try:
            save_checkpoint(tmp_path, 30, _state(30))
            least = 30
        except OutputError:
            least = 20
    state = load_latest(tmp_path)
    assert state is not None
    assert state["step"] >= least
    assert torch.equal(state["weights"]["w"], _state(state["step"])["weights"]["w"])
    save_checkpoint(tmp_path, 40, _state(40))
    state = load_latest(tmp_path)
    assert state is not None
    assert state["step"] == 40


def test_a_full_disk_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path, 10)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"step_0000020.pt: needs 1 MiB, 0 MiB are free"):
        save_checkpoint(tmp_path, 20, _state(20))
    assert [path.name for path in checkpoints(tmp_path)] == ["step_0000010.pt"]


def test_a_write_that_fails_says_why(tmp_path: Path, file_limit: FileLimit) -> None:
    """What torch raises says "unexpected pos"; what the system said is beneath."""
    _fill(tmp_path, 10, 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    state = _state(30) | {"more": torch.zeros(100_000)}
    with file_limit(50_000), pytest.raises(OutputError) as caught:
        save_checkpoint(tmp_path, 30, state)
    assert str(caught.value).endswith("step_0000030.pt: cannot be written (File too large)")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
