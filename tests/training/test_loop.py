"""Whole runs: what they leave behind, how they go on, and what they refuse before writing."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from geocyclegan.bundle import load_bundle
from geocyclegan.errors import (
    BundleError,
    ChipsError,
    NotFoundError,
    OptionError,
    OutputError,
    TrainingError,
)
from geocyclegan.files import output_lock
from geocyclegan.methods.cyclegan import CycleGAN
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.loop import train
from geocyclegan.training.resolve import identity_bands
from geocyclegan.training.state import TrainingState

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def finished(chips_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, with the options of `tiny`."""
    options: dict[str, Any] = {"generator": "resnet6", "width": 4, "steps": 8, "crop": 24}
    options |= {"pool": 3, "save_every": 3, "panel_every": 4, "val_every": 4, "log_every": 2}
    out = tmp_path_factory.mktemp("finished")
    return train(TrainConfig(chips=chips_folder, out=out, name="run", **options)).run


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder(finished: Path, chips_folder: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "best",
        "checkpoints",
        "config.yaml",
        "log.csv",
        "model",
        "panels",
        "tensorboard",
        "validation.csv",
    ]
    assert sorted(path.name for path in (finished / "checkpoints").glob("*.pt")) == [
        "step_0000006.pt",
        "step_0000008.pt",
    ]
    assert sorted(path.name for path in (finished / "panels").iterdir()) == [
        "step_0000004.png",
        "step_0000008.png",
    ]
    config = TrainConfig.load(finished / "config.yaml")
    assert (config.steps, config.epochs, config.d_width, config.crop) == (8, None, 4, 24)
    # Nothing is left beside it, such as a lock.
    assert [path.name for path in finished.parent.iterdir()] == ["run"]


def test_logs_and_panels(finished: Path) -> None:
    rows = _rows(finished / "log.csv")
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    assert [int(row["epoch"]) for row in rows] == [1, 1, 2, 2]
    assert [float(row["lr"]) for row in rows] == pytest.approx([2e-4, 2e-4, 1.5e-4, 0.5e-4])
    assert {"g_ab", "g_ba", "cycle_a", "identity_a", "d_a", "d_b", "generators"} <= rows[0].keys()
    validation = _rows(finished / "validation.csv")
    assert [int(row["step"]) for row in validation] == [4, 8]
    assert {"cycle_a", "cycle_b", "identity_a", "identity_b"} <= validation[0].keys()
    with Image.open(finished / "panels" / "step_0000008.png") as panel:
        assert panel.size == (3 * 192 + 2 * 6, 4 * (192 + 16))


def test_the_bundle_is_the_trained_model(finished: Path, chips_folder: Path) -> None:
    bundle = load_bundle(finished)
    assert (bundle.method, bundle.tile) == ("cyclegan", 24)
    assert bundle.training["steps"] == 8
    assert bundle.training["options"]["width"] == 4
    assert bundle.training["scenes"] == {"a": [], "b": []}
    assert bundle.training["chips"]["train_a"] == 5
    assert bundle.training["torch"] == torch.__version__
    assert bundle.source("a2b").names == ("vv", "B04")
    state = torch.load(finished / "checkpoints" / "step_0000008.pt", weights_only=True)
    weights = bundle.generator("a2b").state_dict()
    for name, value in weights.items():
        assert torch.equal(value, state["networks"][f"generator_ab.{name}"])
    assert all(group["lr"] == 0.0 for group in state["optimizers"]["generators"]["param_groups"])


