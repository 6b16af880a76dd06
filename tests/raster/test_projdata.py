"""PROJ_DATA of another installation: the commonest fault of programs beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("variable", ["PROJ_DATA", "PROJ_LIB"])
@pytest.mark.parametrize("command", ["info scene.tif", "chip scene.tif --crs 4326", "--version"])
def test_data_of_another_proj_are_one_line(
    tmp_path: Path, make_raster: Any, variable: str, command: str
) -> None:
    make_raster("scene.tif", np.ones((1, 8, 8), np.uint8))
    other = tmp_path / "other"
    other.mkdir()
    (other / "proj.db").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "geocyclegan", *command.split()],
        cwd=tmp_path,
        env=os.environ | {variable: str(other)},
        capture_output=True,
        text=True,
    )
    told = f"{variable}: {other} holds no data for PROJ"
    if command == "--version":
        assert done.returncode == 0
        assert told in done.stdout
        assert "rasterio" in done.stdout
    else:
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"Error: {told}")
        assert line.endswith(f"unset {variable}")
