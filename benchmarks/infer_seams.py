"""TIE and seam z of every mode on real scenes.

TIE is the largest difference, in 8-bit levels, between the product at the first tile size and those
at the others and on a grid shifted by half a tile. Seam z looks at the steps across tile borders of
one product, 1 and 16 px wide. Passing means TIE below 0.01 and |z| below 3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from geocyclegan import samples
from geocyclegan.bundle import load_bundle
from geocyclegan.device import choose_device
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.levels import SceneLevels
from geocyclegan.inference.seams import seam_z, tile_invariance_error
from geocyclegan.inference.statistics import NormStats, StatisticsOptions, spread
from geocyclegan.models import Generator, build_generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling, ScaleSpec, fit_scaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sketch import BandSketch
from geocyclegan.raster.windows import CellGrid, Window

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PATTERNS = (
    "2_rgb_map/hot_fair/derived/kampala_z20_west*.tif",
    "3_prepost/xview2_joplin/derived/joplin_*_north.tif",
    "4_multispectral/ftw_baselines/derived/ftw_west_A.tif",
    "4_multispectral/opengeos_naip/*.tif",
)
_TRAINED_CROPS = 16
_MOST_SIDE = 1024

Mask = npt.NDArray[np.bool_]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("scenes", nargs="*", type=Path, help="default: samples and shared data")
    parser.add_argument("--model", type=Path, help="run or bundle; then name its scenes, too")
    parser.add_argument("--generator", default="resnet6")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="training crop, cell of dense")
    parser.add_argument("--tiles", default="256,384,1024", help="the first one is compared")
    parser.add_argument("--modes", default="naive,tile,frozen,sample,exact,dense")
    parser.add_argument("--z-tile", type=int, default=128, help="tile size for seam z")
    parser.add_argument("--device", default="cpu")


def run(args: argparse.Namespace) -> None:
    """Print a row for each scene and mode."""
    print("| scene | size | mode | TIE mean | TIE max | z (1 px) | z (16 px) | s |")
    print("|---|---|---|---|---|---|---|---|")
    for path in args.scenes or list(default_scenes()):
        with Scene(str(path)) as scene:
            height, width = (min(side, _MOST_SIDE) for side in scene.grid.shape)
            bench = Bench(scene, height, width, args)
            for mode in args.modes.split(","):
                print(f"| {path.stem} | {height} x {width} | {bench.row(mode)} |", flush=True)


def default_scenes() -> Iterator[Path]:
    """The scenes of the package, and one of each kind of the shared ones."""
    yield from (samples.path(name) for name in samples.NAMES)
    for pattern in PATTERNS:
        yield from sorted(SHARED.glob(pattern))[:1]


class Bench:
    """One scene and the generator that translates it."""

    def __init__(self, scene: Scene, height: int, width: int, args: argparse.Namespace) -> None:
        self.scene, self.height, self.width = scene, height, width
        self.tiles = [int(text) for text in args.tiles.split(",")]
        self.z_tile, self.crop = args.z_tile, args.crop
        self.device = choose_device(args.device)
        if args.model:
            bundle = load_bundle(args.model)
            self.source, self.target = bundle.source("a2b"), bundle.target("a2b")
            self.generator = bundle.generator("a2b", self.device)
            self.crop = bundle.tile
            self.trained = bundle.statistics("a2b")
        else:
            self.source = fitted(scene, height, width)
            band = BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)))
            self.target = Domain((band,) * 3, "float32")
            torch.manual_seed(0)
            network = build_generator(
                args.generator, in_channels=self.source.count, out_channels=3, width=args.width
            )
            self.generator = network.to(self.device).eval().requires_grad_(False)
            self.trained = self._sampled()

        self.halo = self.generator.halo

    def row(self, mode: str) -> str:
        """Measure a mode."""
        # Naive tiles are what most tools have: a tile's own statistics, and no halo.
        self.generator.halo = 0 if mode == "naive" else self.halo
        asked = "tile" if mode == "naive" else mode
        options = EngineOptions(
            tile=self.tiles[0],
            window=self.crop,
            statistics=StatisticsOptions(mode=cast(NormStats, asked)),
        )
        started = time.perf_counter()
        first, valid = self.levels(options)
        seconds = time.perf_counter() - started
        others = [replace(options, tile=tile) for tile in self.tiles[1:]]
        stride = self.generator.stride
        others.append(replace(options, shift=self.tiles[0] // 2 // stride * stride))
        errors = [tile_invariance_error(first, self.levels(o)[0], valid) for o in others]
        cut, _ = self.levels(replace(options, tile=self.z_tile))
        z = [seam_z(cut, self.z_tile, width=side, valid=valid) for side in (1, 16)]
        worst = max(errors, key=lambda error: error.max)
        return (
            f"{mode} | {worst.mean:.4f} | {worst.max:.4f} | {z[0]:.1f} | {z[1]:.1f} | {seconds:.1f}"
        )

    def levels(self, options: EngineOptions) -> tuple[npt.NDArray[np.float32], Mask]:
        """Translate the scene to levels."""
        known = self.trained if options.statistics.mode == "frozen" else None
        engine = TileEngine(self.generator, self.source, self.target, self.device, options, known)
        whole = Window(0, 0, self.height, self.width)
        levels = np.zeros((self.target.count, *whole.shape), np.float32)
        valid = np.zeros(whole.shape, np.bool_)
        for output in engine.outputs(self.scene, self.height, self.width):
            rows, cols = output.window.slices_in(whole)
            levels[:, rows, cols], valid[rows, cols] = output.levels, output.valid
        return levels, valid

    def _sampled(self) -> list[Moments]:
        """Statistics that stand in for those of a training set."""
        generator: Generator = self.generator
        levels = SceneLevels(self.scene, self.source, self.height, self.width)
        grid = CellGrid.plan(self.height, self.width, size=self.crop, stride=generator.stride)
        patches = []
        for cell in list(spread(grid))[:_TRAINED_CROPS]:
            values, valid = levels.read(grid.window(*cell))
            mask = torch.from_numpy(valid)[None, None]
            patches.append(Patch(torch.from_numpy(values)[None], mask))
        found = lockstep(generator, patches)
        generator.thaw()
        return found


def fitted(scene: Scene, height: int, width: int) -> Domain:
    """The domain of a scene, as `chip` would fit it."""
    pixels, valid = scene.read(Window(0, 0, height, width))
    bands: list[Any] = []
    for band, values in zip(scene.bands, pixels, strict=True):
        sketch = BandSketch(values.dtype.name)
        sketch.update(values[valid])
        bands.append(BandInfo(fit_scaling(ScaleSpec.parse("auto"), sketch, band.label)))
    return Domain(tuple(bands), scene.dtype, scene.nodata)
