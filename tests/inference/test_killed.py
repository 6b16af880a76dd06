"""Inference that is killed at any moment: no half product, and a rerun ends with the same one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from geocyclegan.bundle import save_bundle
from geocyclegan.files import sha256
from geocyclegan.models import build_generator
from geocyclegan.raster.digest import check_product
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

KILLS = 12
SIDE = 400


class Work:
    """A scene, a model and the command that makes a product of them."""

    def __init__(self, folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(1, 255, (1, SIDE, SIDE)).astype(np.uint8)
        pixels[:, :90, :60] = 0
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0}
        with rasterio.open(
            folder / "scene.tif", "w", height=SIDE, width=SIDE, crs="EPSG:32630", **profile
        ) as scene:
            scene.write(pixels)
            scene.descriptions = ("x",)
        torch.manual_seed(0)
        band = BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "x")
        domain = Domain((band,), "uint8")
        network = build_generator("resnet6", in_channels=1, out_channels=1, width=2)
        save_bundle(
            folder / "model",
            method="m",
            generators={"a2b": ("resnet6", network)},
            domains={"a": domain, "b": domain},
            tile=64,
            training={},
        )
        self.folder, self.out = folder, folder / "products" / "p.tif"

    def start(self, mode: str, out: Path | None = None) -> subprocess.Popen[bytes]:
        """Begin; `exact` takes disk, too, which a killed run leaves and the next one removes."""
        command = [sys.executable, "-m", "geocyclegan", "-q", "infer", "scene.tif"]
        command += ["--model", "model", "--out", str(out or self.out), "--tile", "48"]
        command += ["--norm-stats", mode, "--overwrite", "--stats-memory", "0"]
        command += ["--stats-disk", "1G", "--device", "cpu"]
        root = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=self.folder, env=environment)

    def run(self, mode: str, out: Path | None = None) -> str:
        """Run to the end; the hash of the product."""
        with self.start(mode, out) as process:
            assert process.wait(timeout=300) == 0
        return sha256(out or self.out)

    def check(self, expected: str) -> None:
        """The final name is absent or complete."""
        if self.out.exists():
            assert sha256(self.out) == expected
            assert check_product(self.out) is None

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.parent.iterdir())


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    """Kill a process at a moment; False if it ended before."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.001)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    return was_running


def test_killed_amid_tiles_and_amid_the_last_step(work: Work) -> None:
    expected = work.run("dense", work.folder / "expected.tif")
    pieces = work.out.with_name(".p.pieces")
    assert kill_when(work.start("dense"), lambda: len(list(pieces.glob("*.npz"))) > 20)
    work.check(expected)
    assert len(list(pieces.glob("*.npz"))) > 20
    folder = work.out.parent
    kill_when(work.start("dense"), lambda: any(folder.glob(".p.*.part.tif")))
    work.check(expected)
    assert work.run("dense") == expected
    assert work.left() == ["p.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["dense", "exact"])
def test_killed_at_any_moment(work: Work, mode: str) -> None:
    started = time.monotonic()
    expected = work.run(mode, work.folder / "expected.tif")
    longest = time.monotonic() - started
    killed = 0
    for delay in np.random.default_rng(0).uniform(0.0, longest, KILLS):
        with work.start(mode) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=float(delay))
            killed += process.poll() is None
            process.kill()
        work.check(expected)
        # A finished product would leave nothing to interrupt.
        if work.out.exists() and np.random.default_rng(killed).random() < 0.7:
            work.out.unlink()
    assert killed >= KILLS // 2
    assert work.run(mode) == expected
    assert work.left() == ["p.tif"]
