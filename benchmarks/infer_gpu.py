"""A GPU's share of its matrix rate, and the time of a full scene with reading and writing.

The matrix rate is that of products of large bf16 matrices in the same run. The generator's rate is
its multiply-adds on the pixels of the tiles, halos included, over the time of their forward passes;
end to end counts the scene's own pixels, from opening it to the finished Cloud-Optimised GeoTIFF.

    python benchmarks/infer.py gpu --size 10980
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.infer_memory import make_scene
from benchmarks.infer_speed import make_bundle
from geocyclegan.device import choose_device
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.precision import choose_precision
from geocyclegan.inference.statistics import NormStats
from geocyclegan.inference.translate import load_generator, translate_scene_with
from geocyclegan.models import Generator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--size", type=int, default=10980, help="pixels per side of the scene")
    parser.add_argument("--generator", default="resnet9")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--tiles", default="512,1024,2048", help="sides of tiles to compare")
    parser.add_argument("--batches", default="1,4", help="tiles per forward pass to compare")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--norm-stats", default="frozen")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")


def run(args: argparse.Namespace) -> None:
    """Print the matrix rate, the rate of forward passes, and the time of whole scenes."""
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    dtype = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {precision}, {args.generator}, width {args.width}")
    peak = matrix_rate(args.matrix, dtype, device, args.repeats)
    print(f"matrix products of {args.matrix}²: {peak / 1e12:.1f} TFLOP/s")
    tiles = [int(text) for text in args.tiles.split(",")]
    batches = [int(text) for text in args.batches.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        make_scene(scene, args.size, args.size, "tiled")
        bundle = make_bundle(Path(folder) / "model", args.generator, args.width)
        options = TranslateOptions(
            device=device,
            precision=precision,
            norm_stats=cast(NormStats, args.norm_stats),
        )
        network = load_generator(bundle, options)
        network.freeze(bundle.statistics("a2b") or [])
        print(f"{'tile':>6} {'batch':>6} {'Mpix/s':>8} {'of matrix rate':>15}   (forward passes)")
        for tile in tiles:
            for batch in batches:
                rate = forward_rate(network, tile, batch, device, args.repeats)
                share = rate * flops_per_pixel(network) / peak
                print(f"{tile:6} {batch:6} {rate / 1e6:8.1f} {share:15.1%}", flush=True)
        print(f"{'tile':>6} {'batch':>6} {'Mpix/s':>8} {'seconds':>8}   (file to file)")
        for side in [None, *tiles]:
            cut = EngineOptions(tile=side, window=256)
            given = TranslateOptions(
                device=device,
                precision=options.precision,
                norm_stats=options.norm_stats,
                engine=cut,
            )
            seconds = []
            for turn in range(args.repeats):
                out = Path(folder) / f"product{turn}.tif"
                seconds.append(
                    timed(
                        lambda out=out, given=given: translate_scene_with(  # type: ignore[misc]
                            str(scene), out, bundle, network, given
                        ),
                        device,
                    )
                )
                out.unlink()
            best = min(seconds)
            print(
                f"{side or 'auto':>6} {'auto':>6} {args.size**2 / best / 1e6:8.1f} {best:8.2f}",
                flush=True,
            )


def matrix_rate(side: int, dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Floating-point operations per second of matrix products, the best of some."""
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    rounds = 20 if device.type == "cuda" else 1

    def products() -> None:
        for _ in range(rounds):
            torch.mm(a, b)

    timed(products, device)
    return 2.0 * side**3 * rounds / min(timed(products, device) for _ in range(repeats))


def forward_rate(
    network: Generator, tile: int, batch: int, device: torch.device, repeats: int
) -> float:
    """Pixels per second of forward passes over tiles with their halo, halos counted."""
    side = tile + 2 * (network.halo or 0)
    x = torch.rand(batch, network.in_channels, side, side, device=device) * 2 - 1

    def passes() -> None:
        with torch.inference_mode():
            network(x)

    timed(passes, device)
    return batch * side**2 / min(timed(passes, device) for _ in range(repeats))


def flops_per_pixel(network: Generator) -> float:
    """Floating-point operations per input pixel: two for each multiply-add of a convolution."""
    scale, total = 1, 0.0
    for step in network.plan:
        module: Any = step.module
        if isinstance(module, nn.Conv2d):
            scale *= module.stride[0]
            total += 2.0 * module.weight.numel() / scale**2
        elif isinstance(module, nn.ConvTranspose2d):
            # Each pixel that goes in meets all weights.
            total += 2.0 * module.weight.numel() / scale**2
            scale //= module.stride[0]
    return total


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds that some work takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
