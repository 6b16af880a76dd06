"""A folder to work in, as a user has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geocyclegan.bundle import save_bundle
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

MakeRaster = Any


@pytest.fixture
def work(tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two scenes and a run that was trained on the first."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("one.tif", "two.tif"):
        make_raster(name, rng.integers(1, 255, (2, 40, 50)).astype(np.uint8), names=("VV", "VH"))
    torch.manual_seed(0)
    scaling = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
    a = Domain((BandInfo(scaling, "VV"), BandInfo(scaling, "VH")), "uint8", None, 10.0)
    b = Domain((BandInfo(scaling, "red"),), "uint8", None, 10.0)
    there = build_generator("resnet6", in_channels=2, out_channels=1, width=2)
    back = build_generator("resnet6", in_channels=1, out_channels=2, width=2)
    save_bundle(
        tmp_path / "runs" / "first" / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", there), "b2a": ("resnet6", back)},
        domains={"a": a, "b": b},
        tile=32,
        training={"scenes": {"a": [str(tmp_path / "one.tif")], "b": []}},
    )
    return tmp_path
