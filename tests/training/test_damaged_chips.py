"""Chips that are not what their manifest lists: found when they are read, and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocyclegan.chips.chipfile import Codec
from geocyclegan.chips.digest import chip_digest
from geocyclegan.chips.manifest import DomainName
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import ChipsError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train
from geocyclegan.training.state import TrainingState

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips with a manifest, uncompressed, so that no flipped bit disturbs the decoder."""
    folder = tmp_path_factory.mktemp("listed")
    domains: tuple[DomainName, ...] = ("a", "b")
    for seed, domain in enumerate(domains):
        pixels = np.random.default_rng(seed).integers(1, 200, (1, 96, 96)).astype(np.uint8)
        place = {"crs": "EPSG:32630", "transform": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6)}
        profile = {"driver": "GTiff", "count": 1, "height": 96, "width": 96, "dtype": "uint8"}
        with rasterio.open(folder / f"{domain}.tif", "w", **profile, **place) as scene:
            scene.write(pixels)
        options = ChipOptions(domain, folder / "chips", size=32, compress=Codec("none"), val=0.3)
        chip_scenes([folder / f"{domain}.tif"], options)
    return folder / "chips"


def _flip(one: Path, two: Path) -> None:
    data = bytearray(one.read_bytes())
    data[-100] ^= 1
    one.write_bytes(data)


def _cut(one: Path, two: Path) -> None:
    one.write_bytes(one.read_bytes()[:-100])


def _swap(one: Path, two: Path) -> None:
    one_bytes, two_bytes = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_bytes)
    two.write_bytes(one_bytes)


def _delete(one: Path, two: Path) -> None:
    one.unlink()


HARMS = [_flip, _cut, _swap, _delete]


@pytest.mark.parametrize("split", ["train_b", "val_a"])
@pytest.mark.parametrize("harm", HARMS)
def test_chips_that_are_not_what_the_manifest_lists_are_named(
    tiny: MakeConfig, listed: Path, tmp_path: Path, split: str, harm: Callable[[Path, Path], None]
) -> None:
    chips = shutil.copytree(listed, tmp_path / "chips")
    one, two = sorted((chips / split).iterdir())[:2]
    harm(one, two)
    variants: tuple[dict[str, Any], ...] = ({}, {"cache": tmp_path / "cache"})
    for options in variants:
        with pytest.raises(ChipsError) as caught:
            train(tiny(chips=chips, steps=20, val_every=2, name=f"run{len(options)}", **options))
        assert one.name in str(caught.value) or (harm is _swap and two.name in str(caught.value))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", HARMS)
def test_listed_chips_that_are_harmed_during_training_are_named(
    tiny: MakeConfig,
    listed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path, Path], None],
) -> None:
    """After each was read once; chips are not kept, as those of a set that memory cannot hold."""
    chips = shutil.copytree(listed, tmp_path / "chips")
    one, two = sorted((chips / "train_b").iterdir())[:2]
    advance = TrainingState.advance

    def harmed(self: TrainingState, batch: Any) -> None:
        advance(self, batch)
        if self.step == 15:
            harm(one, two)

    monkeypatch.setattr(TrainingState, "advance", harmed)
    monkeypatch.setattr("geocyclegan.training.levels.Budget.take", lambda self, size: False)
    with pytest.raises(ChipsError, match=rf"{one.name}|{two.name}"):
        train(tiny(chips=chips, steps=60, panel_every=0, val_every=0))


def test_sound_chips_are_hashed_once(
    tiny: MakeConfig, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def digest(path: Path) -> str:
        hashed.append(path)
        return chip_digest(path)

    monkeypatch.setattr("geocyclegan.chips.digest.chip_digest", digest)
    monkeypatch.setattr("geocyclegan.training.levels.Budget.take", lambda self, size: False)
    train(tiny(chips=listed, steps=8))
    folders = {path.parent.name for path in hashed}
    assert folders == {"train_a", "train_b", "val_a", "val_b"}
    # Two threads may come to a chip at the same moment.
    assert len(hashed) <= 2 * len(set(hashed))
