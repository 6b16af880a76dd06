"""An output never takes the place of something that the command reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest

from geocyclegan.errors import OptionError
from geocyclegan.raster.inputs import Inputs, local_path

MakeRaster = Callable[..., Path]


def make_vrt(path: Path, source: Path) -> Path:
    name = escape(os.path.relpath(source, path.parent))
    path.write_text(
        f"""<VRTDataset rasterXSize="8" rasterYSize="8">
        <VRTRasterBand dataType="Byte" band="1"><SimpleSource>
        <SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>
        </SimpleSource></VRTRasterBand></VRTDataset>"""
    )
    return path


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_raster("src.tif", np.ones((1, 8, 8), np.uint8))


def test_the_sources_of_virtual_rasters_are_inputs(scene: Path, tmp_path: Path) -> None:
    inner = make_vrt(tmp_path / "inner.vrt", scene)
    outer = make_vrt(tmp_path / "outer.vrt", inner)
    inputs = Inputs((str(outer),))
    assert inputs.at(outer) == "it is the input scene"
    for path in (inner, scene):
        assert inputs.at(path) == f"the input scene {outer} is read from it"
    shutil.copy(scene, tmp_path / "other.tif")
    assert inputs.at(tmp_path / "other.tif") is None
    with pytest.raises(OptionError, match=r"--out .*src.tif: the input scene .* is read from it"):
        inputs.refuse("out", scene)


@pytest.mark.parametrize(
    "out", ["src.tif", "./src.tif", "none/../src.tif", "link.tif", "hard.tif", "folder/src.tif"]
)
def test_other_names_of_a_scene_are_known(scene: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "link.tif").symlink_to(scene)
    (tmp_path / "hard.tif").hardlink_to(scene)
    (tmp_path / "folder").symlink_to(tmp_path)
    inputs = Inputs((str(scene), "s3://bucket/other.tif"))
    assert inputs.at(Path(out)) == "it is the input scene src.tif"
    assert inputs.at(Path("none/src.tif")) is None


def test_what_lies_beside_a_scene_belongs_to_it(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "src.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    shutil.copy(scene, tmp_path / "src.tif.msk")
    inputs = Inputs((str(scene),))
    for name in ("src.tif.aux.xml", "src.tif.msk"):
        assert "is read from it" in str(inputs.at(Path(name)))


def test_files_of_a_scene_of_several_are_inputs(scene: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(scene, tmp_path / "other.tif"))
    inputs = Inputs((f"{scene}+{other}",))
    assert inputs.at(other) == inputs.at(scene) == "it is the input scene"


def test_folders_are_inputs_with_all_in_them(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    file = tmp_path / "folder" / "deep" / "x.png"
    file.write_text("mine")
    inputs = Inputs(files=(tmp_path / "folder",))
    assert inputs.at(file) == "it is an input of the command"
    assert inputs.at(file.with_name("new.png")) is None


def test_archives_and_sub_datasets_are_files(tmp_path: Path) -> None:
    for name in ("x.zip", "x.nc"):
        (tmp_path / name).write_text("")
    assert local_path(f"/vsizip/{tmp_path}/x.zip/a/b.tif") == f"{tmp_path}/x.zip"
    assert local_path(f"/vsigzip//vsizip/{tmp_path}/x.zip/b.gz") == f"{tmp_path}/x.zip"
    assert local_path(f'NETCDF:"{tmp_path}/x.nc":b') == f"{tmp_path}/x.nc"
    for name in ("https://host/x.tif", "/vsicurl/https://host/x.tif", "none.tif"):
        assert local_path(name) is None


def test_folders_that_hold_an_input_are_refused(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "chips" / "train_a").mkdir(parents=True)
    chip = Path(shutil.copy(scene, tmp_path / "chips" / "train_a" / "x.tif"))
    vrt = make_vrt(tmp_path / "of_chips.vrt", chip)
    Inputs((str(vrt),)).refuse_below("out", tmp_path / "chips", ("train_b", "none"))
    with pytest.raises(OptionError, match=r"--out .*chips: the input scene .* is read from it"):
        Inputs((str(vrt),)).refuse_below("out", tmp_path / "chips", ("train_a",))
