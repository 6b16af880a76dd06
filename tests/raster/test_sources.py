from __future__ import annotations

from pathlib import Path

import pytest

from geocyclegan.errors import NotFoundError
from geocyclegan.raster.sources import expand_scenes as expand


def test_files_globs_and_folders(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIF", "a.tif.aux.xml", "a.tif.ovr", "a.tfw", ".hidden.tif", "x.vrt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.tif").touch()
    a, b = str(tmp_path / "a.TIF"), str(tmp_path / "b.tif")
    assert expand([tmp_path]) == [a, b]
    assert expand([b, tmp_path, str(tmp_path / "*.tif")]) == [b, a]
    assert expand([str(tmp_path / "**" / "c.*")]) == [str(tmp_path / "deeper" / "c.tif")]
    assert expand([tmp_path / "x.vrt"]) == [str(tmp_path / "x.vrt")]
    assert expand(["https://host/x.tif", "NETCDF:file.nc:t"]) == [
        "https://host/x.tif",
        "NETCDF:file.nc:t",
    ]


def test_the_same_file_by_another_name_is_the_same_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "link.tif").symlink_to("a.tif")
    monkeypatch.chdir(tmp_path)
    assert expand(["a.tif", "./a.tif", "link.tif", tmp_path / "a.tif"]) == [str(tmp_path / "a.tif")]


@pytest.mark.parametrize("item", ["none.tif", "none*.tif", "empty"])
def test_nothing_there(tmp_path: Path, item: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"none|empty"):
        expand([tmp_path / item])
