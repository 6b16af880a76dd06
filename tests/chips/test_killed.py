"""Chipping that is killed at any moment: the old set stays, and a rerun completes the new one."""

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

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.errors import ChipsError

MakeScene = Callable[..., Path]
KILLS = 20


@pytest.mark.slow
def test_killed_and_run_again(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(shape=(1200, 1200))
    expected = ChipOptions(out=tmp_path / "expected", size=32)
    started = time.monotonic()
    chip_scenes([scene], expected)
    out = tmp_path / "chips"
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "geocyclegan", "-q", "chip", str(scene), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": root}
    longest = 2.0 * (time.monotonic() - started) + 3.0
    killed = 0
    for delay in np.random.default_rng(0).uniform(0.2, longest, KILLS):
        with subprocess.Popen([*command, "--size", "32"], env=environment) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=delay)
            killed += process.poll() is None
            process.kill()
        # What is listed is whole, whatever the moment.
        with suppress(ChipsError):
            assert verify_chips(out).damaged == ()
    assert killed
    chip_scenes([scene], ChipOptions(out=out, size=32))
    assert read_rows(out) == read_rows(expected.out)
    check = verify_chips(out)
    assert (check.damaged, check.unlisted) == ((), ())
    files = {
        str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and ".lock" not in p.name
    }
    wanted = {str(p.relative_to(expected.out)) for p in expected.out.rglob("*") if p.is_file()}
    assert files == {name for name in wanted if ".lock" not in name}
