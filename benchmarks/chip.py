"""How fast scenes become chips: against loops of GDAL windows, and against the bare limit.

All in one run on one machine, each in processes of its own, on as many cores:

- `geocyclegan chip` as it is: statistics, filters, masks, hashes, manifest, all of it;
- (a) a loop that reads a window and writes a chip, as scripts around gdal_translate do: with
  gdal_retile.py or gdal_translate themselves where they are installed, with rasterio otherwise,
  plain, and in two processes;
- (b) the limit: each source block decoded once and each chip encoded once in memory.

Peak memory is the largest resident set of one process. CPU seconds are those of all processes: on a
machine with other work they say more than the clock does.

    python benchmarks/chip.py --side 10000 --bands 4
    python benchmarks/chip.py --side 5000 --bands 13 --dtype float32
    python benchmarks/chip.py --memory
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SIZE = 256
BLOCK = 512
DEFAULT_CODEC = {"compress": "zstd", "zstd_level": 1}
DEFLATE = {"compress": "deflate", "zlevel": 1}
ZSTD_9 = {"compress": "zstd", "zstd_level": 9}


def make_scene(path: Path, side: int, bands: int, block: int, dtype: str = "uint16") -> None:
    """Write a synthetic scene with texture at several scales, compressed by deflate."""
    import numpy as np
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    rng = np.random.default_rng(0)
    rows = max(block, BLOCK)
    texture = np.full((bands, rows, side), 2000.0, np.float32)
    for scale in (4, 16, 64, 256):
        shape = (bands, -(-rows // scale), -(-side // scale))
        coarse = rng.normal(0.0, 20.0 * scale**0.5, shape).astype(np.float32)
        texture += coarse.repeat(scale, 1).repeat(scale, 2)[:, :rows, :side]
    texture += rng.normal(0.0, 15.0, texture.shape).astype(np.float32)
    pixels = np.clip(texture, 1, 10_000)
    if dtype == "uint8":
        pixels = np.clip(pixels / 16, 1, 255)
    pixels = pixels.astype(dtype)
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block} if block > 1 else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=bands,
        dtype=dtype,
        crs="EPSG:32630",
        transform=Affine(10, 0, 5e5, 0, -10, 4e6),
        compress="deflate",
        predictor=3 if dtype.startswith("float") else 2,
        bigtiff="IF_SAFER",
        interleave="band",
        **tiles,
    ) as dataset:
        for row in range(0, side, rows):
            height = min(rows, side - row)
            shifted = np.roll(pixels, 7 * row, axis=2)[:, :height]
            dataset.write(shifted, window=Window(0, row, side, height))


def profile_of(scene: Any, codec: dict[str, Any]) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "count": scene.count,
        "height": SIZE,
        "width": SIZE,
        "dtype": scene.dtypes[0],
        "crs": scene.crs,
        "predictor": 3 if scene.dtypes[0].startswith("float") else 2,
        "interleave": "band",
        "blockysize": SIZE,
        **codec,
    }


def copy_windows(task: tuple[Path, Path, dict[str, Any], int, int]) -> None:
    """Copy every `step`-th row of windows, one by one: what loops around gdal_translate do."""
    import rasterio
    from rasterio.windows import Window

    path, out, codec, first, step = task
    with rasterio.open(path) as scene:
        profile = profile_of(scene, codec)
        for row in range(first * SIZE, scene.height - SIZE + 1, step * SIZE):
            for col in range(0, scene.width - SIZE + 1, SIZE):
                window = Window(col, row, SIZE, SIZE)
                profile["transform"] = scene.window_transform(window)
                with rasterio.open(out / f"{row}_{col}.tif", "w", **profile) as chip:
                    chip.write(scene.read(window=window))


def bare(task: tuple[Path, dict[str, Any], int, int]) -> None:
    """Decode rows of blocks and encode their chips in memory: nothing is looked at or kept."""
    import numpy as np
    import rasterio
    from rasterio.io import MemoryFile
    from rasterio.windows import Window

    path, codec, first, step = task
    with rasterio.open(path) as scene:
        profile = profile_of(scene, codec) | {"transform": scene.transform}
        for row in range(first * BLOCK, scene.height, step * BLOCK):
            height = min(BLOCK, scene.height - row)
            strip = scene.read(window=Window(0, row, scene.width, height))
            for top in range(0, height - SIZE + 1, SIZE):
                for left in range(0, scene.width - SIZE + 1, SIZE):
                    chip = np.ascontiguousarray(strip[:, top : top + SIZE, left : left + SIZE])
                    with MemoryFile() as memory, memory.open(**profile) as file:
                        file.write(chip)


def spread(function: Callable[[Any], None], tasks: list[Any]) -> None:
    if len(tasks) == 1:
        function(tasks[0])
        return
    with get_context("spawn").Pool(len(tasks)) as pool:
        pool.map(function, tasks)


def run_child(what: str, scene: Path, out: Path, workers: int, codec: dict[str, Any]) -> None:
    """Do one thing in this process and print seconds and peak memory as JSON."""
    started = time.perf_counter()
    if what == "chip":
        from geocyclegan.chips.chipfile import Codec
        from geocyclegan.chips.options import ChipOptions
        from geocyclegan.chips.tiler import chip_scenes

        compress = Codec(codec["compress"])
        if compress.profile("uint16").items() < codec.items():
            raise SystemExit(f"chip does not write {codec}")
        given = ChipOptions(out=out, size=SIZE, edge="drop", workers=workers, compress=compress)
        chip_scenes([scene], given)
    elif what == "make":
        make_scene(scene, *codec["scene"])
    elif what == "limit":
        spread(bare, [(scene, codec, i, workers) for i in range(workers)])
    elif what == "loop":
        out.mkdir()
        spread(copy_windows, [(scene, out, codec, i, workers) for i in range(workers)])
    elif what == "gdal_retile.py":
        out.mkdir()
        options = ["-co", "COMPRESS=DEFLATE", "-co", "PREDICTOR=2", "-q"]
        options += ["-co", f"ZLEVEL={codec['zlevel']}"]
        command = [what, "-ps", str(SIZE), str(SIZE), *options, "-targetDir", str(out)]
        subprocess.run([*command, str(scene)], check=True)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    usage = [resource.getrusage(kind) for kind in kinds]
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu": sum(used.ru_utime + used.ru_stime for used in usage),
        "peak_mib": peak,
    }
    print(json.dumps(figures))


def measure(
    what: str, scene: Path, folder: Path, workers: int, codec: dict[str, Any], repeat: int
) -> dict[str, float]:
    """Run a child a few times; the fastest counts, since the machine has other work."""
    best: dict[str, float] = {}
    for _ in range(repeat):
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        task = json.dumps([what, str(scene), str(out), workers, codec])
        done = subprocess.run(
            [sys.executable, __file__, "--child", task], check=True, capture_output=True, text=True
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        best = min(best, figures, key=lambda f: f["seconds"]) if best else figures
        if out.exists():
            best["mib"] = sum(f.stat().st_size for f in out.rglob("*.tif")) / 1e6 / 1.048576
    return best


def make_in_child(path: Path, side: int, bands: int, block: int, dtype: str = "uint16") -> None:
    """Make the scene in another process: a child inherits the peak memory of this one."""
    measure("make", path, path.parent, 1, {"scene": [side, bands, block, dtype]}, 1)


def compare(side: int, bands: int, dtype: str, workers: int, repeat: int, folder: Path) -> None:
    scene = folder / "scene.tif"
    make_in_child(scene, side, bands, BLOCK, dtype)
    chips = (side // SIZE) ** 2
    print(
        f"{side} x {side} px, {bands} bands of {dtype}, deflate in blocks of {BLOCK} px,"
        f" {scene.stat().st_size / 1e6:.0f} MB; {chips} chips of {SIZE} px; {workers} processes,"
        f" {os.cpu_count()} cores; best of {repeat}"
    )
    runs: list[tuple[str, str, dict[str, Any], int]] = [
        ("bare limit, default codec", "limit", DEFAULT_CODEC, workers),
        ("geocyclegan chip", "chip", DEFAULT_CODEC, workers),
        ("window loop, default codec", "loop", DEFAULT_CODEC, 1),
        ("  in processes", "loop", DEFAULT_CODEC, workers),
        ("bare limit, ZSTD level 9", "limit", ZSTD_9, workers),
        ("bare limit, deflate", "limit", DEFLATE, workers),
        ("geocyclegan chip, deflate", "chip", DEFLATE, workers),
        ("window loop, deflate", "loop", DEFLATE, 1),
        ("  in processes", "loop", DEFLATE, workers),
    ]
    if shutil.which("gdal_retile.py"):
        runs.append(("gdal_retile.py, deflate", "gdal_retile.py", DEFLATE, 1))
    else:
        print("gdal_retile.py is not installed: the loops are rasterio's")
    found: dict[str, float] = {}
    print(f"{'':28} {'s':>7} {'CPU s':>7} {'chips/s':>8} {'peak MiB':>9} {'chips MB':>9}")
    for label, what, codec, processes in runs:
        figures = measure(what, scene, folder, processes, codec, repeat)
        key = "zstd 9" if codec is ZSTD_9 else codec["compress"]
        found[f"{what} {key} {processes}"] = figures["seconds"]
        found[f"cpu {what} {key} {processes}"] = figures["cpu"]
        size = f"{figures['mib']:9.0f}" if "mib" in figures else f"{'-':>9}"
        print(
            f"{label:28} {figures['seconds']:7.2f} {figures['cpu']:7.2f}"
            f" {chips / figures['seconds']:8.0f} {figures['peak_mib']:9.0f} {size}",
            flush=True,
        )

    def cpu_of(one: str, other: str) -> float:
        return found[f"cpu {one}"] / found[f"cpu {other} {workers}"]

    ours = found[f"chip zstd {workers}"]
    print(f"chip against the bare limit:            {found[f'limit zstd {workers}'] / ours:.2f}")
    share = cpu_of(f"limit zstd {workers}", "chip zstd")
    print(f"  in CPU seconds:                       {share:.2f}")
    print(f"  with GDAL's own level of the codec:   {found[f'limit zstd 9 {workers}'] / ours:.2f}")
    print(f"chip against the loop, same codec:      {found['loop zstd 1'] / ours:.2f}")
    print(f"  and in as many processes:             {found[f'loop zstd {workers}'] / ours:.2f}")
    print(f"  CPU seconds, loop against chip:       {cpu_of('loop zstd 1', 'chip zstd'):.2f}")
    theirs = found[f"chip deflate {workers}"]
    print(f"both with deflate:                      {found['loop deflate 1'] / theirs:.2f}")
    print(
        f"  and in as many processes:             {found[f'loop deflate {workers}'] / theirs:.2f}"
    )
    print(
        f"chip, default codec, against the loop with deflate: {found['loop deflate 1'] / ours:.2f}"
    )
    if "gdal_retile.py deflate 1" in found:
        retile = found["gdal_retile.py deflate 1"]
        print(f"gdal_retile.py against chip, both deflate: {retile / theirs:.2f}")


def memory(workers: int, folder: Path) -> None:
    print(f"{'layout':8} {'side px':>8} {'peak MiB':>9} {'against smallest':>17}")
    for layout, block in (("tiled", BLOCK), ("strips", 1)):
        first = 0.0
        for side in (5000, 10_000, 20_000):
            scene = folder / "scene.tif"
            make_in_child(scene, side, 2, block)
            peak = measure("chip", scene, folder, workers, DEFAULT_CODEC, 1)["peak_mib"]
            first = first or peak
            print(f"{layout:8} {side:8} {peak:9.0f} {peak / first - 1:+17.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_000, help="pixels per side")
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--dtype", default="uint16", choices=["uint8", "uint16", "float32"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure peak memory against size")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, scene, out, workers, codec = json.loads(args.child)
        run_child(what, Path(scene), Path(out), workers, codec)
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.memory:
            memory(args.workers, Path(folder))
        else:
            compare(args.side, args.bands, args.dtype, args.workers, args.repeat, Path(folder))


if __name__ == "__main__":
    main()
