"""Interrupted work goes on, and ends with the pixels of work that was never interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor

from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.document import write_document
from geocyclegan.errors import SceneError
from geocyclegan.files import sha256
from geocyclegan.inference.engine import EngineOptions, Piece
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.resume import KeptPieces
from geocyclegan.inference.statistics import NormStats
from geocyclegan.inference.translate import translate_scene_with
from geocyclegan.models import Generator, build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.windows import Window

MakeRaster = Any


class Killed(BaseException):
    """What a test throws into the middle of the work."""


@pytest.fixture
def scene(make_raster: MakeRaster) -> Path:
    pixels = np.random.default_rng(0).integers(1, 255, (1, 150, 140)).astype(np.uint8)
    pixels[:, :40, :50] = 0
    path: Path = make_raster("scene.tif", pixels, nodata=0, names=("x",))
    return path


def make_bundle(folder: Path, name: str = "resnet6") -> Bundle:
    torch.manual_seed(0)
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "x"),), "uint8")
    network = build_generator(name, in_channels=1, out_channels=1, width=2).eval()
    save_bundle(
        folder,
        method="m",
        generators={"a2b": (name, network)},
        domains={"a": domain, "b": domain},
        tile=32,
        training={},
    )
    return load_bundle(folder)


def counted(network: Generator, stop_at: int | None = None) -> list[int]:
    """Count the calls of a network; throw in the one of that number."""
    calls: list[int] = []

    def hook(module: object, args: tuple[Tensor, ...]) -> None:
        calls.append(args[0].shape[0])
        if stop_at is not None and len(calls) == stop_at:
            raise Killed

    network.register_forward_pre_hook(hook)
    return calls


def translate(
    scene: Path, out: Path, bundle: Bundle, mode: NormStats, stop_at: int | None = None
) -> list[int]:
    network = bundle.generator("a2b")
    calls = counted(network, stop_at)
    options = TranslateOptions(norm_stats=mode, engine=EngineOptions(tile=32, window=32))
    translate_scene_with(str(scene), out, bundle, network, options)
    return calls


def pixels_of(path: Path) -> Any:
    with rasterio.open(path) as done:
        return done.read(), done.dataset_mask()


@pytest.mark.parametrize("mode", ["dense", "exact", "tile"])
def test_a_rerun_goes_on_and_gives_the_same_pixels(
    tmp_path: Path, scene: Path, mode: NormStats, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle(tmp_path / "model")
    whole = translate(scene, tmp_path / "whole.tif", bundle, mode)
    out = tmp_path / "p.tif"
    with pytest.raises(Killed):
        translate(scene, out, bundle, mode, stop_at=len(whole) - 4)
    assert not out.exists()
    pieces = list((tmp_path / ".p.pieces").glob("*.npz"))
    assert pieces
    # One of them is damaged, and one was being written.
    data = bytearray(pieces[0].read_bytes())
    data[len(data) // 2] ^= 1
    pieces[0].write_bytes(bytes(data))
    (tmp_path / ".p.pieces" / "half.part").write_bytes(b"half")
    rest = translate(scene, out, bundle, mode)
    assert f"{len(pieces) - 1} finished parts" in caplog.text
    assert len(rest) < len(whole)
    for one, two in zip(pixels_of(tmp_path / "whole.tif"), pixels_of(out), strict=True):
        np.testing.assert_array_equal(one, two)
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_a_unet_goes_on_in_the_middle_of_its_blend(tmp_path: Path, scene: Path) -> None:
    bundle = make_bundle(tmp_path / "model", "unet128")
    object.__setattr__(bundle, "tile", 128)

    def run(out: Path, stop_at: int | None = None) -> int:
        network = bundle.generator("a2b")
        calls = counted(network, stop_at)
        options = TranslateOptions(engine=EngineOptions(window=128))
        translate_scene_with(str(large), out, bundle, network, options)
        return len(calls)

    with rasterio.open(scene) as source:
        profile, pixels = source.profile, np.tile(source.read(), (1, 3, 2))
    large = tmp_path / "large.tif"
    profile.update(height=pixels.shape[1], width=pixels.shape[2])
    with rasterio.open(large, "w", **profile) as target:
        target.write(pixels)
    whole = run(tmp_path / "whole.tif")
    with pytest.raises(Killed):
        run(tmp_path / "p.tif", whole - 2)
    assert run(tmp_path / "p.tif") < whole
    for one, two in zip(
        pixels_of(tmp_path / "whole.tif"), pixels_of(tmp_path / "p.tif"), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_another_job_starts_over(tmp_path: Path, scene: Path) -> None:
    bundle = make_bundle(tmp_path / "model")
    out = tmp_path / "p.tif"
    with pytest.raises(Killed):
        translate(scene, out, bundle, "tile", stop_at=12)
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(dataset.read()[:, ::-1])
    translate(scene, out, bundle, "tile")
    translate(scene, tmp_path / "whole.tif", bundle, "tile")
    np.testing.assert_array_equal(pixels_of(out)[0], pixels_of(tmp_path / "whole.tif")[0])


def test_the_same_weights_with_another_radiometry_start_over(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle(tmp_path / "model")
    out = tmp_path / "p.tif"
    with pytest.raises(Killed):
        translate(scene, out, bundle, "tile", stop_at=12)
    document = json.loads((bundle.folder / "model.json").read_text())
    knots = document["domains"]["b"]["bands"][0]["scaling"]["knots"]
    document["domains"]["b"]["bands"][0]["scaling"]["knots"] = [0.8 * knot for knot in knots]
    write_document(bundle.folder, document)
    edited = load_bundle(bundle.folder)
    assert edited.weights_sha256 == bundle.weights_sha256
    translate(scene, out, edited, "tile")
    translate(scene, tmp_path / "whole.tif", edited, "tile")
    translate(scene, tmp_path / "before.tif", bundle, "tile")
    assert "finished parts" not in caplog.text
    np.testing.assert_array_equal(pixels_of(out)[0], pixels_of(tmp_path / "whole.tif")[0])
    assert (pixels_of(out)[0] != pixels_of(tmp_path / "before.tif")[0]).any()
    with rasterio.open(out) as one, rasterio.open(tmp_path / "before.tif") as two:
        key = "GEOCYCLEGAN_MODEL_SHA256"
        assert one.tags()[key] == edited.sha256 != two.tags()[key] == bundle.sha256


def test_a_scene_that_cannot_be_translated_leaves_nothing(
    tmp_path: Path, make_raster: MakeRaster
) -> None:
    path = make_raster("empty.tif", np.zeros((1, 150, 140), np.uint8), nodata=0, names=("x",))
    bundle = make_bundle(tmp_path / "model")
    with pytest.raises(SceneError, match="no valid pixel"):
        translate(path, tmp_path / "p.tif", bundle, "tile")
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_costs_the_resume_and_not_the_product(
    tmp_path: Path,
    scene: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    bundle = make_bundle(tmp_path / "model")
    monkeypatch.setattr(Path, "write_bytes", full)
    translate(scene, tmp_path / "p.tif", bundle, "tile")
    assert caplog.text.count("cannot be kept (No space left on device)") == 1
    assert (tmp_path / "p.tif").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b"", lambda b: b + b"\0"])
def test_damaged_pieces_are_dropped(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    window = Window(3, 4, 5, 6)
    valid = np.random.default_rng(0).random((5, 6)) > 0.5
    piece = Piece(window, np.arange(60, dtype=np.uint16).reshape(2, 5, 6), valid)
    job = {"size": (1, 2)}
    kept = KeptPieces(tmp_path / "p.tif", job)
    assert list(kept.load()) == []
    kept.keep(piece)
    (again,) = KeptPieces(tmp_path / "p.tif", job).load()
    assert again.window == window
    np.testing.assert_array_equal(again.pixels, piece.pixels)
    np.testing.assert_array_equal(again.valid, valid)
    (path,) = kept.folder.glob("*.npz")
    assert sha256(path) in path.name
    path.write_bytes(spoil(path.read_bytes()))
    assert list(KeptPieces(tmp_path / "p.tif", job).load()) == []
    assert not path.exists()
