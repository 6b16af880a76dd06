"""Each walk-through runs as its page says, for a few steps, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def walk(name: str, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--out", str(out), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("sar_to_optical", 4),
        pytest.param("rgb_to_map", 3, marks=pytest.mark.slow),
        pytest.param("before_to_after", 4, marks=pytest.mark.slow),
        pytest.param("rgb_to_multispectral", 7, marks=pytest.mark.slow),
    ],
)
def test_walkthrough(name: str, bands: int, tmp_path: Path) -> None:
    done = walk(name, tmp_path, "--steps", "2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ geocyclegan chip" in done.stdout
    with rasterio.open(tmp_path / "translated.tif") as product:
        assert product.count == bands
        assert product.crs is not None
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_scene_generation(tmp_path: Path) -> None:
    done = walk("scene_generation", tmp_path, "--steps", "2", "--n", "9")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "--method dcgan" in done.stdout
    made = sorted((tmp_path / "made").glob("*.tif"))
    assert len(made) == 9
    with rasterio.open(made[0]) as chip:
        assert (chip.count, chip.shape) == (4, (64, 64))
        assert chip.tags()["SYNTHETIC"] == "YES"
    with Image.open(tmp_path / "picture.png") as picture:
        # Two rows, since a row has eight chips of twice their side under their captions.
        assert picture.size == (8 * 128 + 7 * 6, 2 * (128 + 16))


def test_failing_step_ends_the_walk(tmp_path: Path) -> None:
    done = walk("sar_to_optical", tmp_path, "--sar", str(tmp_path / "nowhere.tif"))

    assert done.returncode == 2
    assert "nowhere.tif: no such file" in done.stderr
    assert "train" not in done.stdout
