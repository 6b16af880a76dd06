"""Training with the statistics of a scene, and what a bundle knows of the training set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geocyclegan.bundle import load_bundle
from geocyclegan.errors import Interrupted
from geocyclegan.models import build_generator
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.loop import train
from geocyclegan.training.signals import StopRequest
from geocyclegan.training.state import TrainingState
from geocyclegan.training.statistics import CROPS, training_statistics
from geocyclegan.training.validate import FixedCrops

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]


def test_a_run_with_scene_pooled_statistics(
    tiny: MakeConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    advance = TrainingState.advance

    def watch(self: TrainingState, batch: object) -> None:
        batches.append((batch.a.shape[0], batch.b.shape[0]))  # type: ignore[attr-defined]
        advance(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingState, "advance", watch)
    result = train(tiny(norm="scene", scene_crops=3, steps=2))
    assert set(batches) == {(3, 3)}
    assert "all count as one scene" in caplog.text
    bundle = load_bundle(result.run)
    assert bundle.normalization == {
        "kind": "instance",
        "pool": "scene",
        "crops": 3,
        "statistics": {"crops": CROPS},
    }
    assert bundle.training["options"]["scene-crops"] == 3
    network = bundle.generator("a2b")
    assert all(norm.pool == "scene" for norm in network.norm_layers())
    statistics = bundle.statistics("a2b")
    assert statistics is not None
    network.freeze(statistics)
    assert torch.isfinite(network(torch.rand(1, 2, 32, 32))).all()


def test_the_default_is_per_crop_and_records_statistics_too(tiny: MakeConfig) -> None:
    result = train(tiny(steps=1))
    assert TrainConfig.load(result.run / "config.yaml").scene_crops is None
    bundle = load_bundle(result.run)
    assert bundle.normalization["pool"] == "crop"
    for direction in ("a2b", "b2a"):
        network = bundle.generator(direction)
        network.freeze(bundle.statistics(direction) or [])


def test_four_crops_unless_told_otherwise(tiny: MakeConfig) -> None:
    result = train(tiny(norm="scene", steps=1))
    assert TrainConfig.load(result.run / "config.yaml").scene_crops == 4


def test_a_resumed_scene_run_equals_one_run(
    tiny: MakeConfig, tmp_path: Path, assert_same_run: SameRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"norm": "scene", "scene_crops": 2, "steps": 4}
    whole = train(tiny(**options)).run
    advance, stops = TrainingState.advance, []
    enter = StopRequest.__enter__

    def remember(self: StopRequest) -> StopRequest:
        stops.append(self)
        return enter(self)

    def stop(self: TrainingState, batch: object) -> None:
        import signal

        advance(self, batch)  # type: ignore[arg-type]
        if self.step == 2:
            stops[-1].signal = signal.SIGTERM

    monkeypatch.setattr(StopRequest, "__enter__", remember)
    monkeypatch.setattr(TrainingState, "advance", stop)
    other = tiny(**options, out=tmp_path / "others")
    with pytest.raises(Interrupted):
        train(other)
    assert_same_run(train(other, resume=True).run, whole)


def test_measuring_leaves_the_generator_as_it_was(chips_folder: Path) -> None:
    chips = Chips.open(chips_folder)
    readers = LevelReader(chips.train_a, Budget()), LevelReader(chips.train_b, Budget())
    torch.manual_seed(0)
    network = build_generator("resnet6", in_channels=2, out_channels=3, width=4)
    before, random = network(torch.ones(1, 2, 32, 32)), torch.get_rng_state()
    cpu = torch.device("cpu")
    one = training_statistics({"a2b": network}, readers, 24, cpu)["a2b"]
    two = training_statistics({"a2b": network}, readers, 24, cpu)["a2b"]
    assert network.training
    assert torch.equal(network(torch.ones(1, 2, 32, 32)), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(one, two, strict=True))
    # One chip is half nodata, and nodata counts nowhere.
    valid = float(one[0].count)
    assert valid < len(chips.train_a) * 24 * 24
    for norm, statistics in zip(network.norm_layers(), one, strict=True):
        assert float(statistics.count) * norm.scale**2 == pytest.approx(valid)


def test_validation_pools_as_training_does(
    chips_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    chips = Chips.open(chips_folder)
    a, b = LevelReader(chips.val_a, Budget()), LevelReader(chips.val_b, Budget())
    alone, together = FixedCrops(a, b, 24).load(1), FixedCrops(a, b, 24, together=4).load(1)
    # Two chips are all there is.
    assert (alone.a.shape[0], together.a.shape[0]) == (1, 2)
    assert torch.equal(together.a[0], alone.a[0])
