"""Which statistics translate best, and which show seams: trained adversarially, against truth.

    python benchmarks/norms.py joplin=pre.tif,post.tif spain=s1.tif,s2.tif --work DIR --steps 150

Each set is a scene of A and a co-registered scene of B, which is put on A's grid. Training sees the
left part of both as unpaired chips; the right part is held aside. With --pairs N, N windows of the
left part tell the meaning (`train --pairs`): unpaired training may settle on its opposite, and the
error of such a model says little about statistics. For each training regime and seed a model is
trained with equal steps and equal crops, translates the whole scene in each mode, and is compared
with B on the part held aside. Mean error is in 8-bit levels of B's range, correlation is the mean
over bands; TIE compares tiles of 128 and 384 px, seam z looks at tiles of 128 px. "naive" is tiles
with their own statistics and no halo, which is what most tools do.

Finished models and rows are kept in --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geocyclegan.bundle import load_bundle
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.seams import LEVELS_PER_UNIT, seam_z, tile_invariance_error
from geocyclegan.inference.statistics import NormStats, StatisticsOptions
from geocyclegan.raster.picture import picture, save_png
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

REGIMES = {"instance": ["--batch", "4"], "scene": ["--scene-crops", "4"]}
MODES = ("naive", "tile", "frozen", "sample", "exact", "dense")
DEFAULTS = {"instance": "dense", "scene": "frozen"}
CUT, OTHER = 128, 384

Levels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Row = dict[str, float | int | str]


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=A,B")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=0, help="windows told as pairs")
    parser.add_argument("--most", type=int, default=1024, help="px of a scene's side, at most")
    parser.add_argument("--held", type=float, default=0.3, help="share of columns held aside")
    args = parser.parse_args()
    sets = [Set.prepare(text, args) for text in args.sets]
    rows: list[Row] = []
    for seed in map(int, args.seeds.split(",")):
        for entry in sets:
            for norm in REGIMES:
                rows += entry.measured(norm, seed)
    print_table(rows)


class Set:
    """A pair of scenes, cut and put on one grid."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args = name, args
        self.folder: Path = args.work / name

    @classmethod
    def prepare(cls, text: str, args: argparse.Namespace) -> Set:
        """Cut both scenes, and chip the part that training may see."""
        name, _, paths = text.partition("=")
        made = cls(name, args)
        if not (made.folder / "chips" / "chips.parquet").exists():
            made.folder.mkdir(parents=True, exist_ok=True)
            made._cut(*paths.split(","))
            for domain in ("a", "b"):
                made._run("chip", f"left_{domain}.tif", "--domain", domain, "--size", args.crop,
                          "--stride", args.crop // 2, "--val", 0, "--out", "chips",
                          "--overwrite")  # fmt: skip
            if args.pairs:
                made._run("chip", "left_a.tif", "--pair", "left_b.tif", "--size", args.crop,
                          "--random", args.pairs, "--val", 0, "--out", "pairs",
                          "--overwrite")  # fmt: skip
        return made

    def measured(self, norm: str, seed: int) -> list[Row]:
        """Train a model unless it is there, and measure it in all modes."""
        run = f"{norm}-{seed}"
        kept = self.folder / f"{run}.json"
        hints = ["--pairs", "pairs"] if self.args.pairs else []
        if not kept.exists():
            if not (self.folder / "runs" / run / "done").exists():
                self._run("train", "chips", "--name", run, "--norm", norm, *REGIMES[norm],
                          "--generator", "resnet6", "--width", self.args.width, "--seed", seed,
                          "--steps", self.args.steps, "--crop", self.args.crop, "--device", "cpu",
                          "--panel-every", 0, "--val-every", 0, "--save-every", self.args.steps,
                          "--overwrite", *hints)  # fmt: skip
                (self.folder / "runs" / run / "done").touch()
            kept.write_text(json.dumps(list(self._rows(norm, seed))))
        return cast(list[Row], json.loads(kept.read_text()))

    def _cut(self, path_a: str, path_b: str) -> None:
        with rasterio.open(path_a) as a:
            height, width = min(a.height, self.args.most), min(a.width, self.args.most)
            window = rasterio.windows.Window(0, 0, width, height)
            grid = {"crs": a.crs, "transform": a.transform, "height": a.height, "width": a.width}
            with (
                rasterio.open(path_b) as opened,
                WarpedVRT(opened, resampling=Resampling.bilinear, **grid) as b,
            ):
                for domain, dataset in (("a", a), ("b", b)):
                    for part, columns in (("whole", width), ("left", self.columns(width))):
                        self._write(f"{part}_{domain}.tif", dataset, replace_width(window, columns))

    def columns(self, width: int) -> int:
        """Columns that training may see."""
        return int(width * (1 - self.args.held))

    def _write(self, name: str, dataset: Any, window: Any) -> None:
        profile = {
            "driver": "GTiff", "count": dataset.count, "dtype": dataset.dtypes[0],
            "crs": dataset.crs, "transform": dataset.window_transform(window),
            "width": window.width, "height": window.height, "nodata": dataset.nodata,
        }  # fmt: skip
        with rasterio.open(self.folder / name, "w", **profile) as out:
            out.write(dataset.read(window=window))
            out.descriptions = dataset.descriptions
            out.colorinterp = dataset.colorinterp

    def _rows(self, norm: str, seed: int) -> Iterator[Row]:
        bundle = load_bundle(self.folder / "runs" / f"{norm}-{seed}")
        source, target = bundle.source("a2b"), bundle.target("a2b")
        trained = bundle.statistics("a2b")
        with Scene(str(self.folder / "whole_b.tif")) as scene:
            height, width = scene.grid.shape
            pixels, truth_valid = scene.read(Window(0, 0, height, width))
        truth = target.to_levels(pixels, truth_valid)
        held = np.zeros((height, width), np.bool_)
        held[:, self.columns(width) :] = True
        with Scene(str(self.folder / "whole_a.tif"), amplitude=source.amplitude) as scene:
            for mode in MODES:
                generator = bundle.generator("a2b")
                if mode == "naive":
                    generator.halo = 0
                asked = cast(NormStats, "tile" if mode == "naive" else mode)
                options = EngineOptions(
                    tile=CUT, window=bundle.tile, statistics=StatisticsOptions(mode=asked)
                )
                known = trained if mode == "frozen" else None
                engines = [
                    TileEngine(generator, source, target, torch.device("cpu"), cut, known)
                    for cut in (options, replace(options, tile=OTHER))
                ]
                (levels, valid), (other, _) = (
                    translated(engine, scene, target.count, height, width) for engine in engines
                )
                where = held & valid & truth_valid
                tie = tile_invariance_error(levels, other, valid)
                yield {
                    "set": self.name, "norm": norm, "seed": seed, "mode": mode,
                    "error": float(np.abs(levels - truth)[:, where].mean()) * LEVELS_PER_UNIT,
                    "correlation": correlation(levels[:, where], truth[:, where]),
                    "tie_mean": tie.mean, "tie": tie.max,
                    "z1": seam_z(levels, CUT, width=1, valid=valid),
                    "z16": seam_z(levels, CUT, width=16, valid=valid),
                }  # fmt: skip
                save_png(self.folder / f"{norm}-{seed}-{mode}.png", picture(target, levels, valid))

    def _run(self, *words: object) -> None:
        command = [sys.executable, "-m", "geocyclegan", "-q", "--progress", "none"]
        subprocess.run([*command, *map(str, words)], cwd=self.folder, check=True)


