"""Rows of `reliability.py`: too little memory, and workers that are killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.reliability_bench import Bench, Outcome, Process, hashes

LIMIT = 2 * 10**9


def memory(bench: Bench, trials: int) -> Outcome:
    """Ask for tiles that 2 GB cannot hold: halved, said, and the pixels of the smaller size."""
    from geocyclegan.files import sha256

    found = Outcome()
    scene, model = _large(bench)
    out = bench.fresh("limited") / "p.tif"
    how = ["--norm-stats", "sample", "--device", "cpu", "--precision", "32", "--model", model]
    job: list[object] = ["infer", scene, "--out", out, *how, "--overwrite"]
    with _group(bench) as (prepare, kind):
        for tile in (8192, 4096, 3100)[: max(trials, 1)]:
            process = bench.start(*job, "--tile", tile, prepare=prepare)
            code = process.wait(600)
            match = re.search(r"goes on with (\d+) px", process.said())
            if code != 0 or match is None:
                found.add(f"--tile {tile}: exit {code}: {process.said()[-300:]}")
                continue
            limited = sha256(out)
            bench.do(*job, "--tile", match[1])
            same = sha256(out) == limited
            found.add(None if same else f"--tile {tile}: other pixels than --tile {match[1]}")
            found.notes.append(f"{tile} px: goes on with {match[1]} px")
    found.notes.append(f"limited by {kind}")
    return found


def _large(bench: Bench) -> tuple[Path, Path]:
    """A scene of 3200 px and a small model; a tile as large as the scene takes too much."""
    import numpy as np
    import rasterio
    import torch
    from affine import Affine

    from geocyclegan.bundle import save_bundle
    from geocyclegan.models import build_generator
    from geocyclegan.raster.domain import BandInfo, Domain
    from geocyclegan.raster.radiometry import BandScaling

    folder, side = bench.fresh("large"), 3200
    pixels = np.random.default_rng(0).integers(1, 255, (1, side, side)).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32630"}
    place = Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6)
    with rasterio.open(
        folder / "s.tif", "w", height=side, width=side, transform=place, **profile
    ) as scene:
        scene.write(pixels)
    torch.manual_seed(0)
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))),), "uint8")
    network = build_generator("resnet6", in_channels=1, out_channels=1, width=12)
    save_bundle(
        folder / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", network)},
        domains={"a": domain, "b": domain},
        tile=256,
        training={},
    )
    return folder / "s.tif", folder / "model"


@contextmanager
def _group(bench: Bench) -> Iterator[tuple[Callable[[], None], str]]:
    """A limit of memory for a process: by a control group as root, else of its address space."""
    name = f"reliability-{os.getpid()}"
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    for root, limit in ((v1, "memory.limit_in_bytes"), (v2, "memory.max")):
        group = root / name
        with suppress(OSError):
            group.mkdir()
            if not (group / limit).exists():
                group.rmdir()
                continue
            (group / limit).write_text(str(LIMIT))

            def join(group: Path = group) -> None:
                (group / "cgroup.procs").write_text(str(os.getpid()))

            try:
                yield join, f"a control group, version {1 if root == v1 else 2}"
            finally:
                with suppress(OSError):
                    group.rmdir()
            return

    def bound() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    yield bound, "address space"


def workers(bench: Bench, trials: int) -> Outcome:
    """Kill a worker process: of chip --workers, and of infer on two processes of this machine."""
    found, retried, killed = Outcome(), 0, 0
    jobs = {"chip": _chip, "infer": _infer}
    expected: dict[str, dict[str, str]] = {}
    lasted: dict[str, float] = {}
    for name, job in jobs.items():
        out = bench.fresh("crew")
        began = time.monotonic()
        bench.do(*job(bench, out))
        lasted[name], expected[name] = time.monotonic() - began, _pixels(out)
    for trial in range(trials):
        name, job = list(jobs.items())[trial % 2]
        out = bench.fresh("crew")
        process = bench.start(*job(bench, out))
        time.sleep(bench.random.uniform(0.3, 0.8) * lasted[name])
        children = _descendants(process)
        if children:
            with suppress(ProcessLookupError):
                os.kill(bench.random.choice(children), signal.SIGKILL)
                killed += 1
        code = process.wait()
        wrong = None
        if code is None:
            wrong = "it hangs"
        elif code == 0:
            retried += 1
            if _pixels(out) != expected[name]:
                wrong = "it made something else"
        else:
            wrong = process.is_clear((1,))
            if wrong is None:
                again = bench.start(*job(bench, out))
                if again.wait() != 0 or _pixels(out) != expected[name]:
                    wrong = f"the same command does not go on: {again.said()[-300:]}"
        for child in _alive(children):
            os.kill(child, signal.SIGKILL)
            wrong = wrong or "a worker outlived its command"
        found.add(wrong and f"{name}: {wrong}")
    found.notes.append(f"{killed} killed, {retried} ended well without help, the others said so")
    return found


def _chip(bench: Bench, out: Path) -> list[object]:
    scenes = [bench.scene]
    return ["-q", "chip", *scenes, "--out", out / "chips", "--size", 16, "--cluster", "local"]


def _infer(bench: Bench, out: Path) -> list[object]:
    return [*bench.infer(out / "p.tif"), "--cluster", "local"]


def _pixels(out: Path) -> dict[str, str]:
    keep = ("train_a/", "val_a/", "p.tif")
    return {name: sha for name, sha in hashes(out).items() if any(part in name for part in keep)}


def _descendants(process: Process) -> list[int]:
    """Processes that a command started, and those that they did; helpers of Python left out."""
    found, parents = [], {process.id}
    while parents:
        children = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
                if parent in parents:
                    children.add(int(folder.name))
        for child in children:
            with suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_text()
                if "resource_tracker" not in words and "forkserver" not in words:
                    found.append(child)
        parents = children
    return found


def _alive(processes: list[int]) -> list[int]:
    found = []
    for each in processes:
        with suppress(OSError):
            state = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2][0]
            if state not in "ZX":
                found.append(each)
    return found
