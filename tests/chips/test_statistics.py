"""Statistics beside the chips: damage is found and named, whatever it makes of the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geocyclegan.chips.statistics import load_statistics, save_statistics
from geocyclegan.errors import ChipsError, OutputError
from geocyclegan.raster.sketch import BandSketch


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sketch = BandSketch("float32")
    sketch.update(np.random.default_rng(0).normal(size=500).astype(np.float32))
    save_statistics(tmp_path / "s.npz", [sketch.to_arrays()])
    return tmp_path / "s.npz"


def test_they_come_back(saved: Path) -> None:
    (arrays,) = load_statistics(saved, 1, "scene.tif")
    assert BandSketch.from_arrays(arrays).count == 500


@pytest.mark.parametrize("kind", ["U8", "M8[s]", "V8", "complex128"])
def test_damage_is_named(saved: Path, kind: str) -> None:
    with np.load(saved) as arrays:
        harmed: dict[str, Any] = {n: np.zeros(arrays[n].shape, kind) for n in arrays.files}
    np.savez(saved, **harmed)
    with pytest.raises(ChipsError, match=r"s.npz: the statistics of scene.tif are missing or dam"):
        load_statistics(saved, 1, "scene.tif")


def test_cuts_and_flips_are_found_or_harmless(saved: Path) -> None:
    data = saved.read_bytes()
    random = np.random.default_rng(0)
    for at in random.integers(0, len(data), 200).tolist():
        harmed = bytearray(data)
        harmed[at] ^= 1 << int(random.integers(8))
        saved.write_bytes(data[:at])
        with pytest.raises(ChipsError, match=r"s.npz: the statistics of scene.tif"):
            load_statistics(saved, 1, "scene.tif")
        saved.write_bytes(harmed)
        try:
            (arrays,) = load_statistics(saved, 1, "scene.tif")
        except ChipsError:
            continue
        # Dates and attributes of the archive's entries mean nothing.
        assert BandSketch.from_arrays(arrays).count == 500


def test_a_full_disk_is_one_line(tmp_path: Path, file_limit: Any) -> None:
    arrays = {"x": np.random.default_rng(0).normal(size=100_000)}
    with file_limit(1000), pytest.raises(OutputError, match=r"s.npz: cannot be written"):
        save_statistics(tmp_path / "s.npz", [arrays])
    assert not list(tmp_path.iterdir())
