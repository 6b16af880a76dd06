"""A tiny set of chips, and runs on it that take a second."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import Tensor, nn

from geocyclegan.catalogue import Direction
from geocyclegan.methods import CycleGAN
from geocyclegan.training.config import TrainConfig

SIZE = 32

MakeConfig = Callable[..., TrainConfig]
MakeChips = Callable[..., Path]


def write_chips(
    root: Path, bands_a: tuple[str, ...], bands_b: tuple[str, ...], size: int = SIZE
) -> Path:
    """Write chips of both domains, some with nodata, in the layout of folders."""
    random = np.random.default_rng(5)
    for domain, bands in (("a", bands_a), ("b", bands_b)):
        for split, count in (("train", 5 if domain == "a" else 3), ("val", 2)):
            folder = root / f"{split}_{domain}"
            folder.mkdir(parents=True)
            for i in range(count):
                rough = random.uniform(1, 4000, (len(bands), size // 4, size // 4))
                pixels = rough.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint16)
                if i == 1:
                    pixels[:, :, : size // 2] = 0
                with rasterio.open(
                    folder / f"{domain}{i}.tif",
                    "w",
                    driver="GTiff",
                    count=len(bands),
                    height=size,
                    width=size,
                    dtype="uint16",
                    nodata=0,
                    crs="EPSG:32630",
                    transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6),
                ) as dataset:
                    dataset.write(pixels)
                    dataset.descriptions = bands
    return root


@pytest.fixture(scope="session")
def chips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bands of A, three of B, one of them shared."""
    return write_chips(tmp_path_factory.mktemp("data") / "chips", ("vv", "B04"), ("B04", "x", "y"))


@pytest.fixture(scope="session")
def make_chips(tmp_path_factory: pytest.TempPathFactory) -> MakeChips:
    """Chips with any numbers of bands."""

    @functools.cache
    def make(bands_a: int, bands_b: int, size: int = SIZE) -> Path:
        names_a, names_b = (
            tuple(f"B{i:02}" for i in range(1, count + 1)) for count in (bands_a, bands_b)
        )
        root = tmp_path_factory.mktemp("data") / f"chips_{bands_a}_{bands_b}_{size}"
        return write_chips(root, names_a, names_b, size)

    return make


@pytest.fixture
def tiny(chips_folder: Path, tmp_path: Path) -> MakeConfig:
    """The options of a run that takes a second."""

    def make(**changes: Any) -> TrainConfig:
        options: dict[str, Any] = {
            "chips": chips_folder,
            "out": tmp_path / "runs",
            "name": "run",
            "generator": "resnet6",
            "width": 4,
            "steps": 8,
            "crop": 24,
            "pool": 3,
            "device": "cpu",
            "save_every": 3,
            "panel_every": 4,
            "val_every": 4,
            "log_every": 2,
        }
        return TrainConfig(**options | changes)

    return make


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Compare nested states to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


@pytest.fixture(scope="session")
def assert_same_run() -> Callable[[Path, Path], None]:
    """Compare two finished runs to the last bit: state, weights, logs and panels."""

    def compare(run: Path, other: Path) -> None:
        last = sorted((run / "checkpoints").glob("*.pt"))[-1].name
        one, two = (
            torch.load(folder / "checkpoints" / last, weights_only=True) for folder in (run, other)
        )
        for state in (one, two):
            # Where a run lies is no part of its state; neither are the global generators of Python
            # and NumPy, which training leaves alone.
            for key in ("out", "name", "device"):
                state["config"].pop(key)
            for each in (state, *state["others"]):
                each["random"].pop("python")
                each["random"].pop("numpy")
        assert_equal(one, two)
        names = ["log.csv", "validation.csv", "model/model.safetensors"]
        names += [f"panels/{path.name}" for path in sorted((run / "panels").iterdir())]
        for name in names:
            assert (run / name).read_bytes() == (other / name).read_bytes(), name
        assert [p.name for p in sorted((run / "panels").iterdir())] == [
            p.name for p in sorted((other / "panels").iterdir())
        ]

    return compare


class Translator(CycleGAN):
    """A method whose one network is a given function."""

    def __init__(self, there: Callable[[Tensor], Tensor]) -> None:
        nn.Module.__init__(self)
        self.there = there

    def generators(self) -> dict[Direction, nn.Module]:
        there = self.there

        class Network(nn.Module):
            def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
                return there(x)

        return {"a2b": Network()}


@pytest.fixture
def translator() -> Callable[[Callable[[Tensor], Tensor]], CycleGAN]:
    """Make a method of a function from images of A to images of B."""
    return Translator
