"""The tile engine: tiled equals whole, borders and masks are exact, an identity is an identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.models.dense import At
from geocyclegan.models.generator import Generator
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.windows import Window

CPU = torch.device("cpu")
SCALING = BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0))


def domain(count: int, dtype: str = "uint16") -> Domain:
    return Domain((BandInfo(SCALING),) * count, dtype)


class ArrayScene:
    """A scene in memory."""

    def __init__(
        self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self.pixels = pixels
        self.valid = np.ones(pixels.shape[1:], bool) if valid is None else valid

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        assert window.clip(*self.valid.shape) == window
        part = np.s_[window.row : window.row_stop, window.col : window.col_stop]
        return self.pixels[:, *part], self.valid[part]


class Identity(Generator):
    """Returns its input and checks what a real generator would."""

    def __init__(
        self, channels: int, stride: int = 4, halo: int | None = 8, min_size: int = 8
    ) -> None:
        super().__init__(channels, channels, [])
        self.stride, self.halo, self.min_size = stride, halo, min_size
        self.calls = 0

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        height, width = x.shape[-2:]
        assert height % self.stride == 0
        assert width % self.stride == 0
        assert min(height, width) >= self.min_size
        assert torch.isfinite(x).all()
        assert valid is None or valid.shape == (x.shape[0], 1, height, width)
        self.calls += 1
        return x


def assemble(engine: TileEngine, scene: ArrayScene, target: Domain) -> tuple[Any, Any, int]:
    height, width = scene.valid.shape
    product = np.zeros((target.count, height, width), target.dtype)
    valid = np.zeros((height, width), bool)
    seen = np.zeros((height, width), int)
    tiles = 0
    for piece, count in engine.run(scene, height, width):
        part = np.s_[
            piece.window.row : piece.window.row_stop, piece.window.col : piece.window.col_stop
        ]
        product[:, *part] = piece.pixels
        valid[part] = piece.valid
        seen[part] += 1
        tiles += count
    assert (seen == 1).all()
    assert tiles == engine.count(height, width)
    return product, valid, tiles


@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([None, 0, 4, 12]),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([None, 1, 32, 100]),
    st.integers(1, 3),
    st.booleans(),
)
def test_an_identity_returns_the_scene_borders_included(
    height: int,
    width: int,
    halo: int | None,
    stride: int,
    tile: int | None,
    batch: int,
    holes: bool,
) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(0, 1001, (2, height, width)).astype(np.uint16)
    valid = rng.random((height, width)) > 0.3 if holes else np.ones((height, width), bool)
    wide_halo = None if halo is None else -(-halo // stride) * stride
    network = Identity(2, stride, wide_halo, min_size=8)
    options = EngineOptions(tile=tile, batch=batch, window=32)
    engine = TileEngine(network, domain(2), domain(2), CPU, options)
    product, found, _ = assemble(engine, ArrayScene(pixels, valid), domain(2))
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_array_equal(product[:, valid], pixels[:, valid])
    assert (product[:, ~valid] == 0).all()


def resnet(blocks_name: str = "resnet6", norm: str = "none") -> Any:
    torch.manual_seed(0)
    network = build_generator(blocks_name, in_channels=2, out_channels=3, width=4, norm=norm)
    # Weights of N(0, 0.02) let nothing through; these make every pixel matter.
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("shape", [(160, 130), (201, 77), (33, 250)])
@pytest.mark.parametrize("tile", [32, 64])
def test_tiles_with_halo_equal_the_whole_scene(shape: tuple[int, int], tile: int) -> None:
    """Without statistics a tiled product is the untiled one, at true borders as well."""
    network = resnet()
    pixels = np.random.default_rng(1).integers(0, 1001, (2, *shape)).astype(np.uint16)
    scene = ArrayScene(pixels)
    target = domain(3, "float32")
    whole, _, one = assemble(
        TileEngine(network, domain(2), target, CPU, EngineOptions(tile=1000)), scene, target
    )
    tiled, _, many = assemble(
        TileEngine(network, domain(2), target, CPU, EngineOptions(tile=tile, batch=2)),
        scene,
        target,
    )
    assert one == 1
    assert many > 1
    # A ten-thousandth of the range; geometry that is off by one pixel shows as hundreds.
    np.testing.assert_allclose(tiled, whole, atol=0.1)


def test_the_halo_is_needed_and_no_more_than_needed() -> None:
    network = resnet()
    pixels = np.random.default_rng(1).integers(0, 1001, (2, 160, 160)).astype(np.uint16)
    target = domain(3, "float32")

    def run(tile: int) -> Any:
        engine = TileEngine(network, domain(2), target, CPU, EngineOptions(tile=tile))
        return assemble(engine, ArrayScene(pixels), target)[0]

    whole = run(1000)
    network.halo = 4
    assert np.abs(run(32) - whole).max() > 1.0


def test_nodata_tiles_cost_no_forward_pass() -> None:
    network = Identity(1)
    valid = np.zeros((128, 128), bool)
    valid[:20, :20] = True
    scene = ArrayScene(np.ones((1, 128, 128), np.uint16), valid)
    engine = TileEngine(network, domain(1), domain(1), CPU, EngineOptions(tile=32))
    assemble(engine, scene, domain(1))
    assert network.calls == 1


def test_nan_under_the_mask_reaches_no_network() -> None:
    pixels = np.full((1, 40, 40), 5.0, np.float32)
    pixels[0, :7] = np.nan
    scene = ArrayScene(pixels, np.isfinite(pixels[0]))
    target = domain(1, "float32")
    engine = TileEngine(Identity(1), domain(1, "float32"), target, CPU, EngineOptions(tile=16))
    product, valid, _ = assemble(engine, scene, target)
    np.testing.assert_allclose(product[:, valid], 5.0, atol=1e-4)


def test_a_unet_blends_windows_of_its_training_size() -> None:
    torch.manual_seed(0)
    network = build_generator("unet128", in_channels=1, out_channels=1, width=2)
    network = network.eval().requires_grad_(False)
    scene = ArrayScene(np.random.default_rng(0).integers(0, 1000, (1, 300, 140)).astype(np.uint16))
    engine = TileEngine(network, domain(1), domain(1), CPU, EngineOptions(window=128))
    product, valid, tiles = assemble(engine, scene, domain(1))
    assert valid.all()
    assert tiles == 4 * 2
    assert product.std() > 0
