"""Rows of `reliability.py`: disks that fail, are full or read-only, and outputs that are taken."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.reliability_bench import (
    Bench,
    Outcome,
    Process,
    hashes,
    leftovers,
    logged,
    newest,
    resize,
    same_run,
    small_disk,
    until,
)

LEVELS = 10
# Short, so that every one of its calls can be made to fail.
SHORT = ["--steps", 6, "--save-every", 2, "--val-every", 3, "--panel-every", 3]
_CALLS = {
    "write": "write,pwrite64,writev,pwritev,copy_file_range,sendfile",
    "fsync": "fsync,fdatasync,syncfs",
    "rename": "rename,renameat,renameat2",
}


def nth_call(bench: Bench, trials: int) -> Outcome:
    """Let the Nth call of each kind on a run's files fail while it trains; then resume it."""
    found = Outcome()
    if shutil.which("strace") is None:
        found.notes.append("not run: it needs strace")
        return found
    whole = bench.fresh("nth") / "whole"
    bench.do(*bench.train(whole), *SHORT)
    numbers = list(_numbered(bench))
    if trials:
        # Of the many writes some, spread evenly; of the others all.
        writes = [each for each in numbers if each[0] == "write"]
        numbers = [each for each in numbers if each[0] != "write"][:trials]
        count = min(trials - len(numbers), len(writes))
        found.notes.append(f"{count} of {len(writes)} writes")
        numbers += [writes[i * len(writes) // count] for i in range(count)]
    kinds: Counter[str] = Counter()
    for kind, call, number in numbers:
        error = "EIO" if kind == "fsync" else "ENOSPC"
        out = bench.fresh("nth_run")
        fault = f"inject={call}:error={error}:when={number}"
        process = _traced(bench, out, ["-e", f"trace={call}", "-e", fault, "-o", os.devnull])
        code = process.wait()
        kinds[kind] += 1
        wrong = None if code == 0 else process.is_clear()
        if wrong is None:
            wrong = _goes_on(bench, out, whole / "run")
        found.add(wrong and f"{call} number {number}: {wrong}")
    found.notes.append(", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    return found


def _numbered(bench: Bench) -> Iterator[tuple[str, str, int]]:
    """The calls on files of the run: kind, name, and its number among those of its name."""
    out, trace = bench.fresh("nth_run"), bench.folder / "trace"
    calls = ",".join(_CALLS.values())
    process = _traced(bench, out, ["-y", "-e", f"trace={calls}", "-o", str(trace)])
    if process.wait() != 0:
        raise RuntimeError(process.said())
    # A number counts the calls of one name in one thread, so both are kept apart here, too.
    seen: Counter[tuple[str, str]] = Counter()
    kind_of = {name: kind for kind, names in _CALLS.items() for name in names.split(",")}
    told: set[tuple[str, int]] = set()
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match is None:
            continue
        thread, name = match.groups()
        seen[thread, name] += 1
        place = name, seen[thread, name]
        if str(out) in line and place not in told:
            told.add(place)
            yield kind_of[name], *place


def _traced(bench: Bench, out: Path, options: list[str]) -> Process:
    """Start a short training under strace, from its first step on."""
    process = Process([*bench.train(out), *SHORT], bench.folder, waits=True)
    until(lambda: _state(process.id).startswith("T"), 10)
    subprocess.Popen(
        ["strace", "-f", "-qq", *options, "-p", str(process.id)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: "TracerPid:\t0\n" not in _status(process.id), 10)
    os.kill(process.id, signal.SIGCONT)
    return process


def _status(process: int) -> str:
    return Path(f"/proc/{process}/status").read_text()


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]


def _goes_on(bench: Bench, out: Path, whole: Path) -> str | None:
    """None if the newest checkpoint loads, and the run, resumed, ends as one without faults."""
    from geocyclegan.errors import BundleError
    from geocyclegan.training.checkpoint import load_latest

    run = out / "run"
    try:
        load_latest(run / "checkpoints")
    except BundleError as error:
        return f"the newest checkpoint does not load: {error}"
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    again = bench.start(*bench.train(out), *SHORT, *resume)
    if again.wait() != 0:
        return f"it does not go on: {again.said()[-300:]}"
    if leftovers(run):
        return f"left: {leftovers(run)}"
    return same_run(run, whole)


def disk_full(bench: Bench, trials: int) -> Outcome:
    """Fill the disk at levels of what chip, train, infer and export need; then make room."""
    found = Outcome()
    if os.name != "posix" or os.geteuid() != 0:
        found.notes.append("not run: mounting a small disk needs root")
        return found
    levels = max(trials // 4, 1)
    words: Counter[str] = Counter()
    disk = bench.folder / "disk"
    for name in ("chip", "train", "infer", "export"):
        with small_disk(disk, None):
            arguments = _job(bench, name, disk / "new")
            bench.do(*arguments)
            need = sum(p.stat().st_blocks * 512 for p in disk.rglob("*"))
            expected = _result(name, disk / "new")
        old = _old(bench, name)
        for level in range(levels):
            size = int(need * (level + 0.5) / levels) // 4096 * 4096
            size += sum(-(-p.stat().st_size // 4096) * 4096 + 4096 for p in old.rglob("*"))
            with small_disk(disk, size + 16384):
                before = _put(old, disk / "new")
                process = bench.start(*arguments, "--overwrite")
                code = process.wait()
                wrong = _held(name, process, code, disk / "new", before)
                words[_word(process)] += 1
                if wrong is None and code != 0:
                    resize(disk, "size=100%")
                    wrong = _with_room(bench, name, arguments, disk / "new", expected)
            found.add(wrong and f"{name}, {size / 1024:.0f} KiB: {wrong}")
    found.notes += [f"{count} {word}" for word, count in sorted(words.items())]
    return found


def _job(bench: Bench, name: str, out: Path) -> list[object]:
    if name == "chip":
        return bench.chip(bench.scene, out)
    if name == "train":
        return [*bench.train(out), *SHORT]
    if name == "infer":
        return bench.infer(out / "p.tif")
    return ["-q", "export", "--model", bench.model, "--out", out / "m.pt2", "--format", "torch"]


def _old(bench: Bench, name: str) -> Path:
    """A folder with what an earlier command left, of other content."""
    old = bench.fresh("old")
    if name == "chip":
        bench.do(*bench.chip(bench.partner, old / "chips"), "--domain", "b", "--bands", "2,3,4")
        return old / "chips"
    if name == "infer":
        bench.do(*bench.infer(old / "p.tif"), "--tile", 64, "--norm-stats", "tile")
    return old


def _put(old: Path, new: Path) -> dict[str, str]:
    shutil.copytree(old, new, dirs_exist_ok=True)
    return hashes(new)


def _word(process: Process) -> str:
    if process.code == 0:
        return "had room enough"
    said = process.error()
    numbers = bool(re.search(r"need|take", said)) and "free" in said
    return "said how much is needed" if numbers else "said that it is full"


def _held(
    name: str, process: Process, code: int | None, new: Path, before: dict[str, str]
) -> str | None:
    """None if it ended well, or in one line that says why, with the old files as they were."""
    if code != 0:
        unclear = process.is_clear((1,))
        if unclear is not None:
            return unclear
        if not re.search(r"No space left|full|are free|needs", process.error()):
            return f"it does not say that the disk is full: {process.error()}"
        after = hashes(new)
        lost = [file for file, sha in before.items() if after.get(file) != sha]
        # Without --overwrite of its own, a set of the other domain shares the list of chips.
        if [file for file in lost if file != "chips.parquet"]:
            return f"old files are gone or changed: {lost}"
    return f"left: {leftovers(new)}" if leftovers(new) else None


def _with_room(
    bench: Bench, name: str, arguments: list[object], new: Path, expected: dict[str, str]
) -> str | None:
    """None if the same command, or --resume, ends as if the disk had never been full."""
    more: list[object] = ["--overwrite"]
    if name == "train" and newest(new / "run"):
        more = ["--resume"]
    again = bench.start(*arguments, *more)
    if again.wait() != 0:
        return f"with room again it fails: {again.said()[-300:]}"
    found = _result(name, new)
    wrong = [file for file, sha in expected.items() if found.get(file) != sha]
    return f"with room again it makes another {wrong[0]}" if wrong else None


def _result(name: str, new: Path) -> dict[str, str]:
    """Hashes of what must be the same each time, which what has a date in it is not."""
    wanted: dict[str, Callable[[str], bool]] = {
        "chip": lambda file: "_a/" in file,
        "train": lambda file: file.endswith(("run/model/model.safetensors", "log.csv")),
        "infer": lambda file: file == "p.tif",
        "export": lambda file: False,
    }
    return {file: sha for file, sha in hashes(new).items() if wanted[name](file)}


def two_runs(bench: Bench, trials: int) -> Outcome:
    """Start a second run on an output: while one writes it, and after one that was killed."""
    found, slowest, most = Outcome(), 0.0, 0.0
    for trial in range(trials):
        name = ("train", "infer", "chip")[trial % 3]
        out = bench.fresh("shared") / "out"
        arguments = _long_job(bench, name, out)
        first = bench.start(*arguments)
        first.watch(lambda o=out: any(o.parent.rglob(".*.holder")), 60)  # type: ignore[misc]
        if first.poll() is not None:
            found.add(f"{name}: the first ended: {first.said()[-200:]}")
            continue
        second = bench.start(*arguments)
        code = second.wait(30)
        taken = time.monotonic() - second.began
        slowest, most = max(slowest, taken), max(most, second.processor)
        wrong = second.is_clear((1,))
        if wrong is None and f"process {first.id} on" not in second.error():
            wrong = f"it does not name process {first.id}: {second.error()}"
        # Of the processor's time, since others may want it, too.
        if wrong is None and second.processor > 2:
            wrong = f"exit {code} after {second.processor:.1f} s of the processor, {taken:.1f} s"
        # Killed, so that its lock is a stale one.
        first.kill()
        third = bench.start(
            *arguments, *(["--resume"] if (out / "run/config.yaml").exists() else [])
        )
        if name == "train":
            third.watch(lambda o=out: logged(o / "run") > 2, 60)  # type: ignore[misc]
            stopped = third.poll() is not None
            third.kill()
        else:
            stopped = third.wait() != 0
        if stopped:
            wrong = wrong or f"a stale lock is in the way: {third.said()[-200:]}"
        found.add(wrong and f"{name}: {wrong}")
    found.notes.append(
        f"the second gone within {most:.1f} s of the processor ({slowest:.1f} s on the clock),"
        " without its imports"
    )
    return found


def _long_job(bench: Bench, name: str, out: Path) -> list[object]:
    if name == "train":
        return bench.train(out)
    if name == "infer":
        return bench.infer(out.parent / "p.tif")
    return [*bench.chip(bench.scene, out), "--size", 16]


def read_only(bench: Bench, trials: int) -> Outcome:
    """Write to a file system that is mounted read-only."""
    found = Outcome()
    if os.name != "posix" or os.geteuid() != 0:
        found.notes.append("not run: mounting needs root")
        return found
    disk = bench.folder / "read_only"
    jobs: dict[str, list[object]] = {
        name: _job(bench, name, disk / "new") for name in ("chip", "train", "infer", "export")
    }
    jobs["demo"] = ["-q", "demo", "--out", disk / "new", "--steps", 2]
    jobs["info"] = ["-q", "info", bench.scene, "--quicklook", disk / "q.png"]
    jobs["resume"] = [*bench.train(disk / "runs"), "--resume"]
    names = list(jobs) if trials >= 5 else list(jobs)[:trials]
    with small_disk(disk, None):
        shutil.copytree(bench.whole / "run", disk / "runs" / "run")
        resize(disk, "ro")
        for name in names:
            process = bench.start(*jobs[name])
            process.wait()
            wrong = process.is_clear((1,))
            if wrong is None and logged(disk / "new" / "run"):
                wrong = "it fails after the first step only"
            found.add(wrong and f"{name}: {wrong}")
        resize(disk, "rw")
    found.notes.append(", ".join(names))
    return found
