"""Megapixels per second end to end, against the bare generator forward on the same tiles.

End to end is everything from opening the scene to the finished Cloud-Optimised GeoTIFF, in mode
frozen. Bare is the forward pass on the same tiles, read and prepared before. Both are repeated in
turn, since machines are shared, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.infer_memory import make_scene
from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.device import choose_device
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.levels import Read, SceneLevels, to_tensors
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene_with
from geocyclegan.models import Generator, build_generator
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import tile_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--size", type=int, default=2048, help="pixels per side")
    parser.add_argument("--generator", default="resnet9")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")


def run(args: argparse.Namespace) -> None:
    """Print both rates and their ratio."""
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        make_scene(scene, args.size, args.size, "tiled")
        bundle = make_bundle(Path(folder) / "model", args.generator, args.width)
        network = bundle.generator("a2b", device)
        options = TranslateOptions(
            norm_stats="frozen",
            device=device,
            engine=EngineOptions(tile=args.tile, batch=args.batch),
        )
        bare, whole = [], []
        tiles = read_tiles(scene, bundle, network, args.tile)
        for turn in range(args.repeats):
            bare.append(forward(network, bundle, tiles, args.batch, device))
            out = Path(folder) / f"product{turn}.tif"
            started = time.perf_counter()
            translate_scene_with(str(scene), out, bundle, network, options)
            whole.append(time.perf_counter() - started)
    pixels = args.size**2 / 1e6
    print(f"{args.generator}, width {args.width}, {args.size}² px, tile {args.tile}, {device},")
    print(f"torch {torch.__version__}, {args.threads} threads, best of {args.repeats}")
    print(f"bare forward  {pixels / min(bare):8.3f} MP/s  {min(bare):8.2f} s")
    print(f"end to end    {pixels / min(whole):8.3f} MP/s  {min(whole):8.2f} s")
    print(f"share         {min(bare) / min(whole):8.3f}")


def make_bundle(folder: Path, generator: str, width: int) -> Bundle:
    """A model with random weights and statistics of random crops, from two bands to three."""
    torch.manual_seed(0)
    band = BandInfo(BandScaling("linear", (0.0, 4000.0), (-1.0, 1.0)))
    network = build_generator(generator, in_channels=2, out_channels=3, width=width).eval()
    found = lockstep(network, [Patch(torch.rand(2, 2, 64, 64) * 2 - 1)])
    save_bundle(
        folder,
        method="benchmark",
        generators={"a2b": (generator, network)},
        domains={
            "a": Domain((band,) * 2, "uint16", None, 10.0),
            "b": Domain((band,) * 3, "uint8", None, 10.0),
        },
        tile=256,
        training={},
        normalization={"kind": "instance", "pool": "scene", "statistics": {"crops": 2}},
        statistics={"a2b": found},
    )
    return load_bundle(folder)


def read_tiles(path: Path, bundle: Bundle, network: Generator, tile: int) -> list[Read]:
    """All tiles of a scene, with their halo."""
    with Scene(str(path)) as scene:
        height, width = scene.grid.shape
        levels = SceneLevels(scene, bundle.source("a2b"), height, width)
        plan = tile_plan(height, width, core=tile, halo=network.halo or 0, stride=network.stride)
        return [levels.read(each.read) for each in plan]


def forward(
    network: Generator, bundle: Bundle, tiles: list[Read], batch: int, device: torch.device
) -> float:
    """Seconds that the generator alone takes."""
    network.freeze(bundle.statistics("a2b") or [])
    batches = [to_tensors(tiles[i : i + batch], device) for i in range(0, len(tiles), batch)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.inference_mode():
        for x, mask in batches:
            network(x, mask)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
