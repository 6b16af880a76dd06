"""Decoded chips in shared files: the same batches, whoever decoded them, and nothing left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import OutputError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.loop import train

MakeConfig = Callable[..., TrainConfig]


def test_a_cache_below_a_file_names_its_option(chips_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    chips = ChipSet.open(chips_folder, "a")
    with pytest.raises(OutputError, match=r"--cache \S*file: no folder can be made there"):
        LevelReader(chips, Budget(folder=tmp_path / "file" / "run"))


def test_a_second_process_finds_what_the_first_decoded(
    chips_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = ChipSet.open(chips_folder, "a")
    plain = LevelReader(chips, Budget(0))
    first, second = (LevelReader(chips, Budget(folder=tmp_path / "cache")) for _ in range(2))
    for index in range(len(chips)):
        first.read(index)

    def fail(self: ChipSet, index: int) -> None:
        raise AssertionError("decoded again")

    expected = [plain.read(index) for index in range(len(chips))]
    monkeypatch.setattr(ChipSet, "read", fail)
    masks = 0
    for index, (levels, valid) in enumerate(expected):
        found, mask = second.read(index)
        np.testing.assert_array_equal(found, levels)
        assert (mask is None) == (valid is None)
        if valid is not None and mask is not None:
            masks += 1
            np.testing.assert_array_equal(mask, valid)
    assert masks == 1


def test_a_run_with_a_cache_is_the_same_and_leaves_nothing(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plain = train(tiny(name="plain", steps=3))
    kept = train(tiny(name="kept", steps=3, cache=cache))
    for name in ("log.csv", "validation.csv", "model/model.safetensors"):
        assert (plain.run / name).read_bytes() == (kept.run / name).read_bytes()
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs a system that reserves space")
def test_a_disk_that_is_full_is_found_at_the_start(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"--cache .*cache: needs \d+ MiB for .*No space left"):
        train(tiny(cache=tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []
