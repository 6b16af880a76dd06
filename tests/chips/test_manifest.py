from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import geopandas
import pytest
from shapely import box

from geocyclegan.chips.alike import UNFITTED
from geocyclegan.chips.manifest import (
    ChipRow,
    DomainRecord,
    SceneEntry,
    read_record,
    read_rows,
    update_manifest,
    write_record,
)
from geocyclegan.errors import ChipsError, OutputError
from geocyclegan.raster.domain import BandInfo, Domain

FileLimit = Callable[[int], AbstractContextManager[None]]


def row(domain: str, scene: str, number: int) -> ChipRow:
    return ChipRow(
        chip=f"train_{domain}/{scene}_{number}.tif",
        domain="a" if domain == "a" else "b",
        split="train",
        scene=f"/data/{scene}.tif",
        scene_id=scene,
        row=0,
        col=number,
        valid=1.0,
        cover=0.5,
        sha256="0" * 64,
    )


def test_scenes_and_domains_come_and_go_apart(tmp_path: Path) -> None:
    shape = box(0, 0, 1, 1)
    first = [row("a", "x", 0), row("a", "x", 1)]
    assert update_manifest(tmp_path, "a", first, [shape, None], replaced=set()) == []
    update_manifest(tmp_path, "b", [row("b", "x", 0)], [shape], replaced=set())
    update_manifest(tmp_path, "a", [row("a", "y", 0)], [shape], replaced=set())
    assert len(read_rows(tmp_path)) == 4
    gone = update_manifest(tmp_path, "a", [row("a", "x", 1)], [shape], replaced={"x"})
    assert gone == [row("a", "x", 0)]
    gone = update_manifest(tmp_path, "a", [row("a", "z", 0)], [None], replaced=None)
    assert {r.chip for r in gone} == {"train_a/x_1.tif", "train_a/y_0.tif"}
    assert read_rows(tmp_path) == [row("a", "z", 0), row("b", "x", 0)]
    frame = geopandas.read_parquet(tmp_path / "chips.parquet")
    assert frame.crs == "EPSG:4326"
    assert list(frame.geometry.isna()) == [True, False]


def test_a_damaged_list_is_found(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    update_manifest(tmp_path, "a", [row("a", "x", 0)], [None], replaced=set())
    path = tmp_path / "chips.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ChipsError, match=r"chips\.parquet"):
        read_rows(tmp_path)
    geopandas.GeoDataFrame({"chip": ["x"]}, geometry=[None], crs=4326).to_parquet(path)
    with pytest.raises(ChipsError, match=r"chips\.parquet"):
        read_rows(tmp_path)


def test_the_description_comes_back(tmp_path: Path) -> None:
    band = BandInfo(UNFITTED, "VV", "dB", 1.0, 0.0, "gray")
    record = DomainRecord(
        Domain((band, replace(band, name=None)), "float32", -9999.0, 10.0),
        128,
        "db",
        (SceneEntry("x", "/data/x.tif", {"stride": 64}),),
    )
    assert read_record(tmp_path, "a") is None
    write_record(tmp_path, "a", record)
    assert read_record(tmp_path, "a") == record


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"size": 8}', "{"])
def test_a_damaged_description_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "domain_a.json").write_text(text)
    with pytest.raises(ChipsError, match=r"domain_a\.json.*--overwrite"):
        read_record(tmp_path, "a")


@pytest.mark.parametrize("gpkg", [False, True])
def test_a_full_disk_leaves_the_old_list(tmp_path: Path, file_limit: FileLimit, gpkg: bool) -> None:
    update_manifest(tmp_path, "a", [row("a", "x", 0)], [None], replaced=set(), gpkg=gpkg)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("chips.*")}
    assert len(before) == 1 + gpkg
    rows = [row("a", "x", number) for number in range(2000)]
    with file_limit(4096), pytest.raises(OutputError, match=r"chips.parquet: cannot be written"):
        update_manifest(tmp_path, "a", rows, [None] * len(rows), replaced=set())
    assert {path.name: path.read_bytes() for path in tmp_path.glob("chips.*")} == before
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]


def test_a_geopackage_that_cannot_be_written(tmp_path: Path, file_limit: FileLimit) -> None:
    rows = [row("a", "x", number) for number in range(10)]
    shapes = [box(0, 0, 1, 1)] * len(rows)
    with file_limit(50_000), pytest.raises(OutputError, match=r"chips.gpkg: cannot be written"):
        update_manifest(tmp_path, "a", rows, shapes, replaced=set(), gpkg=True)
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]
