"""The graph that is exported: radiometry, padding and masks as in the tile engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.bundle import Bundle
from geocyclegan.exporting.network import Scalings, Translation
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.statistics import StatisticsOptions
from geocyclegan.raster.radiometry import BandScaling, Radiometry
from geocyclegan.raster.windows import Window

MakeBundle = Callable[..., Bundle]
Image = npt.NDArray[Any]


@st.composite
def scalings(draw: st.DrawFn) -> BandScaling:
    method = draw(st.sampled_from(["auto", "db", "log1p"]))
    count = draw(st.integers(2, 5))
    steps = draw(st.lists(st.floats(0.5, 20.0), min_size=count - 1, max_size=count - 1))
    start = draw(st.floats(-20.0, 0.0)) if method != "log1p" else 0.0
    knots = np.concatenate([[start], start + np.cumsum(np.array(steps) / count)])
    levels = np.linspace(-1.0, 1.0, count) ** 3
    return BandScaling(method, tuple(map(float, knots)), tuple(map(float, levels)))


@given(st.lists(scalings(), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_radiometry_is_that_of_the_domains(bands: list[BandScaling], seed: int) -> None:
    ours, theirs = Scalings(bands), Radiometry(tuple(bands))
    levels = np.random.default_rng(seed).uniform(-1.2, 1.2, (len(bands), 6, 5)).astype(np.float32)
    pixels = np.stack(theirs.inverse(levels)).astype(np.float32)
    back = ours.inverse(torch.from_numpy(levels)[None])[0].numpy()
    np.testing.assert_allclose(back, pixels, rtol=3e-5, atol=1e-4)
    # The logarithm is rounded to float32; a steep curve, 2 levels over a quarter of a dB, say,
    # makes that much of the level.
    rounding = (
        max(
            np.max(np.abs(band.knots)) * np.max(np.diff(band.levels) / np.diff(band.knots))
            for band in bands
        )
        * np.finfo(np.float32).eps
    )
    np.testing.assert_allclose(
        ours(torch.from_numpy(pixels)[None])[0].numpy(),
        theirs.forward(pixels),
        atol=1e-5 + 4 * rounding,
    )


class Scene:
    def __init__(self, pixels: Image, valid: Image) -> None:
        self.pixels, self.valid = pixels, valid

    def read(self, window: Window) -> tuple[Image, Image]:
        rows, cols = window.slices_in(Window(0, 0, *self.valid.shape))
        return self.pixels[:, rows, cols], self.valid[rows, cols]


@pytest.mark.parametrize("shape", [(64, 64), (61, 50)])
def test_the_graph_gives_what_infer_gives(make_bundle: MakeBundle, shape: tuple[int, int]) -> None:
    bundle = make_bundle()
    generator, trained = bundle.generator("b2a"), bundle.statistics("b2a")
    source, target = bundle.domains["b"], bundle.domains["a"]
    random = np.random.default_rng(0)
    pixels = random.uniform(1, 4000, (3, *shape)).astype(np.uint16)
    pixels[1, :20, :30] = 0
    valid = (pixels != 0).all(axis=0)
    options = EngineOptions(tile=16, statistics=StatisticsOptions(mode="frozen"))
    engine = TileEngine(generator, source, target, torch.device("cpu"), options, trained)
    expected = np.full((2, *shape), np.nan, np.float32)
    for piece, _ in engine.run(Scene(pixels, valid), *shape):
        rows, cols = piece.window.slices_in(Window(0, 0, *shape))
        expected[:, rows, cols] = piece.pixels
    module = Translation(generator, source, target).eval()
    with torch.inference_mode():
        found = module(torch.from_numpy(pixels.astype(np.float32))[None])
    assert isinstance(found, torch.Tensor)
    assert np.isnan(expected[:, ~valid]).all()
    assert np.isfinite(expected[:, valid]).all()
    assert np.ptp(expected[0, valid]) > 1.0
    np.testing.assert_allclose(found[0].numpy(), expected, atol=4e-3, rtol=2e-4)


def test_a_valid_pixel_does_not_round_to_nodata(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    module = Translation(bundle.generator("a2b"), bundle.domains["a"], bundle.domains["b"])
    assert module.limits == (1.0, 65535.0)
    image = torch.full((1, 2, 16, 16), 0.01)
    image[:, :, :4] = float("nan")
    made = module(image)
    assert isinstance(made, torch.Tensor)
    assert (made[:, :, :4] == 0).all()
    assert (made[:, :, 4:].round() >= 1).all()


@pytest.mark.parametrize("outputs", ["units", "display"])
def test_an_undeclared_value_is_nodata_in_all_bands_only(
    make_bundle: MakeBundle, outputs: Any
) -> None:
    bundle = make_bundle()
    source = replace(bundle.domains["a"], undeclared=-50.0)
    module = Translation(bundle.generator("a2b"), source, bundle.domains["b"], outputs).eval()
    image = torch.rand(1, 2, 16, 16) + 1.0
    image[:, :, :4] = -50.0
    image[:, 0, 9, 9] = -50.0
    told = image.clone()
    told[:, :, :4] = float("nan")
    with torch.inference_mode():
        made, expected = module(image), module(told)
    assert isinstance(made, torch.Tensor)
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    assert (made[:, :, :4] == 0).all()
    plain = Translation(bundle.generator("a2b"), bundle.domains["a"], bundle.domains["b"], outputs)
    with torch.inference_mode():
        assert not torch.equal(plain.eval()(image), expected)
