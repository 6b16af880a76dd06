"""Peak memory of inference against the size of the scene.

Each scene is translated in a process of its own, whose peak resident set is the figure. The
generator is tiny, so that reading, tiling and writing dominate.

    python benchmarks/infer.py memory --sizes 5000,20000 --layout tiled,striped
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

BANDS_IN, BANDS_OUT = 2, 3


def make_scene(path: Path, width: int, height: int, layout: str) -> None:
    """Write a synthetic scene, two 16-bit bands, window by window."""
    import numpy as np
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512} if layout == "tiled" else {}
    rng = np.random.default_rng(0)
    texture = rng.gamma(2.0, 400.0, (BANDS_IN, 512, width)).astype(np.uint16)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        BIGTIFF="IF_SAFER",
        height=height,
        width=width,
        count=BANDS_IN,
        dtype="uint16",
        crs="EPSG:32630",
        transform=Affine(10, 0, 5e5, 0, -10, 4e6),
        compress="LZW",
        **tiles,
    ) as dataset:
        for row in range(0, height, 512):
            rows = min(512, height - row)
            shifted = np.roll(texture, row, axis=2)[:, :rows]
            dataset.write(shifted, window=Window(0, row, width, rows))


def translate(scene_path: Path, out: Path, tile: int, mode: str) -> None:
    """Translate a scene with a tiny generator and print the peak memory as JSON (in a child)."""
    import torch

    from geocyclegan.bundle import Bundle
    from geocyclegan.inference.engine import EngineOptions
    from geocyclegan.inference.options import TranslateOptions
    from geocyclegan.inference.statistics import NormStats
    from geocyclegan.inference.translate import translate_scene_with
    from geocyclegan.models.resnet import ResNetGenerator
    from geocyclegan.raster.domain import BandInfo, Domain
    from geocyclegan.raster.radiometry import BandScaling

    torch.manual_seed(0)
    band = BandInfo(BandScaling("linear", (0.0, 4000.0), (-1.0, 1.0)))
    source = Domain((band,) * BANDS_IN, "uint16", None, 10.0)
    target = Domain((band,) * BANDS_OUT, "uint8", None, 10.0)
    network = ResNetGenerator(BANDS_IN, BANDS_OUT, width=2, blocks=1).eval()
    bundle = Bundle(
        folder=Path(),
        method="benchmark",
        generators={},
        domains={"a": source, "b": target},
        normalization={},
        tile=tile,
        training={},
        weights_sha256="",
        created_by="benchmark",
    )
    options = TranslateOptions(
        norm_stats=cast(NormStats, mode), engine=EngineOptions(tile=tile, window=256)
    )
    started = time.perf_counter()
    translate_scene_with(str(scene_path), out, bundle, network, options)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": peak, "seconds": seconds}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument(
        "--sizes", default="5000,20000", help="pixels per side, or 5000x40000: width and height"
    )
    parser.add_argument("--layout", default="tiled,striped", help="how the scene is stored")
    parser.add_argument("--norm-stats", default="dense,tile", help="modes")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Print a row for each layout, mode and size."""
    if args.child:
        scene, out = args.child
        translate(scene, out, args.tile, args.norm_stats)
        return
    head = f"{'layout':8} {'mode':7} {'px':>12}"
    print(f"{head} {'peak MiB':>9} {'against smallest':>17} {'MP/s':>6}")
    for layout, mode in itertools.product(args.layout.split(","), args.norm_stats.split(",")):
        first = 0.0
        for text in args.sizes.split(","):
            width, height = map(int, text.split("x") if "x" in text else (text, text))
            figures = measure(width, height, layout, mode, args.tile)
            first = first or figures["peak_mib"]
            print(
                f"{layout:8} {mode:7} {text:>12} {figures['peak_mib']:9.0f}"
                f" {figures['peak_mib'] / first - 1:+17.1%}"
                f" {width * height / 1e6 / figures['seconds']:6.1f}",
                flush=True,
            )


def measure(width: int, height: int, layout: str, mode: str, tile: int) -> dict[str, float]:
    """Translate a scene in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder) / "scene.tif", Path(folder) / "product.tif"
        make_scene(scene, width, height, layout)
        script = str(Path(__file__).with_name("infer.py"))
        command = [sys.executable, script, "memory", "--tile", str(tile), "--norm-stats", mode]
        done = subprocess.run(
            [*command, "--child", str(scene), str(out)], check=True, capture_output=True, text=True
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
