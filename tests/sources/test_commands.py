"""The commands on scenes that are on servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

from geocyclegan import samples
from geocyclegan.bundle import save_bundle
from geocyclegan.chips.reader import ChipSet
from geocyclegan.cli.main import cli
from geocyclegan.errors import ChipsError
from geocyclegan.inference import translate
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

Server = Any
Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scene(server: Server) -> Path:
    """A tiled part of a bundled scene, in the server's folder."""
    path: Path = server.folder / "scene.tif"
    with rasterio.open(samples.path("landsat_1985")) as whole:
        pixels = np.maximum(whole.read([1, 2])[:, :128, :128], 1)
        profile = whole.profile | {"count": 2, "height": 128, "width": 128, "nodata": None}
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    scaling = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
    domain = Domain((BandInfo(scaling),) * 2, "uint8")
    network = build_generator("resnet6", in_channels=2, out_channels=2, width=2)
    folder = tmp_path / "model"
    save_bundle(
        folder,
        method="cyclegan",
        generators={"a2b": ("resnet6", network)},
        domains={"a": domain, "b": domain},
        tile=32,
        training={"steps": 0},
    )
    return folder


def run(*args: object) -> tuple[int, list[str]]:
    """Run a command; return its exit code and what it says of errors."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    return result.exit_code, [line for line in result.output.splitlines() if "Error" in line]


def chip(source: object, out: Path, *more: object) -> tuple[int, list[str]]:
    return run("chip", source, "--out", out, "--size", 64, "--val", 0, "--workers", 1, *more)


def chips_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*.tif")}


def pixels_of(product: Path) -> bytes:
    with rasterio.open(product) as dataset:
        return bytes(dataset.read().tobytes() + dataset.dataset_mask().tobytes())


@pytest.mark.parametrize("kind", ["503", "drop"])
def test_chip_is_the_same_after_a_fault(server: Server, scene: Path, kind: str) -> None:
    assert chip(scene, Path("local")) == (0, [])
    server.fail(kind, name="scene.tif", first=1, count=1)
    assert chip(server.url("scene.tif"), Path("remote")) == (0, [])
    local, remote = chips_of(Path("local")), chips_of(Path("remote"))
    assert len(local) == 4
    assert sorted(local.values()) == sorted(remote.values())


@pytest.mark.parametrize("kind", ["503", "drop", "short", "html", "hang"])
def test_chip_ends_in_a_line_and_leaves_nothing(server: Server, scene: Path, kind: str) -> None:
    # Two looks at the header pass.
    server.fail(kind, name="scene.tif", first=2)
    code, errors = chip(server.url("scene.tif"), Path("chips"))
    assert code == 1
    (line,) = errors
    assert server.url("scene.tif") in line
    assert not Path("chips").exists()


def test_chip_notices_that_a_scene_was_replaced(server: Server, scene: Path) -> None:
    with rasterio.open(scene) as dataset:
        profile, pixels = dataset.profile | {"compress": "none"}, dataset.read()
    for path, values in ((scene, pixels), (server.folder / "scene.tif.other", pixels // 2)):
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(values)
    # Laid out alike, so that no header tells them from each other.
    server.fail("other", name="scene.tif", methods=["GET", "HEAD"], first=8)
    code, errors = chip(server.url("scene.tif"), Path("chips"))
    assert code == 1
    assert "it was replaced on its server" in errors[0]
    assert not Path("chips").exists()


@pytest.mark.parametrize("kind", ["503", "drop"])
def test_infer_is_the_same_after_a_fault(
    server: Server, scene: Path, model: Path, kind: str
) -> None:
    given = ("--model", model, "--tile", 96, "--norm-stats", "tile")
    assert run("infer", scene, *given, "--out", "local.tif")[0] == 0
    server.fail(kind, name="scene.tif", first=1, count=1)
    assert run("infer", server.url("scene.tif"), *given, "--out", "remote.tif") == (0, [])
    assert pixels_of(Path("local.tif")) == pixels_of(Path("remote.tif"))


@pytest.mark.parametrize("kind", ["503", "drop", "html"])
def test_infer_ends_in_a_line_and_goes_on_later(
    server: Server, scene: Path, model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate, "KEPT_FROM_TILES", 1)
    monkeypatch.setenv("GDAL_NUM_THREADS", "1")
    given = ("--model", model, "--tile", 96, "--norm-stats", "tile")
    assert run("infer", scene, *given, "--out", "local.tif")[0] == 0
    server.fail(kind, name="scene.tif", first=2)
    code, errors = run("infer", server.url("scene.tif"), *given, "--out", "remote.tif")
    assert code == 1
    (line,) = errors
    assert server.url("scene.tif") in line
    assert not Path("remote.tif").exists()
    server.fail("")
    assert run("infer", server.url("scene.tif"), *given, "--out", "remote.tif") == (0, [])
    assert pixels_of(Path("local.tif")) == pixels_of(Path("remote.tif"))


def test_virtual_chips_of_a_server(server: Server, scene: Path) -> None:
    out = Path("chips")
    assert chip(server.url("scene.tif"), out, "--virtual")[0] == 0
    assert chip(scene, Path("local"))[0] == 0
    server.fail("drop", name="scene.tif", methods=["GET"], count=1)
    theirs, ours = ChipSet.open(out, "a"), ChipSet.open(Path("local"), "a")
    for index in range(len(ours)):
        assert np.array_equal(theirs.read(index)[0], ours.read(index)[0])
    record = json.loads((out / "domain_a.json").read_text())
    assert server.url("scene.tif") in json.dumps(record["scenes"][0]["files"])
    (server.folder / "scene.tif.other").write_bytes(b"another")
    server.fail("other", name="scene.tif", methods=["HEAD"])
    with pytest.raises(ChipsError, match=r"scene\.tif: changed since it was chipped"):
        ChipSet.open(out, "a")
    server.fail("")
    # A set that holds nothing open, nor what it has read.
    fresh = ChipSet.open(out, "a")
    server.fail("drop", name="scene.tif")
    with pytest.raises(ChipsError, match=r"http://.*/scene\.tif.* cannot be read"):
        _read_anew(fresh, server)


def _read_anew(chips: ChipSet, server: Server) -> None:
    from geocyclegan.raster import remote

    with remote.forgetful():
        for index in range(len(chips)):
            chips.read(index)
