"""Samples per second that reading gives, against what a step eats.

    python -m benchmarks.loader                     # 2, 3 and 13 bands, with and without memory
    python -m benchmarks.loader --bands 4 --step 0.05

Chips of random pixels are written first, as compressed GeoTIFFs, as `.npy`, and as the windows of a
scene that a virtual set has. `decoded` reads each chip from its file; `kept` finds it in memory.
With `--step`, seconds that a step takes for a sample of each domain, the last column says whether
reading keeps up. Mirrors and quarter turns are part of it, as for training on a CPU; `--turn-later`
leaves them to the device, as training on CUDA does. `--processes` compares threads with worker
processes instead, chips decoded each time: wall and CPU seconds for each sample, without what the
processes take to start.

    python -m benchmarks.loader --processes --bands 13 --kinds tif
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.multiprocessing
from affine import Affine

from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.methods import Batch
from geocyclegan.threads import prefetched
from geocyclegan.training.data import Batches
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.sampler import Sampler

KINDS = ("tif", "npy", "virtual")


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bands", type=int, nargs="+", default=[2, 3, 13])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=64, help="chips of each domain")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--samples", type=int, default=256, help="read for each line")
    parser.add_argument("--step", type=float, help="seconds of a step for each sample")
    parser.add_argument("--no-flip", action="store_true", help="no mirrors and quarter turns")
    parser.add_argument(
        "--turn-later", action="store_true", help="leave them to the device, as for CUDA"
    )
    parser.add_argument("--processes", action="store_true", help="against threads")
    args = parser.parse_args(words)
    if args.processes:
        compare(args)
        return
    print("chips    bands workers | decoded/s     kept/s" + ("   keeps up" if args.step else ""))
    for kind, bands in itertools.product(args.kinds, args.bands):
        with tempfile.TemporaryDirectory() as folder:
            chips = make_chips(Path(folder), kind, bands, args.size, args.count)
            for workers in args.workers:
                decoded = rate(chips, args, workers, kept=False)
                kept = rate(chips, args, workers, kept=True)
                said = ""
                if args.step:
                    enough = [
                        name
                        for name, r in (("decoded", decoded), ("kept", kept))
                        if r * args.step >= 1
                    ]
                    said = f"   {', '.join(enough) or 'no'}"
                print(f"{kind:8s} {bands:5d} {workers:7d} | {decoded:9.1f}  {kept:9.1f}{said}")


def rate(
    chips: tuple[ChipSet, ChipSet], args: argparse.Namespace, workers: int, *, kept: bool
) -> float:
    """Samples of both domains per second."""
    budget = Budget() if kept else Budget(0)
    readers = LevelReader(chips[0], budget), LevelReader(chips[1], budget)
    if kept:
        for reader in readers:
            for index in range(len(reader)):
                reader.read(index)
    batches = _batches(readers, args)
    steps = max(args.samples // args.batch, 2)
    ahead = prefetched(batches.load, range(steps), threads=workers)
    started = time.perf_counter()
    for _ in ahead:
        pass
    return float(steps * args.batch / (time.perf_counter() - started))


def _batches(readers: tuple[LevelReader, LevelReader], args: argparse.Namespace) -> Batches:
    a, b = readers
    return Batches(
        *(a, b, Sampler(len(a), len(b), args.batch, seed=0)),
        crop=args.size,
        flip=not args.no_flip,
        turn_later=args.turn_later,
    )


def compare(args: argparse.Namespace) -> None:
    """Print what a decoded sample costs in threads and in processes."""
    print("chips    bands workers kind      | wall ms  CPU ms")
    for kind, bands in itertools.product(args.kinds, args.bands):
        with tempfile.TemporaryDirectory() as folder:
            make_chips(Path(folder), kind, bands, args.size, args.count)
            root = Path(folder) if kind == "npy" else Path(folder) / "chips"
            for workers in args.workers:
                for name, pool in (("threads", _threads), ("processes", _processes)):
                    with pool(workers, (root, args)) as executor:
                        wall, cpu = _cost(executor, max(args.samples // args.batch, 2), workers)
                    print(
                        f"{kind:8s} {bands:5d} {workers:7d} {name:9s} |"
                        f" {wall / args.batch * 1e3:7.2f} {cpu / args.batch * 1e3:7.2f}",
                        flush=True,
                    )


_loader: Batches


def _open(root: Path, args: argparse.Namespace) -> None:
    global _loader
    torch.set_num_threads(1)
    a, b = ChipSet.open(root, "a"), ChipSet.open(root, "b")
    readers = LevelReader(a, Budget(0)), LevelReader(b, Budget(0))
    _loader = _batches(readers, args)


def _load(step: int) -> tuple[Batch, int, float, float]:
    before = time.process_time()
    return _loader.load(step), os.getpid(), before, time.process_time()


def _threads(workers: int, how: tuple[Path, argparse.Namespace]) -> Executor:
    _open(*how)
    return ThreadPoolExecutor(workers)


def _processes(workers: int, how: tuple[Path, argparse.Namespace]) -> Executor:
    # Batches come back in shared memory, as from a DataLoader of PyTorch.
    spawn = torch.multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, spawn, initializer=_open, initargs=how)


def _cost(executor: Executor, steps: int, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of a step."""
    list(executor.map(_load, range(workers * 4)))
    wall, own = time.perf_counter(), time.process_time()
    spans: dict[int, tuple[float, float]] = {}
    for _, pid, before, after in executor.map(_load, range(steps)):
        first, last = spans.get(pid, (before, after))
        spans[pid] = min(first, before), max(last, after)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    others = sum(last - first for pid, (first, last) in spans.items() if pid != os.getpid())
    return wall / steps, (own + others) / steps


def make_chips(
    folder: Path, kind: str, bands: int, size: int, count: int
) -> tuple[ChipSet, ChipSet]:
    """Write chips of both domains, of smooth random pixels, which compress as images do."""
    random = np.random.default_rng(0)
    for domain in "ab":
        if kind == "npy":
            target = folder / f"train_{domain}"
            target.mkdir()
            for i in range(count):
                np.save(target / f"{i:04d}.npy", _pixels(random, bands, size, size))
            continue
        side = int(np.ceil(count**0.5))
        scene = folder / f"{domain}.tif"
        with rasterio.open(
            scene,
            "w",
            driver="GTiff",
            count=bands,
            height=side * size,
            width=side * size,
            dtype="uint16",
            crs="EPSG:32630",
            transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6),
            tiled=True,
            compress="deflate",
            predictor=2,
        ) as dataset:
            dataset.write(_pixels(random, bands, side * size, side * size))
        options = ChipOptions(
            domain="a" if domain == "a" else "b",
            out=folder / "chips",
            size=size,
            val=0.0,
            virtual=kind == "virtual",
            workers=1,
        )
        chip_scenes([str(scene)], options)
    root = folder if kind == "npy" else folder / "chips"
    return ChipSet.open(root, "a"), ChipSet.open(root, "b")


def _pixels(
    random: np.random.Generator, bands: int, height: int, width: int
) -> npt.NDArray[np.uint16]:
    rough = random.uniform(500, 4000, (bands, height // 8, width // 8)).astype(np.uint16)
    pixels = rough.repeat(8, axis=1).repeat(8, axis=2)
    noise = random.integers(0, 50, pixels.shape, dtype=np.uint16)
    return np.add(pixels, noise, dtype=np.uint16)


if __name__ == "__main__":
    main()
