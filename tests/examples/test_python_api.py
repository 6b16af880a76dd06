"""The walk-through of the Python API runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from geocyclegan import samples

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "python_api.py"


def test_the_walk_through(tmp_path: Path) -> None:
    pytest.importorskip("rioxarray", reason='needs "geocyclegan[xarray]"')
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "gives ('B01'," in done.stdout
    assert "a corner of the lazy one differs by" in done.stdout
    product = tmp_path / "walkthrough" / "translated.tif"
    with rasterio.open(product) as ours, rasterio.open(samples.path("spain_sentinel1")) as theirs:
        assert ours.transform == theirs.transform
        assert ours.tags()["SYNTHETIC"] == "YES"
