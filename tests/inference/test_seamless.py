"""The promise: what a pixel becomes does not depend on how its scene was cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.levels import SceneLevels
from geocyclegan.inference.seams import tile_invariance_error
from geocyclegan.inference.statistics import NormStats, StatisticsOptions, resolve_mode, spread
from geocyclegan.models import DenseNetGenerator, Generator, ResNetGenerator, UNetGenerator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.windows import CellGrid, Window

CPU = torch.device("cpu")
SCALING = BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0))
SOURCE = Domain((BandInfo(SCALING),) * 2, "uint16")
TARGET = Domain((BandInfo(SCALING),) * 3, "float32")
SEAMLESS: tuple[NormStats, ...] = ("frozen", "sample", "exact", "dense")
CROP = 32

Image = npt.NDArray[np.float32]


class ArrayScene:
    """A scene in memory, very unlike itself from end to end."""

    def __init__(self, height: int, width: int, *, holes: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        ramp = np.linspace(0, 700, width)[None, :] * np.linspace(0.2, 1, height)[:, None]
        self.pixels = (ramp + rng.integers(0, 300, (2, height, width))).astype(np.uint16)
        self.valid = np.ones((height, width), bool)
        if holes:
            self.valid = rng.random((height, width)) > 0.02
            self.valid[: height // 3, width // 2 :] = False

    def read(self, window: Window) -> tuple[Any, Any]:
        part = np.s_[window.row : window.row_stop, window.col : window.col_stop]
        return self.pixels[:, *part], self.valid[part]


def network(norm: str = "instance", blocks: int = 1, **options: Any) -> Generator:
    return ready(ResNetGenerator(2, 3, width=4, blocks=blocks, norm=norm, **options))


def ready(generator: Generator) -> Generator:
    torch.manual_seed(0)
    for parameter in generator.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return generator.eval().requires_grad_(False)


def trained(generator: Generator) -> list[Moments]:
    torch.manual_seed(1)
    found = lockstep(generator, [Patch(torch.rand(4, 2, CROP, CROP) * 2 - 1)])
    generator.thaw()
    return found


def translate(
    generator: Generator, scene: ArrayScene, mode: NormStats, **options: Any
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """The whole product as levels."""
    statistics = StatisticsOptions(
        mode=mode, memory=options.pop("memory", 1 << 30), crops=options.pop("crops", 5)
    )
    cut = EngineOptions(window=CROP, statistics=statistics, **options)
    given = trained(generator) if mode == "frozen" else None
    engine = TileEngine(generator, SOURCE, TARGET, CPU, cut, given)
    height, width = scene.valid.shape
    levels = np.full((3, height, width), np.nan, np.float32)
    tiles = 0
    for output in engine.outputs(scene, height, width):
        rows, cols = output.window.slices_in(Window(0, 0, height, width))
        levels[:, rows, cols] = output.levels
        np.testing.assert_array_equal(output.valid, scene.valid[rows, cols])
        tiles += output.tiles
    assert tiles == engine.count(height, width)
    assert np.isfinite(levels).all()
    return levels, scene.valid


@pytest.mark.parametrize("mode", SEAMLESS)
@settings(max_examples=8)
@given(
    height=st.integers(20, 130),
    width=st.integers(20, 130),
    tile=st.sampled_from([32, 48, 64]),
    shift=st.sampled_from([0, 8, 16, 28]),
    batch=st.integers(1, 3),
    holes=st.booleans(),
)
def test_a_product_does_not_depend_on_the_tiles(
    mode: NormStats, height: int, width: int, tile: int, shift: int, batch: int, holes: bool
) -> None:
    scene = ArrayScene(height, width, holes=holes)
    generator = network()
    whole, valid = translate(generator, scene, mode, tile=1000)
    cut, _ = translate(generator, scene, mode, tile=tile, shift=shift, batch=batch)
    assert tile_invariance_error(whole, cut, valid).max < 0.01


@pytest.mark.parametrize("mode", SEAMLESS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: network(antialias=True),
        lambda: network(upsample="nearest"),
        lambda: network(antialias=True, upsample="transpose"),
        lambda: ready(DenseNetGenerator(2, 3, width=4, blocks=1, layers=2, upsample="bilinear")),
    ],
    ids=["antialias", "nearest", "antialias down", "densenet bilinear"],
)
def test_no_generator_with_a_halo_depends_on_them(
    make: Callable[[], Generator], mode: NormStats
) -> None:
    scene, generator = ArrayScene(117, 94, holes=True), make()
    whole, valid = translate(generator, scene, mode, tile=1000)
    cut, _ = translate(generator, scene, mode, tile=48, shift=28, batch=2)
    assert tile_invariance_error(whole, cut, valid).max < 0.01


def test_naive_tiles_do_depend_on_them() -> None:
    """The measure is not blind."""
    scene = ArrayScene(100, 130, holes=False)
    whole, valid = translate(network(), scene, "tile", tile=1000)
    cut, _ = translate(network(), scene, "tile", tile=48)
    assert tile_invariance_error(whole, cut, valid).max > 5


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_exact_is_the_untiled_output(holes: bool, memory: int) -> None:
    """In lockstep, and with a sweep for each layer; blocks enough for a wide halo."""
    scene = ArrayScene(150, 121, holes=holes)
    generator = network(blocks=2)
    levels, mask = SceneLevels(scene, SOURCE, 150, 121).read(Window(0, 0, 152, 124))
    with torch.inference_mode():
        whole = generator(torch.from_numpy(levels)[None], torch.from_numpy(mask)[None, None])
    expected = whole[0, :, :150, :121].numpy()
    cut, valid = translate(generator, scene, "exact", tile=48, memory=memory)
    assert np.abs(cut - expected)[:, valid].max() < 1e-4


@pytest.mark.parametrize("mode", ["exact", "sample"])
def test_lockstep_and_sweeps_agree(mode: NormStats) -> None:
    scene, generator = ArrayScene(90, 70, holes=True), network()
    one, _ = translate(generator, scene, mode, tile=32)
    two, _ = translate(generator, scene, mode, tile=32, memory=0)
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("mode", [*SEAMLESS, "tile"])
def test_flat_ground_does_not_overflow(mode: NormStats) -> None:
    """As rounding would, if each of many layers divided it by a deviation of nothing."""
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=32, blocks=9).eval().requires_grad_(False)
    scene = ArrayScene(100, 110, holes=False)
    scene.pixels[:] = 300
    levels, _ = translate(generator, scene, mode, tile=64)
    assert np.isfinite(levels).all()


@pytest.mark.parametrize("mode", ["sample", "exact", "dense"])
def test_a_scene_of_one_crop_is_translated_as_in_training(mode: NormStats) -> None:
    """All regimes meet where the scene is a single crop."""
    scene, generator = ArrayScene(CROP, CROP, holes=False), network()
    expected, _ = translate(generator, scene, "tile")
    found, _ = translate(generator, scene, mode)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dense_follows_the_scene_and_frozen_does_not() -> None:
    """Far from each other, two places do not know of each other in dense, and do in exact."""
    generator = network()
    scene, other = ArrayScene(64, 256, holes=False), ArrayScene(64, 256, holes=False)
    other.pixels[:, :, 200:] = 0
    left = np.s_[:, :, :100]
    for mode, same in (("dense", True), ("frozen", True), ("exact", False)):
        one, _ = translate(generator, scene, mode, tile=48)  # type: ignore[arg-type]
        two, _ = translate(generator, other, mode, tile=48)  # type: ignore[arg-type]
        assert np.allclose(one[left], two[left], atol=1e-5) == same


@pytest.mark.parametrize("mode", [*SEAMLESS, "tile"])
def test_what_lies_under_the_mask_is_without_effect(mode: NormStats) -> None:
    scene, other = ArrayScene(80, 90, holes=True), ArrayScene(80, 90, holes=True)
    other.pixels[:, ~other.valid] = 60_000
    one, valid = translate(network(), scene, mode, tile=48)
    two, _ = translate(network(), other, mode, tile=48)
    np.testing.assert_array_equal(one[:, valid], two[:, valid])


@pytest.mark.parametrize("mode", [*SEAMLESS, "tile"])
def test_a_scene_pooled_generator_takes_every_mode(mode: NormStats) -> None:
    scene, generator = ArrayScene(60, 70, holes=False), network("scene")
    one, _ = translate(generator, scene, mode, tile=32)
    # Tiles that share a forward pass share no statistics by that.
    two, _ = translate(generator, scene, mode, tile=32, batch=3)
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("mode", [*SEAMLESS, "tile"])
def test_nothing_valid_is_no_crash(mode: NormStats) -> None:
    scene = ArrayScene(60, 70, holes=False)
    scene.valid[:] = False
    levels, _ = translate(network(), scene, mode, tile=32)
    assert not levels.any()


def test_modes_follow_the_regime() -> None:
    resnet, unet = network(), UNetGenerator(2, 3, width=4, depth=3)

    def resolve(asked: NormStats, generator: Generator, pool: str, has: bool) -> NormStats:
        return resolve_mode(asked, generator, pool=pool, has_statistics=has, model="runs/m")

    assert resolve("auto", resnet, "crop", True) == "dense"
    assert resolve("auto", resnet, "scene", True) == "frozen"
    assert resolve("auto", resnet, "scene", False) == "sample"
    assert resolve("auto", unet, "crop", True) == "tile"
    assert resolve("frozen", network("none"), "crop", False) == "tile"
    with pytest.raises(OptionError, match=r"--norm-stats frozen: the model runs/m records no"):
        resolve("frozen", resnet, "crop", False)
    for asked in ("exact", "dense"):
        with pytest.raises(OptionError, match=f"--norm-stats {asked}: the receptive field"):
            resolve(asked, unet, "crop", True)


@pytest.mark.parametrize("mode", ["frozen", "sample", "tile"])
def test_a_unet_blends_with_given_statistics(mode: NormStats) -> None:
    torch.manual_seed(0)
    unet = UNetGenerator(2, 3, width=4, depth=3).eval().requires_grad_(False)
    scene = ArrayScene(70, 90, holes=True)
    levels, _ = translate(unet, scene, mode)
    assert levels.std() > 0


def test_sampled_crops_are_spread_evenly() -> None:
    grid = CellGrid.plan(1000, 2000, size=100, stride=4)
    cells = list(spread(grid))
    assert sorted(cells) == [(i, j) for i in range(10) for j in range(20)]
    quarters = [(i >= 5, j >= 10) for i, j in cells[:16]]
    assert {quarters.count((a, b)) for a in (False, True) for b in (False, True)} <= {3, 4, 5}


def test_cells_cover_the_scene_and_own_it_once() -> None:
    grid = CellGrid.plan(101, 75, size=32, stride=4)
    owned = np.zeros((grid.rows[-1] + 32, grid.cols[-1] + 32), int)
    for i in range(len(grid.rows)):
        for j in range(len(grid.cols)):
            own, cell = grid.own(i, j), grid.window(i, j)
            assert cell.shape == (32, 32)
            assert cell.row % 4 == cell.col % 4 == 0
            owned[own.slices_in(Window(0, 0, *owned.shape))] += 1
    assert owned.shape == (104, 76)
    assert (owned == 1).all()
    small = CellGrid.plan(10, 200, size=32, stride=4, min_size=8)
    assert (small.height, small.width, small.rows) == (12, 32, (0,))
