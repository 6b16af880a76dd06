from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geocyclegan.chips.options import ChipOptions
from geocyclegan.errors import NotFoundError, OptionError


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"domain": "c"}, "--domain"),
        ({"size": 0}, "--size"),
        ({"size": 100_000}, "--size"),
        ({"stride": 0}, "--stride"),
        ({"min_cover": 1.5}, "--min-cover"),
        ({"min_valid": -0.1}, "--min-valid"),
        ({"min_valid": float("nan")}, "--min-valid"),
        ({"val": 1.0}, "--val"),
        ({"workers": 0}, "--workers"),
        ({"bands": ()}, "--bands"),
    ],
)
def test_errors_name_the_option(given: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        ChipOptions(**given)


def test_missing_aoi_and_file_as_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="--aoi"):
        ChipOptions(aoi=tmp_path / "none.gpkg")
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="--out"):
        ChipOptions(out=tmp_path / "file")


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"file: a file, where a folder .*--out"):
        ChipOptions(out=tmp_path / "file" / "chips")
