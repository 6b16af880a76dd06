"""Do a few pairs turn a flipped meaning? Trains with and without hints, and compares with truth.

    python benchmarks/pairs.py AERIAL MAP --steps 600 --widths 16 --seeds 0 1 --out pairs.txt

Both scenes must show one place on Earth. They are cut into chips on one grid; blocks of `--val` of
the windows are held out, in both domains. Training is unpaired: each step draws a chip of A and one
of B. Runs "with hints" also get `--pairs` of the training windows as pairs. For each seed the table
gives the correlation of A to B (and of B to A) with the truth on the held-out windows, as
`validation.csv` records it, and the time is not measured.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import logging
import platform
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from geocyclegan.bundle import load_bundle
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.pairs import require_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs
from geocyclegan.raster.picture import picture
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train


def main() -> None:
    """Chip, train every run, print the table."""
    options = _arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    work = Path(options.work or tempfile.mkdtemp(prefix="pairs-"))
    chips, hints = work / "chips", work / "hints"
    chip_options = ChipOptions(out=chips, size=options.size, val=options.val, overwrite=True)
    chip_pairs([options.a], [options.b], chip_options, replace(chip_options, domain="b"))
    train_a, train_b = ChipSet.open(chips, "a"), ChipSet.open(chips, "b")
    _copy_pairs(chips, hints, train_a, train_b, options.pairs)
    held = len(ChipSet.open(chips, "a", "val"))
    lines = [
        f"$ {shlex.join(['python', 'benchmarks/pairs.py', *_shown(sys.argv[1:])])}",
        f"{datetime.date.today()}, torch {torch.__version__}, {platform.machine()} CPU,"
        f" {torch.get_num_threads()} thread(s)",
        f"{len(train_a)} training windows of {options.size} px in each domain, {held} held out,"
        f" {options.pairs} pairs as hints (weight {options.weight:g})",
        "correlation with the truth on held-out windows, mean over the bands, by step",
        "",
        _row(["width", "seed", "hints", "direction", *(str(s) for s in _steps(options))]),
    ]
    for width in options.widths:
        for seed in options.seeds:
            for hinted in (False, True):
                run = _train(options, work, chips, hints if hinted else None, width, seed)
                lines += _rows(run, width, seed, hinted)
                print("\n".join(lines[-2:]), flush=True)
    lines += ["", "signs: " + "; ".join(_summary(lines))]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        Path(options.out).write_text(text, encoding="utf-8")
    if options.picture:
        _draw(options, work, chips)
    if not options.work:
        shutil.rmtree(work)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("a", help="scene of domain A")
    parser.add_argument("b", help="scene of domain B, of the same place")
    parser.add_argument("--size", type=int, default=128, help="side of chips and crops in pixels")
    parser.add_argument("--val", type=float, default=0.3, help="share of windows held out")
    parser.add_argument("--pairs", type=int, default=5, help="pairs that are told")
    parser.add_argument("--weight", type=float, default=10.0, help="--pair-weight")
    parser.add_argument("--widths", type=int, nargs="+", default=[16])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--generator", default="resnet6")
    parser.add_argument("--out", help="text file for the table")
    parser.add_argument(
        "--picture", help="JPEG or PNG: A, truth, without, with hints, seed by seed"
    )
    parser.add_argument("--work", help="folder for chips and runs, kept; a temporary one otherwise")
    return parser.parse_args()


def _shown(arguments: list[str]) -> list[str]:
    """The arguments without the folders of this machine."""
    return [Path(each).name if Path(each).suffix == ".tif" else each for each in arguments]


def _copy_pairs(chips: Path, hints: Path, a: ChipSet, b: ChipSet, count: int) -> None:
    """Put some of the training pairs into a folder of their own, evenly spread."""
    pairs = require_pairs(chips, a, b)
    shutil.rmtree(hints, ignore_errors=True)
    for domain in "ab":
        (hints / f"train_{domain}").mkdir(parents=True)
    for k in range(count):
        i, j = pairs[(2 * k + 1) * len(pairs) // (2 * count)]
        shutil.copy(a.paths[i], hints / "train_a")
        shutil.copy(b.paths[j], hints / "train_b")


def _steps(options: argparse.Namespace) -> list[int]:
    every = _every(options)
    return [*range(every, options.steps, every), options.steps]


def _every(options: argparse.Namespace) -> int:
    return max(1, int(options.steps) // 4)


def _name(width: int, seed: int, hinted: bool) -> str:
    return f"w{width}-s{seed}-{'hints' if hinted else 'plain'}"


def _train(
    options: argparse.Namespace, work: Path, chips: Path, hints: Path | None, width: int, seed: int
) -> Path:
    config = TrainConfig(
        chips=chips,
        out=work / "runs",
        name=_name(width, seed, hints is not None),
        generator=options.generator,
        width=width,
        crop=options.size,
        steps=options.steps,
        seed=seed,
        device="cpu",
        save_every=options.steps,
        panel_every=0,
        val_every=_every(options),
        pairs=hints,
        pair_weight=None if hints is None else options.weight,
    )
    return train(config, overwrite=True).run


def _rows(run: Path, width: int, seed: int, hinted: bool) -> list[str]:
    with open(run / "validation.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [
        _row(
            [str(width), str(seed), "yes" if hinted else "no", way]
            + [f"{float(row[f'r_{way}']):+.3f}" for row in found]
        )
        for way in ("a2b", "b2a")
    ]


def _row(cells: list[str]) -> str:
    return " ".join(f"{cell:>9}" for cell in cells)


def _summary(lines: list[str]) -> list[str]:
    found = []
    for hints in ("no", "yes"):
        last = [
            float(cells[-1])
            for cells in map(str.split, lines)
            if len(cells) > 4 and cells[2] == hints and cells[3] == "a2b"
        ]
        wrong = sum(value < 0 for value in last)
        label = "with" if hints == "yes" else "without"
        found.append(f"{label} hints {wrong} of {len(last)} runs negative for A to B")
    return found


def _draw(options: argparse.Namespace, work: Path, chips: Path) -> None:
    """Draw held-out windows, their truth and what each run of the first width makes of them."""
    a, b = ChipSet.open(chips, "a", "val"), ChipSet.open(chips, "b", "val")
    pairs = require_pairs(chips, a, b)
    columns = []
    for i, j in [pairs[(2 * k + 1) * len(pairs) // 8] for k in range(4)]:
        (seen, valid), (truth, known) = a.read(i), b.read(j)
        levels = a.domain.to_levels(seen, valid)
        rows = [
            picture(a.domain, levels, valid),
            picture(b.domain, b.domain.to_levels(truth, known), known),
        ]
        for seed in options.seeds:
            for hinted in (False, True):
                name = _name(options.widths[0], seed, hinted)
                bundle = load_bundle(work / "runs" / name / "model")
                generator = bundle.generator("a2b")
                with torch.no_grad():
                    out = generator(torch.from_numpy(levels)[None])[0].numpy()
                rows.append(picture(b.domain, out, valid))
        columns.append(np.concatenate([np.pad(row, ((0, 4), (0, 4), (0, 0))) for row in rows]))
    Image.fromarray(np.concatenate(columns, axis=1)).save(options.picture, quality=85)


if __name__ == "__main__":
    main()
