"""Classes of labels on both sides: translated, they must look like what they are elsewhere."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from torch import Tensor

from geocyclegan.chips.labels import LabelSet
from geocyclegan.methods import CycleGAN
from geocyclegan.training import report
from geocyclegan.training.classes import ClassCheck, class_check
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.evidence import Finding
from geocyclegan.training.levels import Budget
from geocyclegan.training.loop import train

MakeConfig = Callable[..., TrainConfig]
MakeTranslator = Callable[[Callable[[Tensor], Tensor]], CycleGAN]
SIZE, CODES = 32, (10, 20, 40)
# What classes 10, 20 and 40 look like in A (one band) and in B (two).
LEVELS = {"a": [[-0.6], [0.0], [0.7]], "b": [[0.5, -0.2], [0.0, 0.0], [-0.8, 0.3]]}


def write_chips(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Places that the domains do not share; where there is no class, they look like anything."""
    for number, (split, side) in enumerate((s, d) for s in splits for d in "ab"):
        for place in (root / f"{split}_{side}", root / f"labels_{side}"):
            place.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            random = np.random.default_rng([number, i])
            classes = random.integers(0, 4, (SIZE // 4, SIZE // 4)).repeat(4, 0).repeat(4, 1)
            looks = np.array([[9.0] * len(LEVELS[side][0]), *LEVELS[side]])
            chip = looks[classes].transpose(2, 0, 1)
            chip = np.where(classes == 0, random.uniform(-1, 1), chip)
            name = f"{split}{side}{i}"
            np.save(root / f"{split}_{side}" / f"{name}.npy", chip.astype(np.float32))
            codes = np.array([0, *CODES], np.uint8)[classes]
            write_labels(root / f"labels_{side}" / f"{name}.tif", codes)
    return root


def write_labels(path: Path, codes: npt.NDArray[np.uint8]) -> None:
    shape = {"count": 1, "height": SIZE, "width": SIZE, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(codes, 1)


def check_of(root: Path) -> ClassCheck | None:
    return class_check(TrainConfig(chips=root, crop=24), Chips.open(root), Budget())


def right(x: Tensor) -> Tensor:
    """Class by class what B looks like; nothing in between is ever asked."""
    first = torch.where(x < -0.3, 0.5, torch.where(x > 0.3, -0.8, 0.0))
    second = torch.where(x < -0.3, -0.2, torch.where(x > 0.3, 0.3, 0.0))
    return torch.cat([first, second], 1)


@pytest.mark.parametrize("splits", [("train", "val"), ("train",)])
def test_swapped_classes_are_noticed(
    splits: tuple[str, ...], tmp_path: Path, translator: MakeTranslator
) -> None:
    check = check_of(write_chips(tmp_path, splits))
    assert check is not None
    device = torch.device("cpu")
    found = check(translator(right), device)
    assert found is not None
    assert found.columns.keys() == {"classes_a2b"}
    assert found.columns["classes_a2b"] > 0.99
    assert found.signs == ()
    swapped = check(translator(lambda x: -right(x)), device)
    assert swapped is not None
    assert swapped.columns["classes_a2b"] == pytest.approx(-found.columns["classes_a2b"])
    (said,) = swapped.signs
    assert "A to B, look the other way round" in said
    assert check(translator(zeros), device) == Finding({})
    assert check(translator(right), device, lambda: True) is None


def zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x).repeat(1, 2, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_sign(seed: int, tmp_path: Path, translator: MakeTranslator) -> None:
    """Classes that differ by chance may correlate by anything."""
    random = torch.Generator().manual_seed(seed)
    check = check_of(write_chips(tmp_path))
    assert check is not None
    found = check(
        translator(lambda x: torch.randn(zeros(x).shape, generator=random)), torch.device("cpu")
    )
    assert found is not None
    assert found.columns.keys() == {"classes_a2b"}
    assert found.signs == ()


def test_no_check_without_labels_of_both(tmp_path: Path) -> None:
    root = write_chips(tmp_path / "one")
    for path in (root / "labels_b").iterdir():
        path.unlink()
    assert check_of(root) is None
    root = write_chips(tmp_path / "other")
    for path in (root / "labels_b").iterdir():
        write_labels(path, np.full((SIZE, SIZE), 7, np.uint8))
    assert check_of(root) is None
    assert class_check(TrainConfig(chips=root, val_every=0), Chips.open(root), Budget()) is None


def test_only_so_many_label_chips_are_read(tmp_path: Path) -> None:
    root = write_chips(tmp_path)
    labels = LabelSet.open(root, Chips.open(root).train_a, most=2)
    assert labels is not None
    assert sum(path is not None for path in labels.paths) == 2


def test_a_run_writes_them_and_warns(
    tiny: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_chips(tmp_path / "chips")
    run = train(tiny(chips=root, val_every=2)).run
    with open(run / "validation.csv", newline="") as file:
        columns = next(csv.DictReader(file))
    assert {"classes_a2b", "classes_b2a"} <= set(columns)
    assert all(-1 <= float(columns[f"classes_{way}"]) <= 1 for way in ("a2b", "b2a"))

    def swapped(*_: Any) -> Finding:
        return Finding({"classes_a2b": -0.5, "classes_b2a": 0.5}, ("they are swapped",))

    monkeypatch.setattr(ClassCheck, "__call__", swapped)
    caplog.clear()
    monkeypatch.setattr(report, "EARLIEST_STEP", 1)
    with caplog.at_level(logging.WARNING):
        train(tiny(chips=root, name="again", val_every=2))
    warnings = [r.getMessage() for r in caplog.records if "meaning may be flipped" in r.message]
    assert warnings
    assert "they are swapped" in warnings[0]
