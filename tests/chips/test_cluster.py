"""Chips do not depend on who cut them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.errors import ClusterError, OptionError

MakeScene = Callable[..., Path]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Dask scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_cuts_the_chips_of_one_machine(
    address: str, make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have other working folders, so a relative --out must not confuse them."""
    scenes = [make_scene(f"{seed}.tif", shape=(600, 500), seed=seed) for seed in (0, 1)]
    monkeypatch.chdir(tmp_path)
    alone, shared = ChipOptions(out=Path("alone"), size=32), Path("shared")
    chip_scenes(scenes, alone)
    chip_scenes(scenes, ChipOptions(out=shared, size=32, cluster=address))
    assert read_rows(shared) == read_rows(alone.out)
    check = verify_chips(shared)
    assert (check.damaged, check.unlisted) == ((), ())
    virtual = ChipOptions(out=Path("virtual"), size=32, cluster=address, virtual=True)
    chip_scenes(scenes, virtual)
    assert len(read_rows(virtual.out)) == len(read_rows(shared))


def test_workers_leave_out_undeclared_nodata(
    address: str, make_scene: MakeScene, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(1, 200, (2, 600, 500)).astype(np.uint8)
    pixels[:, :, :90] = 0
    collar = make_scene("collar.tif", pixels=pixels)
    other = pixels[:1].copy()
    other[:, 550:] = 255
    partner = make_scene("partner.tif", pixels=other)
    sets = []
    for name, cluster in (("alone", None), ("shared", address)):
        ours = ChipOptions(out=tmp_path / name, size=32, cluster=cluster, nodata=0.0)
        theirs = replace(ours, domain="b", nodata=255.0)
        reports = chip_pairs([collar], [partner], ours, theirs)
        assert [report.record.domain.undeclared for report in reports] == [0.0, 255.0]
        assert all(report.left_out["invalid"] > 0 for report in reports)
        sets.append(read_rows(ours.out))
    assert sets[0] == sets[1]
    assert min(row.col for row in sets[0]) >= 90 - 4


def test_mistakes_end_in_one_line(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocyclegan.crew._CONNECT_SECONDS", 1)
    with pytest.raises(OptionError, match="--workers: on a --cluster"):
        ChipOptions(workers=2, cluster="local")
    nowhere = ChipOptions(out=tmp_path / "chips", size=32, cluster="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        chip_scenes([make_scene()], nowhere)
