"""Chips as npy files, codecs, layouts of other programs, and the GeoPackage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image

from geocyclegan.chips.chipfile import CODECS, Codec
from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError

MakeScene = Callable[..., Path]


@pytest.fixture
def half_masked(make_scene: MakeScene) -> Path:
    mask: npt.NDArray[np.bool_] = np.ones((96, 96), np.bool_)
    mask[:40, :40] = False
    return make_scene(shape=(96, 96), bands=3, mask=mask)


def test_npy_chips_are_what_geotiff_chips_are(half_masked: Path, tmp_path: Path) -> None:
    options = ChipOptions(size=32, val=0.2, min_valid=0.3)
    sets = []
    for kind in ("tif", "npy"):
        out = tmp_path / kind
        chip_scenes([half_masked], replace(options, out=out, format=kind))
        assert not verify_chips(out).damaged
        assert not verify_chips(out).unlisted
        sets.append(ChipSet.open(out, "a"))
    tifs, npys = sets
    assert [p.stem for p in tifs.paths] == [p.stem for p in npys.paths]
    assert {path.suffix for path in npys.paths} == {".npy"}
    assert list((tmp_path / "npy").rglob("*.valid.npy"))
    for i in range(len(tifs)):
        (pixels, valid), (same, mask) = tifs.read(i), npys.read(i)
        assert np.array_equal(valid, mask)
        assert np.array_equal(pixels, same)


def test_masks_of_npy_chips_come_go_and_are_checked(half_masked: Path, tmp_path: Path) -> None:
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=32, val=0.0, min_valid=0.3, format="npy")
    chip_scenes([half_masked], options)
    masks = sorted(out.rglob("*.valid.npy"))
    assert len(masks) == 3
    np.save(masks[0], np.ones((32, 32), np.bool_))
    assert [name for name, _ in verify_chips(out).damaged] == [
        f"train_a/{masks[0].name.replace('.valid', '')}"
    ]
    with rasterio.open(half_masked, "r+") as file:
        file.write_mask(True)
    chip_scenes([half_masked], options)
    assert not list(out.rglob("*.valid.npy"))
    assert len(ChipSet.open(out, "a")) == 9
    # Duplicates are found among npy chips, too.
    chip_scenes([half_masked], replace(options, drop_duplicates=True))
    # As GeoTIFFs, the arrays go.
    chip_scenes([half_masked], replace(options, format="tif"))
    assert not list(out.rglob("*.npy"))


@pytest.mark.parametrize("codec", [*CODECS, "lerc:2"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_codecs(make_scene: MakeScene, tmp_path: Path, codec: str, dtype: str) -> None:
    scene = make_scene(shape=(64, 64), dtype=dtype)
    out = tmp_path / "chips"
    chip_scenes([scene], ChipOptions(out=out, size=32, val=0.0, compress=Codec.parse(codec)))
    with rasterio.open(scene) as file:
        expected = file.read()
    for row in read_rows(out):
        with rasterio.open(out / row.chip) as chip:
            name = chip.profile.get("compress", "none")
            assert name.lower().replace("lerc_zstd", "lerc") == codec.partition(":")[0]
            found = chip.read()
        there = expected[:, row.row : row.row + 32, row.col : row.col + 32]
        off = np.abs(found.astype(np.float64) - there).max()
        assert off <= 2 if codec == "lerc:2" else off == 0


@pytest.mark.parametrize("text", ["lzma", "zstd:3", "lerc:x", "lerc:-1", "lerc:nan", ""])
def test_codecs_that_cannot_be(text: str) -> None:
    with pytest.raises(OptionError, match="--compress"):
        Codec.parse(text)


def test_the_layout_of_pytorch_cyclegan(half_masked: Path, tmp_path: Path) -> None:
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=32, val=0.3, layout="cyclegan", virtual=True)
    chip_scenes([half_masked], options)
    chip_scenes([half_masked], replace(options, domain="b", bands=("1",)))
    folders = {p.name: sorted(p.glob("*.png")) for p in (out / "cyclegan").iterdir()}
    assert set(folders) == {"trainA", "trainB", "testA", "testB"}
    chips = ChipSet.open(out, "a")
    assert [path.stem for path in folders["trainA"]] == [path.stem for path in chips.paths]
    assert len(folders["testA"]) == len(ChipSet.open(out, "a", "val")) > 0
    with Image.open(folders["trainA"][0]) as color, Image.open(folders["trainB"][0]) as grey:
        assert (color.mode, grey.mode) == ("RGB", "L")
        levels = chips.domain.to_levels(*chips.read(0))
        back = np.moveaxis(np.asarray(color), -1, 0) / 127.5 - 1
        assert np.abs(back - levels).max() < 0.005
    # What was written is a set that our own reader takes.
    assert len(ChipSet.open(out / "cyclegan", "a")) == len(chips)
    with pytest.raises(OptionError, match="1 or 3 bands"):
        chip_scenes([half_masked], replace(options, bands=("1", "2"), overwrite=True))


def test_the_layout_of_arcgis(half_masked: Path, make_scene: MakeScene, tmp_path: Path) -> None:
    labels = make_scene("labels.tif", shape=(96, 96), bands=1, dtype="uint8")
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=32, val=0.0, layout="arcgis", labels=(str(labels),))
    report = chip_scenes([half_masked], options)
    folder = out / "arcgis" / "A"
    lines = (folder / "map.txt").read_text().splitlines()
    assert len(lines) == report.train
    row = min(read_rows(out), key=lambda row: row.chip)
    image, label = lines[0].split(" ")
    assert (folder / image).read_bytes() == (out / row.chip).read_bytes()
    assert (folder / label).read_bytes() == (out / row.label).read_bytes()
    stats = json.loads((folder / "esri_accumulated_stats.json").read_text())
    assert (stats["NumTiles"], stats["NumBands"], stats["TileSizeX"]) == (report.train, 3, 32)
    assert stats["MetaDataMode"] == "Classified_Tiles"
    assert len(ChipSet.open(out / "arcgis", "a")) == report.train
    chip_scenes([half_masked], replace(options, labels=()))
    assert not (folder / "labels").exists()
    with pytest.raises(OptionError, match="--virtual"):
        chip_scenes([half_masked], ChipOptions(out=tmp_path / "v", virtual=True, layout="arcgis"))
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("crs", ["EPSG:32630", None])
def test_the_list_as_a_geopackage(
    make_scene: MakeScene, tmp_path: Path, crs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = make_scene(shape=(64, 64), crs=crs)
    arguments: list[Any] = ["chip", str(scene), "--size", "32", "--val", "0"]
    result = CliRunner().invoke(cli, [*arguments, "--gpkg", "--format", "npy"])
    assert result.exit_code == 0, result.output
    frame = geopandas.read_file("chips/chips.gpkg", layer="chips")
    assert sorted(frame.chip) == sorted(row.chip for row in read_rows(Path("chips")))
    assert frame.geometry.notna().all() == (crs is not None)
    # It is kept up to date, and replaced when asked for again.
    again = CliRunner().invoke(cli, [*arguments[:2], *arguments[2:], "--domain", "b"])
    assert again.exit_code == 0, again.output
    assert len(geopandas.read_file("chips/chips.gpkg")) == 8


def test_npy_is_not_compressed() -> None:
    with pytest.raises(OptionError, match="npy files are not compressed"):
        ChipOptions(format="npy", compress=Codec.parse("deflate"))
