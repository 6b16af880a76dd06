"""Styles: several answers for one scene, each seamless; and what has no style is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.errors import NotFoundError, OptionError, SceneError
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene
from geocyclegan.models import build_generator
from geocyclegan.models.style import StyledGenerator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

MakeRaster = Callable[..., Path]
SCALING = BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0))


def domain(*names: str) -> Domain:
    return Domain(tuple(BandInfo(SCALING, name) for name in names), "float32", None, 10.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    made = build_generator("munit", in_channels=1, out_channels=2, width=4, blocks=1)
    assert isinstance(made, StyledGenerator)
    made.see_styles(torch.full((1, 8), 0.5))
    return load_bundle(
        save_bundle(
            tmp_path / "model",
            method="munit",
            generators={"a2b": ("munit", made)},
            domains={"a": domain("x"), "b": domain("y", "z")},
            tile=32,
            training={},
        )
    )


@pytest.fixture
def scene(make_raster: MakeRaster) -> Path:
    random = np.random.default_rng(0)
    # Darker to the left, so that each tile by itself is normalised otherwise than the whole.
    pixels = random.uniform(0, 400, (1, 160, 260)) + np.linspace(0, 600, 260)
    pixels = pixels.astype(np.float32)
    return make_raster("scene.tif", pixels, names=("x",))


def run(scene: Path, bundle: Bundle, options: TranslateOptions) -> np.ndarray:
    out = scene.parent / "out.tif"
    translate_scene(str(scene), out, bundle, replace(options, overwrite=True))
    with rasterio.open(out) as dataset:
        return np.asarray(dataset.read())


WHOLE = TranslateOptions(norm_stats="exact", engine=EngineOptions(window=32))


def test_a_seed_gives_one_answer_and_another_seed_another(scene: Path, bundle: Bundle) -> None:
    mean = run(scene, bundle, WHOLE)
    one = run(scene, bundle, replace(WHOLE, style="seed:1"))
    assert np.array_equal(one, run(scene, bundle, replace(WHOLE, style="seed:1")))
    two = run(scene, bundle, replace(WHOLE, style="seed:2"))
    assert np.abs(one - two).max() > 1
    assert np.abs(one - mean).max() > 1
    with rasterio.open(scene.parent / "out.tif") as dataset:
        assert dataset.tags()["GEOCYCLEGAN_STYLE"] == "seed:2"


def test_a_scene_with_a_style_is_seamless(scene: Path, bundle: Bundle) -> None:
    options = replace(WHOLE, style="seed:1")
    whole = run(scene, bundle, options)
    tiled = run(scene, bundle, replace(options, engine=EngineOptions(tile=24, window=32)))
    assert np.abs(whole - tiled).max() < 0.05  # of 1000; in levels 1e-4
    naive = replace(options, norm_stats="tile", engine=EngineOptions(tile=24, window=32))
    assert np.abs(whole - run(scene, bundle, naive)).max() > 1


def test_the_style_of_a_scene_does_not_depend_on_where_it_lies(
    scene: Path, bundle: Bundle, make_raster: MakeRaster
) -> None:
    random = np.random.default_rng(1)
    pixels = random.uniform(400, 600, (2, 256, 256)).astype(np.float32)
    dark = make_raster("dark.tif", pixels * 0.1, names=("y", "z"))
    bright = make_raster("bright.tif", pixels, names=("y", "z"))
    # Other names, another order: bands are found by name.
    swapped = make_raster("swapped.tif", pixels[::-1].copy(), names=("z", "y"))
    wide = np.full((2, 256, 640), np.nan, np.float32)
    wide[:, :, 384:] = pixels
    masked = make_raster("masked.tif", wide, names=("y", "z"), nodata=np.nan)
    results = {
        path.stem: run(scene, bundle, replace(WHOLE, style=str(path)))
        for path in (dark, bright, swapped, masked)
    }
    assert np.array_equal(results["bright"], results["swapped"])
    # What is not valid has no say, save for the border that the convolutions see.
    distance = np.abs(results["bright"] - results["masked"]).mean()
    assert distance < 0.4 * np.abs(results["bright"] - results["dark"]).mean()


def test_what_cannot_be_a_style(scene: Path, bundle: Bundle, make_raster: MakeRaster) -> None:
    for style in ("seed:x", "seed:-1", "seed:"):
        with pytest.raises(OptionError, match=r"expected a scene, or seed:N"):
            run(scene, bundle, replace(WHOLE, style=style))
    with pytest.raises(NotFoundError):
        run(scene, bundle, replace(WHOLE, style="nowhere.tif"))
    with pytest.raises(SceneError, match="x"):
        run(scene, bundle, replace(WHOLE, style=str(scene)))
    empty = make_raster(
        "empty.tif", np.full((2, 40, 40), np.nan, np.float32), names=("y", "z"), nodata=np.nan
    )
    with pytest.raises(SceneError, match="no valid pixel in it, so it has no style"):
        run(scene, bundle, replace(WHOLE, style=str(empty)))
    with pytest.raises(OptionError, match="those of its mean style"):
        run(scene, bundle, replace(WHOLE, style="seed:1", norm_stats="frozen"))


def test_a_model_without_styles(scene: Path, tmp_path: Path) -> None:
    made = build_generator("resnet6", in_channels=1, out_channels=2, width=2)
    plain = load_bundle(
        save_bundle(
            tmp_path / "plain",
            method="cyclegan",
            generators={"a2b": ("resnet6", made)},
            domains={"a": domain("x"), "b": domain("y", "z")},
            tile=32,
            training={},
        )
    )
    with pytest.raises(OptionError, match="a cyclegan model has no styles"):
        run(scene, plain, replace(WHOLE, style="seed:1"))
