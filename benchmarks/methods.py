"""Compare methods on paired chips: error against truth, seconds per step, peak memory.

    python benchmarks/methods.py spain=s1.tif,s2.tif joplin=pre.tif,post.tif --work DIR --device cpu
    python benchmarks/methods.py chips/ [more/ ...] --width 64 --crop 256 --steps 2000 --device cuda

A set is a folder made by `chip --pair`, or NAME=A,B, two scenes that are chipped so into --work, or
NAME=A,B,LABELS with a raster of classes of A.
Without other options networks are small, for a CPU. Methods that need labels are left out where the
chips have none. Unpaired methods see the chips as loose images; the pairs of the validation set are
only looked at afterwards. Errors are mean absolute differences of levels, whose range is −1 to 1,
over pixels that are valid on both sides; "constant" is what the mean of the training chips of B
would score. Each run has a process of its own, so that peaks of memory do not mix; give the machine
nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from geocyclegan.bundle import load_bundle
from geocyclegan.catalogue import METHODS
from geocyclegan.device import choose_device
from geocyclegan.errors import GeoCycleGANError
from geocyclegan.methods import Batch
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.loop import train
from geocyclegan.training.pairs import FixedPairs
from geocyclegan.training.state import TrainingState

# Before these steps a device warms up: allocations, autotuning, caches.
_WARM = 5
_PASSED_ON = ("steps", "generator", "discriminator", "width", "crop", "norm", "seed", "device")


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.one:
        print(json.dumps(_measure(Path(arguments.chips[0]), arguments.methods, arguments)))
        return
    names = arguments.methods.split(",")
    folders = [_folder(text, arguments) for text in arguments.chips]
    print("| chips | method | error a2b | constant | s per step | peak memory |")
    print("|---|---|---|---|---|---|")
    for label, chips in folders:
        for name in names:
            if METHODS[name].labelled and not (chips / "labels_a").is_dir():
                continue
            print(_row(label, name, _in_process(chips, name, arguments)), flush=True)


def _folder(text: str, arguments: argparse.Namespace) -> tuple[str, Path]:
    """The name of a set, and its chips, which are cut where it is a pair of scenes."""
    name, given, scenes = text.partition("=")
    if not given:
        return Path(text).name, Path(text)
    if arguments.work is None:
        raise SystemExit(f"{text}: give --work DIR, where its chips shall lie")
    folder: Path = arguments.work / name
    if not (folder / "chips.parquet").exists():
        a, b, *labels = scenes.split(",")
        words = ["chip", a, "--pair", b, "--size", arguments.crop, "--stride", arguments.crop]
        words += ["--val", "0.3", "--out", folder, "--overwrite"]
        words += ["--labels", *labels] if labels else []
        command = [sys.executable, "-m", "geocyclegan", "-q", "--progress", "none"]
        subprocess.run([*command, *map(str, words)], check=True)
    return name, folder


def _parser() -> argparse.ArgumentParser:
    translating = [name for name, info in METHODS.items() if info.directions]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chips", nargs="+", help="folders made by chip --pair, or NAME=A,B")
    parser.add_argument("--work", type=Path, help="where the chips of NAME=A,B go")
    parser.add_argument("--methods", default=",".join(translating))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--generator", default="resnet6", help="the same for all that let one choose"
    )
    parser.add_argument("--discriminator", default="patch70")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--norm", default="instance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser


def _in_process(chips: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one method in a process of its own."""
    given = {"methods": name, **{key: getattr(arguments, key) for key in _PASSED_ON}}
    options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, __file__, str(chips), *options, "--one"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _row(label: str, name: str, found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"| {label} | {name} | {found['failed']} | | | |"
    return (
        f"| {label} | {name} | {found['error']:.4f} | {found['constant']:.4f} |"
        f" {found['seconds']:.4f} | {found['memory'] / 2**20:.0f} MiB |"
    )


def _measure(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        return _measured(folder, name, arguments)
    except GeoCycleGANError as error:
        return {"failed": str(error)}


def _measured(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(arguments.device)
    own = bool(METHODS[name].generators)
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            chips=folder,
            out=Path(out),
            method=name,
            generator=None if own else arguments.generator,
            discriminator=arguments.discriminator,
            width=arguments.width,
            crop=arguments.crop,
            norm=arguments.norm,
            seed=arguments.seed,
            device=arguments.device,
            save_every=10**9,
            panel_every=0,
            val_every=0,
            log_every=10**9,
        )
        # The time from one step to the next: what comes once in a run, such as its last validation,
        # does not count, and one step that something held up does not tell.
        with _timed(device) as ticks:
            result = train(config.updated({"steps": arguments.steps + _WARM, "name": "run"}))
        seconds = float(np.median(np.diff(ticks)[_WARM - 1 :]))
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated()
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        error, constant = _errors(folder, result.run, device)
    return {
        "error": error,
        "constant": constant,
        "seconds": seconds,
        "memory": memory,
    }


@contextmanager
def _timed(device: torch.device) -> Iterator[list[float]]:
    """Note when each step of a training inside the block ends."""
    ticks: list[float] = []
    advance = TrainingState.advance

    def noted(state: TrainingState, *batches: Batch) -> None:
        advance(state, *batches)
        if device.type == "cuda":
            torch.cuda.synchronize()
        ticks.append(time.perf_counter())

    with patch.object(TrainingState, "advance", noted):
        yield ticks


def _errors(folder: Path, run: Path, device: torch.device) -> tuple[float, float]:
    """Error against truth of the model, and of the mean of the training chips of B."""
    bundle = load_bundle(run)
    generator = bundle.generator("a2b", device)
    chips, budget = Chips.open(folder), Budget()
    a, b = LevelReader(chips.val_a, budget), LevelReader(chips.val_b, budget)
    pairs = FixedPairs(a, b, chips.val_pairs, bundle.tile)
    if not len(pairs):
        raise SystemExit(f"{folder}: no validation pairs; chip with --val")
    train_b = LevelReader(chips.train_b, budget)
    means = [_mean(*train_b.read(i)) for i in range(min(len(train_b), 200))]
    middle = torch.from_numpy(np.nanmean(means, axis=0)).float().to(device)[:, None, None]
    sums = np.zeros(3)
    for index in range(len(pairs)):
        batch = pairs.load(index).to(device)
        with torch.inference_mode():
            made = generator(batch.a, batch.valid_a)
        weight = torch.ones_like(batch.b) if batch.valid_b is None else batch.valid_b.float()
        weight = weight.expand_as(batch.b)
        for place, guess in enumerate((made, middle[None])):
            sums[place] += float(((guess - batch.b).abs() * weight).sum())
        sums[2] += float(weight.sum())
    return float(sums[0] / sums[2]), float(sums[1] / sums[2])


def _mean(levels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if valid is None:
        return np.asarray(levels.mean(axis=(1, 2)))
    if not valid.any():
        return np.full(len(levels), np.nan)
    return np.asarray(levels[:, valid].mean(axis=1))


if __name__ == "__main__":
    main()