def replace_width(window: Any, columns: int) -> Any:
    """The same window with another width."""
    return rasterio.windows.Window(window.col_off, window.row_off, columns, window.height)


def translated(
    engine: TileEngine, scene: Scene, bands: int, height: int, width: int
) -> tuple[Levels, Mask]:
    """Translate a scene to levels in memory."""
    whole = Window(0, 0, height, width)
    levels, valid = np.zeros((bands, height, width), np.float32), np.zeros((height, width), bool)
    for output in engine.outputs(scene, height, width):
        rows, cols = output.window.slices_in(whole)
        levels[:, rows, cols], valid[rows, cols] = output.levels, output.valid
    return levels, valid


def correlation(one: Levels, other: Levels) -> float:
    """Pearson's r, the mean over bands that vary."""
    pairs = [(x, y) for x, y in zip(one, other, strict=True) if x.std() > 0 and y.std() > 0]
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs])) if pairs else 0.0


def print_table(rows: list[Row]) -> None:
    """Means over seeds, with the range of the error."""
    print(
        "| set | trained with | mode | error | seeds | r | TIE mean | TIE max | z 1 px | z 16 px |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["set"]), str(row["norm"]), str(row["mode"])), []).append(row)
    for (name, norm, mode), found in sorted(
        groups.items(), key=lambda item: (item[0][0], item[0][1], MODES.index(item[0][2]))
    ):
        mean = {
            key: float(np.mean([float(row[key]) for row in found]))
            for key in ("error", "correlation", "tie_mean", "z1", "z16")
        }
        tie = max(float(row["tie"]) for row in found)
        seeds = ", ".join(f"{float(row['error']):.1f}" for row in found)
        chosen = "**" if DEFAULTS[norm] == mode else ""
        print(
            f"| {name} | --norm {norm} | {chosen}{mode}{chosen} | {mean['error']:.2f} | {seeds} |"
            f" {mean['correlation']:.2f} | {mean['tie_mean']:.3f} | {tie:.4f} |"
            f" {mean['z1']:.1f} | {mean['z16']:.1f} |"
        )


if __name__ == "__main__":
    main()
