"""`--max-bad`: chips that cannot be read are skipped, counted and replaced, always the same way."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from geocyclegan.bundle import load_bundle
from geocyclegan.chips.chipfile import Codec
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.cli.main import cli
from geocyclegan.errors import ChipsError, OptionError, TrainingError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train
from geocyclegan.training.skips import A_SIDE, Skips
from geocyclegan.training.state import TrainingState

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two scenes of one place."""
    folder = tmp_path_factory.mktemp("scenes")
    found = []
    for seed, domain in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(1, 200, (1, 128, 128)).astype(np.uint8)
        place = {"crs": "EPSG:32630", "transform": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6)}
        profile = {"driver": "GTiff", "count": 1, "height": 128, "width": 128, "dtype": "uint8"}
        found.append(folder / f"{domain}.tif")
        with rasterio.open(found[-1], "w", **profile, **place) as scene:
            scene.write(pixels)
    return found[0], found[1]


@pytest.fixture(scope="module")
def listed(scenes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of chips with a manifest, uncompressed, so that a flipped bit is one of a pixel."""
    out = tmp_path_factory.mktemp("listed") / "chips"
    options = ChipOptions(out=out, size=32, compress=Codec("none"), val=0.2)
    chip_pairs([scenes[0]], [scenes[1]], options, options.partner(None, None))
    return out


@pytest.fixture
def chips(listed: Path, tmp_path: Path) -> Path:
    """A copy that may be harmed."""
    return shutil.copytree(listed, tmp_path / "chips")


def flip(chip: Path) -> None:
    data = bytearray(chip.read_bytes())
    data[-100] ^= 1
    chip.write_bytes(data)


def cut(chip: Path) -> None:
    chip.write_bytes(chip.read_bytes()[:-100])


def some(chips: Path, split: str, count: int) -> list[Path]:
    return sorted((chips / split).iterdir())[:count]


@pytest.mark.parametrize(
    "harm", [flip, cut, pytest.param(Path.unlink, marks=pytest.mark.slow, id="unlink")]
)
def test_bad_chips_are_skipped_named_and_counted(
    tiny: MakeConfig, chips: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    bad = [*some(chips, "train_a", 2), *some(chips, "train_b", 1), *some(chips, "val_a", 1)]
    for chip in bad:
        harm(chip)
    result = train(tiny(chips=chips, steps=30, max_bad=4))
    names = {f"{chip.parent.name}/{chip.name}" for chip in bad}
    assert set(result.skipped) == names
    assert set(load_bundle(result.run).training["skipped_chips"]) == names
    shown = CliRunner().invoke(cli, ["info", str(result.run)]).output
    assert "and 1 more, which could not be read" in shown
    told = [line for line in caplog.messages if "skipped" in line]
    assert len(told) == 4
    assert all(any(chip.name in line for line in told) for chip in bad)
    assert "4 of at most 4 (--max-bad)" in told[-1]


def test_one_more_ends_the_run(tiny: MakeConfig, chips: Path) -> None:
    for chip in some(chips, "train_a", 3):
        flip(chip)
    with pytest.raises(ChipsError, match="3 chips cannot be read, more than --max-bad 2") as caught:
        train(tiny(chips=chips, steps=30, max_bad=2))
    assert any(chip.name in str(caught.value) for chip in some(chips, "train_a", 3))
    assert "\n" not in str(caught.value)


def test_without_it_the_first_one_ends_the_run(tiny: MakeConfig, chips: Path) -> None:
    flip(some(chips, "train_a", 1)[0])
    with pytest.raises(ChipsError, match="--max-bad N"):
        train(tiny(chips=chips, steps=30))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "pix2pix", "generator": "resnet6"},
        {"norm": "scene", "scene_crops": 2},
        {"method": "dcgan", "generator": None, "crop": 32, "pool": None},
    ],
    ids=lambda options: options.get("method") or options.get("norm") or "cyclegan",
)
def test_all_methods_skip(tiny: MakeConfig, chips: Path, options: dict[str, Any]) -> None:
    bad = [*some(chips, "train_a", 2), *some(chips, "val_a", 1)]
    for chip in bad:
        cut(chip)
    result = train(tiny(chips=chips, steps=16, max_bad=3, **options))
    assert {Path(name).name for name in result.skipped} <= {chip.name for chip in bad}
    assert any(name.startswith("train_a/") for name in result.skipped)


def test_hints_and_a_cache_skip_too(
    tiny: MakeConfig, listed: Path, chips: Path, tmp_path: Path
) -> None:
    bad = some(chips, "train_b", 2)
    for chip in bad:
        flip(chip)
    options = {"pairs": chips, "weak_pairs": chips, "cache": tmp_path / "cache"}
    result = train(tiny(chips=listed, steps=16, max_bad=2, **options))
    # One file is one chip, whoever reads it.
    assert sorted(result.skipped) == [f"pairs: train_b/{chip.name}" for chip in bad]


def test_windows_of_a_virtual_set_are_skipped(
    tiny: MakeConfig, scenes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geocyclegan.chips.virtual import OpenSources, VirtualChip

    out = tmp_path / "virtual"
    for scene, domain in zip(scenes, ("a", "b"), strict=True):
        chip_scenes([scene], ChipOptions(domain, out, size=32, virtual=True, val=0.2))  # type: ignore[arg-type]
    read = VirtualChip.read

    def unreadable(self: VirtualChip, opened: OpenSources) -> Any:
        if self.window.row == self.window.col == 0:
            raise ChipsError("a.tif: its window cannot be read")
        return read(self, opened)

    monkeypatch.setattr(VirtualChip, "read", unreadable)
    result = train(tiny(chips=out, steps=20, max_bad=2))
    assert 1 <= len(result.skipped) <= 2
    with pytest.raises(ChipsError, match="its window cannot be read"):
        train(tiny(chips=out, steps=20, name="none"))


def test_damaged_label_chips_take_their_chip_along(
    tiny: MakeConfig, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harmed once the run has found its classes."""
    pytest.importorskip("segmentation_models_pytorch")
    for split in ("train", "val"):
        (chips / f"labels_a/{split}").mkdir(parents=True)
    from geocyclegan.chips.cut import label_path

    for chip in [*some(chips, "train_a", 99), *some(chips, "val_a", 99)]:
        label = chips / label_path(f"{chip.parent.name}/{chip.name}")
        label.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(chip) as image:
            profile, pixels = image.profile, image.read(1)
        with rasterio.open(label, "w", **profile | {"count": 1}) as dataset:
            dataset.write((pixels > 100).astype(np.uint8), 1)
    first = some(chips, "train_a", 1)[0]
    label = chips / label_path(f"train_a/{first.name}")
    advance = TrainingState.advance

    def harmed(self: TrainingState, *batches: Any) -> None:
        label.unlink(missing_ok=True)
        advance(self, *batches)

    monkeypatch.setattr(TrainingState, "advance", harmed)
    result = train(tiny(chips=chips, method="semantic", steps=30, max_bad=1))
    assert result.skipped == (f"train_a/{first.name}",)


def _stopped_at(step: int, monkeypatch: pytest.MonkeyPatch, config: TrainConfig) -> None:
    advance = TrainingState.advance

    def stop(self: TrainingState, *batches: Any) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        advance(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config)


@pytest.mark.parametrize("method", ["cyclegan", pytest.param("pix2pix", marks=pytest.mark.slow)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny: MakeConfig,
    chips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_run: SameRun,
    method: str,
) -> None:
    """Also where the chips were mended, or are gone, in between."""
    # The last one of B is not the partner of either of A.
    bad = [*some(chips, "train_a", 2), *some(chips, "train_b", 99)[-1:]]
    sound = [chip.read_bytes() for chip in bad]
    for chip in bad:
        flip(chip)
    config = tiny(chips=chips, steps=24, max_bad=3, method=method)
    whole = train(config.updated({"out": tmp_path / "whole"}))
    assert len(whole.skipped) == 3
    _stopped_at(20, monkeypatch, config)
    # By the checkpoint of step 18 all of them have been met.
    bad[0].write_bytes(sound[0])
    bad[1].unlink()
    resumed = train(config, resume=True)
    assert set(resumed.skipped) == set(whole.skipped)
    assert_same_run(resumed.run, whole.run)


def test_a_resumed_run_may_be_given_another_limit(
    tiny: MakeConfig, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chip in some(chips, "train_a", 3):
        flip(chip)
    config = tiny(chips=chips, steps=24, max_bad=3)
    _stopped_at(20, monkeypatch, config)
    with pytest.raises(ChipsError, match="3 chips cannot be read, more than --max-bad 1"):
        train(config.updated({"max_bad": 1}), resume=True)
    assert train(config.updated({"max_bad": 9}), resume=True).steps == 24


def test_sound_samples_are_those_of_a_run_without_bad_chips(
    tiny: MakeConfig, listed: Path, chips: Path, tmp_path: Path
) -> None:
    """And the limit alone changes nothing."""
    one = train(tiny(chips=listed, steps=6))
    two = train(tiny(chips=listed, steps=6, max_bad=5, out=tmp_path / "limit"))
    weights = [run.model / "model.safetensors" for run in (one, two)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert two.skipped == ()


@pytest.mark.parametrize("method", ["cyclegan", "pix2pix"])
def test_messages_name_what_was_read(
    tiny: MakeConfig, chips: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Not what was drawn: a loss that is not finite is of the chips that were seen."""
    bad = some(chips, "train_a", 6)
    for chip in bad:
        flip(chip)
    with pytest.raises(TrainingError, match="is nan") as caught:
        train(tiny(chips=chips, steps=30, max_bad=6, method=method, lr=1e30))
    assert "train_a" in str(caught.value)
    assert not any(chip.name in str(caught.value) for chip in bad)


def test_what_replaces_a_chip_is_drawn_by_the_seed() -> None:
    def draws(seed: int, sample: int) -> list[int]:
        return list(Skips(3, seed).stand_ins(4, lambda: range(9), sample, A_SIDE))

    assert draws(0, 7) == draws(0, 7)
    assert draws(0, 7)[0] == 4
    assert sorted(draws(0, 7)) == list(range(9))
    assert draws(0, 7) != draws(0, 8) != draws(1, 8)


def test_more_missing_chips_than_that_are_refused_at_the_start(
    tiny: MakeConfig, chips: Path
) -> None:
    for chip in some(chips, "train_a", 3):
        chip.unlink()
    with pytest.raises(ChipsError, match="missing, as are 2 others"):
        train(tiny(chips=chips, max_bad=2))


def test_nothing_that_can_be_read(tiny: MakeConfig, chips: Path) -> None:
    for chip in (chips / "train_a").iterdir():
        flip(chip)
    with pytest.raises(ChipsError, match="nothing that could take its place"):
        train(tiny(chips=chips, max_bad=1000))


def test_a_number_below_zero() -> None:
    with pytest.raises(OptionError, match="--max-bad -1: expected 0 or more"):
        TrainConfig(max_bad=-1)


def test_the_command_says_how_many(chips: Path, tmp_path: Path) -> None:
    flip(some(chips, "train_a", 1)[0])
    small = ["--generator", "resnet6", "--width", "4", "--crop", "24", "--device", "cpu"]
    often = ["--val-every", "0", "--panel-every", "0", "--steps", "20", "--max-bad", "2"]
    words = ["train", str(chips), "--out", str(tmp_path / "runs"), *small, *often]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "Trained 20 steps, without 1 bad chip: " in done.output
    with open(tmp_path / "runs" / "cyclegan-001" / "log.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["20"]