def test_many_resumes_equal_one_run(
    tiny: MakeConfig, finished: Path, assert_same_run: SameRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every step, between two lines of the log and before a validation is due."""
    from geocyclegan.errors import Interrupted
    from geocyclegan.training.signals import StopRequest

    advance = TrainingState.advance
    stops: list[StopRequest] = []
    enter = StopRequest.__enter__

    def remember(self: StopRequest) -> StopRequest:
        stops.append(self)
        return enter(self)

    def stop(self: TrainingState, batch: Any) -> None:
        import signal

        advance(self, batch)
        stops[-1].signal = signal.SIGTERM

    monkeypatch.setattr(StopRequest, "__enter__", remember)
    monkeypatch.setattr(TrainingState, "advance", stop)
    for step in range(1, 9):
        # What an unrelated user of the same process draws must not matter.
        torch.rand(step)
        with pytest.raises(Interrupted, match=f"SIGTERM at step {step} of 8") as error:
            train(tiny(), resume=step > 1)
        assert error.value.exit_code == 143
        config = tiny()
        assert f"geocyclegan train --out {config.out} --name {config.name} --resume" in str(
            error.value
        )
    result = train(tiny(), resume=True)
    assert result.steps == 8
    assert_same_run(result.run, finished)


def test_a_resume_from_an_older_checkpoint_equals_one_run(
    finished: Path, tmp_path: Path, assert_same_run: SameRun
) -> None:
    """As after a kill: what was written after the checkpoint is dropped and done again."""
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    for leftover in ("checkpoints/step_0000008.pt", "panels/step_0000008.png"):
        (run / leftover).write_bytes(b"half")
    (run / "checkpoints" / "step_0000008.pt").unlink()
    (run / "checkpoints" / ".step_0000008.99.part.pt").write_bytes(b"half")
    (run / ".model.99.part").mkdir()
    with open(run / "log.csv", "a") as file:
        file.write("10,3,0.")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    assert_same_run(train(config, resume=True).run, finished)
    assert not list(run.rglob(".*part*"))


def test_nothing_to_do_and_more_to_do(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    shutil.rmtree(run / "model")
    # Even then the bundle is there at the end.
    assert train(config, resume=True).steps == 8
    assert load_bundle(run).training["steps"] == 8
    with pytest.raises(OptionError, match=r"--steps 7: the run run has 8 steps already"):
        train(config.updated({"steps": 7}), resume=True)
    assert train(config.updated({"steps": 10}), resume=True).steps == 10
    assert [int(row["step"]) for row in _rows(run / "log.csv")] == [2, 4, 6, 8, 10]
    assert TrainConfig.load(run / "config.yaml").steps == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 8, "d_width": 4}, "--width 8: the run run was started with 4"),
        ({"flip": False}, "--flip off: the run run was started with on"),
        ({"lr": 1e-3}, "--lr 0.001"),
        ({"seed": 4}, "--seed 4"),
    ],
)
def test_a_resume_as_something_else_is_refused(
    finished: Path, changes: dict[str, Any], said: str
) -> None:
    config = TrainConfig.load(finished / "config.yaml").updated(changes)
    with pytest.raises(OptionError) as error:
        train(config, resume=True)
    assert said in str(error.value)


def test_a_resume_on_other_chips_is_refused(
    finished: Path, chips_folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    moved = shutil.copytree(chips_folder, tmp_path / "moved")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent, "chips": moved})
    assert train(config, resume=True).steps == 8
    (moved / "train_a" / "a4.tif").unlink()
    with pytest.raises(BundleError, match="the chips are not those that the run run"):
        train(config, resume=True)


def test_damaged_and_lost_checkpoints(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent, "steps": 10})
    latest = run / "checkpoints" / "step_0000008.pt"
    latest.write_bytes(latest.read_bytes()[:-100])
    before = sorted(run.rglob("*"))
    with pytest.raises(BundleError, match=r"step_0000008.pt: damaged .* step_0000006.pt"):
        train(config, resume=True)
    assert sorted(run.rglob("*")) == before
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(BundleError, match="the checkpoints are gone"):
        train(config, resume=True)


def test_a_checkpoint_of_another_network(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    config = TrainConfig.load(run / "config.yaml")
    config.updated({"width": 8}).save(run / "config.yaml")
    with pytest.raises(BundleError, match="the checkpoint does not fit the run"):
        train(config.updated({"width": 8, "out": run.parent}), resume=True)


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    finished: Path, tmp_path: Path, assert_same_run: SameRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    for name in ("config.yaml", "log.csv"):
        shutil.copy(finished / name, run / name)
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    assert_same_run(train(config, resume=True).run, finished)
    assert "starts at step 0" in caplog.text


def test_the_name_of_a_run_without_a_checkpoint_is_free(
    finished: Path, tmp_path: Path, assert_same_run: SameRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "runs" / "run"
    shutil.copytree(finished / "panels", run / "panels")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / ".step_0000001.pt.part.1").touch()  # killed while it saved the first
    for name in ("config.yaml", "log.csv"):
        shutil.copy(finished / name, run / name)
    (run / "notes.txt").write_text("mine")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    with pytest.raises(OptionError, match="--crop"):
        train(config.updated({"crop": 12345}))
    assert not (run / "unfinished-1").exists()
    result = train(config)
    assert f"what that one logged is in {run / 'unfinished-1'}" in caplog.text
    assert_same_run(result.run, finished)
    for name in ("config.yaml", "log.csv"):
        assert (run / "unfinished-1" / name).read_bytes() == (finished / name).read_bytes()
    assert list((run / "unfinished-1" / "panels").glob("*.png"))
    assert (run / "notes.txt").read_text() == "mine"
    # One with any result keeps its name.
    with pytest.raises(OutputError, match="exists; give --resume"):
        train(config)
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "best", ignore_errors=True)
    with pytest.raises(OutputError, match="exists; give --resume"):
        train(config)


def test_existing_runs_are_safe(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "runs" / "run")
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent, "steps": 1})
    with pytest.raises(OutputError, match="exists; give --resume"):
        train(config)
    with pytest.raises(OptionError, match="give one of them"):
        train(config, resume=True, overwrite=True)
    (run / "keep.txt").touch()
    train(config, overwrite=True)
    assert not (run / "keep.txt").exists()
    assert load_bundle(run).training["steps"] == 1
    # A folder that is no run is nobody's to remove.
    other = tmp_path / "runs" / "thesis"
    other.mkdir()
    (other / "text.txt").touch()
    with pytest.raises(OutputError, match="not a run"):
        train(config.updated({"name": "thesis"}), overwrite=True)
    assert (other / "text.txt").exists()
    assert not list((tmp_path / "runs").glob(".*"))


def test_two_runs_on_one_output(tiny: MakeConfig) -> None:
    config = tiny()
    with output_lock(config.out / "run"), pytest.raises(OutputError, match=r"process \d+ on"):
        train(config)


def test_names_are_numbered(tiny: MakeConfig) -> None:
    config = tiny(name=None, steps=1, panel_every=0, val_every=0)
    (config.out / "cyclegan-004").mkdir(parents=True)
    with output_lock(config.out / "cyclegan-005"):
        assert train(config).run.name == "cyclegan-006"


def test_resume_says_which_runs_there_are(finished: Path) -> None:
    config = TrainConfig.load(finished / "config.yaml").updated({"out": finished.parent})
    with pytest.raises(OptionError, match=r"say which run with --name; .* there are: run"):
        train(config.updated({"name": None}), resume=True)
    with pytest.raises(NotFoundError, match="no run nun in"):
        train(config.updated({"name": "nun"}), resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generator": "unet256", "crop": None}, "chips in .* have 32; use chips and crops of 256"),
        ({"crop": 26}, "--crop 26: --generator resnet6 needs a multiple of 4 px"),
        ({"crop": 40}, "--crop 40: the chips in .* have 32 px; give --crop 32 or less"),
        ({"crop": 8}, "at least 24"),
        ({"speckle": 4.0}, "--speckle 4: no band is power"),
        ({"jitter_db": 1.0}, "--jitter-db 1: no band is in decibel"),
        ({"band_map": "vv=z"}, "--band-map vv=z: B has no band z; it has B04, x, y"),
        ({"generator": "resnet7"}, "generator 'resnet7' is not known; choose one of: resnet9"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tiny: MakeConfig, changes: dict[str, Any], said: str
) -> None:
    config = tiny(**changes)
    with pytest.raises(OptionError, match=said):
        train(config)
    assert not config.out.exists()


def test_an_empty_domain(tiny: MakeConfig, chips_folder: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    shutil.copytree(chips_folder / "train_a", lonely / "train_a")
    config = tiny(chips=lonely)
    with pytest.raises(ChipsError, match=r"no chip of domain b .*geocyclegan chip SCENE"):
        train(config)
    assert not config.out.exists()


def test_defaults_of_crop_and_steps(tiny: MakeConfig) -> None:
    config = tiny(crop=None, steps=None, epochs=1, batch=2, panel_every=0, val_every=0)
    result = train(config)
    assert result.steps == 3
    assert TrainConfig.load(result.run / "config.yaml").crop == 32
    assert not (result.run / "panels").exists()
    assert not (result.run / "validation.csv").exists()


def test_the_identity_loss_that_is_off_is_said_once(
    tiny: MakeConfig, chips_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirrored = tmp_path / "mirrored"
    for one, other in (("a", "b"), ("b", "a")):
        shutil.copytree(chips_folder / f"train_{one}", mirrored / f"train_{other}")
    train(tiny(chips=mirrored, steps=1))
    assert "the identity loss" not in caplog.text
    # Nothing held out: panels show training chips, and validation says that it is off.
    assert caplog.text.count("no validation") == 1
    npy = tmp_path / "unnamed"
    import numpy as np

    for domain in "ab":
        (npy / f"train_{domain}").mkdir(parents=True)
        np.save(npy / f"train_{domain}" / "0.npy", np.random.default_rng(0).random((1, 32, 32)))
    caplog.clear()
    train(tiny(chips=npy, steps=2, name="two"))
    assert caplog.text.count("the identity loss is off") == 1
    caplog.clear()
    train(tiny(chips=npy, steps=1, name="three", identity=0.0, val_every=0))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


AUGMENTED: dict[str, Any] = {"zoom": 1.3, "rotate": 20.0, "jitter_gain": 0.1}
AUGMENTED |= {"jitter_offset": 0.05, "band_dropout": 0.1}


def test_an_augmented_run_goes_on_as_it_was(tiny: MakeConfig, finished: Path) -> None:
    whole = train(tiny(name="whole", **AUGMENTED)).run
    train(tiny(name="parts", save_every=5, **AUGMENTED))
    parts = tiny().out / "parts"
    (parts / "checkpoints" / "step_0000008.pt").unlink()
    config = TrainConfig.load(parts / "config.yaml").updated({"out": parts.parent})
    resumed = train(config, resume=True).run
    assert (resumed / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    one, two = (load_bundle(run / "model").generator("a2b") for run in (resumed, whole))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name]), name
    assert (resumed / "log.csv").read_bytes() != (finished / "log.csv").read_bytes()


def test_bands_that_are_said_to_mean_the_same(
    tiny: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """By default B04 of both; a map names another pair, by name and by number."""
    chips = Chips.open(tiny().chips)
    a, b = chips.train_a.domain, chips.train_b.domain
    assert identity_bands(tiny(), a, b) == ((1, 0),)
    mapped = tiny(band_map="VV=3")
    assert identity_bands(mapped, a, b) == ((0, 2),)
    run = train(replace(mapped, steps=1, val_every=0, log_every=1)).run
    assert float(_rows(run / "log.csv")[0]["identity_b"]) > 0
    assert "the identity loss is off" not in caplog.text


def _poison(monkeypatch: pytest.MonkeyPatch, at: int, *, hide: bool) -> None:
    """Break a weight after step `at`; hidden, the losses of that step stay as they were."""
    step, calls = CycleGAN.step, [0]

    def poisoned(self: CycleGAN, *args: Any) -> Any:
        calls[0] += 1
        losses = step(self, *args)
        if calls[0] == at:
            with torch.no_grad():
                next(self.generator_ab.parameters()).fill_(float("nan"))
            if not hide:
                losses["cycle_a"] = torch.tensor(float("nan"))
        return losses

    monkeypatch.setattr(CycleGAN, "step", poisoned)


def test_a_loss_that_is_not_finite_stops_within_the_step(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, 4, hide=False)
    config = tiny()
    with pytest.raises(TrainingError) as error:
        train(config)
    said = str(error.value)
    assert "step 4: cycle_a is nan, on " in said
    assert "train_a/a" in said
    assert "train_b/b" in said
    assert "step_0000003.pt is the last good checkpoint" in said
    run = config.out / "run"
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step_0000003.pt"]
    assert load_bundle(run).training["steps"] == 3
    assert not list((run / "panels").glob("*"))


def test_a_device_that_is_not_asked_every_step_names_the_same_step(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where the first bad step is fetched later, but before anything is saved."""
    _poison(monkeypatch, 4, hide=False)
    monkeypatch.setattr("geocyclegan.training.meter.LossMeter.cheap", False)
    config = tiny(log_every=100, panel_every=0, val_every=0)
    with pytest.raises(TrainingError, match=r"step 4: cycle_a is nan, .*step_0000003.pt is the"):
        train(config)
    run = config.out / "run"
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step_0000003.pt"]
    assert load_bundle(run).training["steps"] == 3


def test_a_weight_that_is_not_finite_is_never_saved(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, 6, hide=True)
    config = tiny()
    with pytest.raises(TrainingError, match="step 6: a weight is not a finite number"):
        train(config)
    run = config.out / "run"
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step_0000003.pt"]
    assert load_bundle(run).training["steps"] == 3


def test_a_chip_damaged_during_training_is_named(
    tiny: MakeConfig, chips_folder: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(chips_folder, tmp_path / "damaged")
    path = damaged / "train_b" / "b0.tif"
    content = path.read_bytes()
    advance = TrainingState.advance

    def cut(self: TrainingState, batch: Any) -> None:
        path.write_bytes(content[: len(content) // 2])
        advance(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "advance", cut)
        patch.setattr("geocyclegan.training.levels.Budget.take", lambda self, size: False)
        with pytest.raises(ChipsError, match=r"b0.tif"):
            train(tiny(chips=damaged, steps=50))


def test_the_bundle_records_the_scenes(
    tiny: MakeConfig, chips_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from geocyclegan.training.data import Chips

    real = Chips.open(chips_folder)
    listed = replace(real, train_a=replace(real.train_a, scenes=("/data/s1.tif",)))
    monkeypatch.setattr(Chips, "open", lambda folder, sides, absent: listed)
    result = train(tiny(steps=1, panel_every=0, val_every=0))
    assert load_bundle(result.run).training["scenes"] == {"a": ["/data/s1.tif"], "b": []}
    assert json.loads((result.model / "model.json").read_text())["training"]["losses"]
