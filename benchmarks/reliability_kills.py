"""Rows of `reliability.py`: processes that are killed, interrupted or terminated."""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

from benchmarks.reliability_bench import (
    SAVE_EVERY,
    STEPS,
    Bench,
    Outcome,
    Process,
    hashes,
    leftovers,
    logged,
    newest,
    same_run,
)

STEP_SECONDS = 0.1
"""About what a step takes; kills fall into this much time after one that was logged."""


def kill_train(bench: Bench, trials: int) -> Outcome:
    """Kill runs again and again, a third of the times within a save, and let them end."""
    found, in_save, most_lost, trial = Outcome(), 0, 0, 0
    while trial < trials:
        out = bench.fresh("killed")
        run, kills = out / "run", min(trials - trial, STEPS // SAVE_EVERY // 2)
        for _ in range(kills):
            trial += 1
            process = _go_on(bench, out)
            goal = min(max(logged(run), newest(run)) + bench.random.randrange(1, 8), STEPS - 2)
            process.watch(partial(_has, run, goal), 60)
            if trial % 3 == 0:
                process.watch(partial(_saving, run), 10)
            else:
                time.sleep(bench.random.uniform(0, STEP_SECONDS))
            if process.poll() is not None:
                found.add(f"it ended by itself, exit {process.code}: {process.said()[-200:]}")
                continue
            process.kill()
            in_save += _saving(run)
            lost = logged(run) - newest(run)
            most_lost = max(most_lost, lost)
            found.add(None if lost <= SAVE_EVERY else f"{lost} steps are lost")
        last = _go_on(bench, out)
        if last.wait() != 0:
            found.failures.append(f"--resume failed: {last.said()[-300:]}")
        elif (wrong := same_run(run, bench.whole / "run")) or leftovers(run):
            found.failures.append(wrong or f"left: {leftovers(run)}")
    found.notes += [f"{in_save} within a save", f"at most {most_lost} steps lost of {SAVE_EVERY}"]
    return found


def _has(run: Path, steps: int) -> bool:
    return logged(run) >= steps


def _saving(run: Path) -> bool:
    """Whether a checkpoint or a model is being written, or was when the process ended."""
    return any(run.glob("checkpoints/.*part*")) or any(run.glob(".model.*part*"))


def _go_on(bench: Bench, out: Path) -> Process:
    resume = ["--resume"] if (out / "run" / "config.yaml").exists() else []
    return bench.start(*bench.train(out), *resume)


def kill_infer(bench: Bench, trials: int) -> Outcome:
    """Kill inference at random moments and amid the last step; each third time, run it again."""
    from geocyclegan.raster.digest import check_product

    found, in_last = Outcome(), 0
    out = bench.fresh("products") / "p.tif"
    began = time.monotonic()
    bench.do(*bench.infer(out))
    longest, expected = time.monotonic() - began, hashes(out.parent)
    out.unlink()
    for trial in range(trials):
        process = bench.start(*bench.infer(out), "--overwrite")
        if trial % 3 == 0:
            process.watch(partial(_ending, out), 60)
            time.sleep(bench.random.uniform(0, 0.03))
        else:
            process.watch(lambda: False, bench.random.uniform(0, longest))
        process.kill()
        in_last += _ending(out)
        wrong = None
        if out.exists():
            damage = check_product(out)
            if {out.name: hashes(out.parent)[out.name]} != expected or damage is not None:
                wrong = f"a product that is not whole: {damage}"
            out.unlink()
        if trial % 3 == 2 and wrong is None:
            again = bench.start(*bench.infer(out))
            if again.wait() != 0:
                wrong = f"the rerun failed: {again.said()[-300:]}"
            elif hashes(out.parent) != expected:
                wrong = f"the rerun left {sorted(hashes(out.parent))}, or other pixels"
            out.unlink(missing_ok=True)
        found.add(wrong)
    found.notes.append(f"{in_last} within the COG step")
    return found


def _ending(out: Path) -> bool:
    return any(out.parent.glob(f".{out.stem}.*.part.tif"))


def kill_chip(bench: Bench, trials: int) -> Outcome:
    """Kill chipping, every other time over a set that is there; then run it again."""
    from geocyclegan.chips.verify import verify_chips
    from geocyclegan.errors import ChipsError

    found, killed = Outcome(), 0
    out = bench.fresh("chipped") / "chips"
    small = ["--size", 16]
    began = time.monotonic()
    bench.do(*bench.chip(bench.scene, out), *small)
    longest, expected = time.monotonic() - began, _set(out)
    for trial in range(trials):
        over = trial % 2 == 1
        if not over:
            shutil.rmtree(out)
        process = bench.start(*bench.chip(bench.scene, out), *small, "--overwrite")
        process.watch(lambda: False, bench.random.uniform(0, longest))
        killed += process.poll() is None
        process.kill()
        wrong = None
        try:
            if out.exists() and verify_chips(out).damaged:
                wrong = "a chip that is listed is damaged"
        except ChipsError as error:
            wrong = f"the old set is gone: {error}" if over else None
        again = bench.start(*bench.chip(bench.scene, out), *small, "--overwrite")
        if again.wait() != 0:
            wrong = wrong or f"the rerun failed: {again.said()[-300:]}"
        elif _set(out) != expected:
            wrong = wrong or "the rerun made another set"
        found.add(wrong)
    found.notes.append(f"{killed} while it ran")
    return found


def _set(out: Path) -> dict[str, str]:
    """What makes up a set; the table's bytes hold nothing but its rows, which are compared."""
    from geocyclegan.chips.manifest import read_rows

    files = {name: sha for name, sha in hashes(out).items() if name != "chips.parquet"}
    return files | {row.chip: f"{row.sha256} {row.split}" for row in read_rows(out)}


def signals(bench: Bench, trials: int) -> Outcome:
    """Send SIGINT and SIGTERM at random moments: once to save, one time in six twice to quit."""
    found, slowest, slowest_second = Outcome(), 0.0, 0.0
    for trial in range(trials):
        number = (signal.SIGINT, signal.SIGTERM)[trial % 2]
        out = bench.fresh("interrupted")
        run = out / "run"
        process = bench.start(*bench.train(out))
        goal = bench.random.randrange(1, STEPS - 20)
        process.watch(partial(_has, run, goal), 120)
        time.sleep(bench.random.uniform(0, STEP_SECONDS))
        began = time.monotonic()
        os.kill(process.id, number)
        if trial // 2 % 6 < 5:
            code = process.wait(30)
            taken = time.monotonic() - began
            slowest = max(slowest, taken)
            found.add(_saved(process, run, code, number, taken))
            continue
        # Python sees a signal between two bytecodes; two of them before that would be one.
        time.sleep(bench.random.uniform(0.1, 0.4))
        began = time.monotonic()
        if process.poll() is None:
            os.kill(process.id, number)
        code = process.wait(30)
        taken = time.monotonic() - began
        slowest_second = max(slowest_second, taken)
        quits = code == -number or code == 128 + number
        wrong = None if quits and taken < 1 else f"exit {code} after {taken:.1f} s"
        again = bench.start(*bench.train(out), "--resume")
        if again.wait() != 0 or same_run(run, bench.whole / "run"):
            wrong = wrong or f"after it: {same_run(run, bench.whole / 'run')} {again.said()[-200:]}"
        found.add(wrong)
    found.notes += [
        f"saved within {slowest:.1f} s",
        f"after a second signal gone within {slowest_second:.2f} s",
    ]
    return found


def _saved(
    process: Process, run: Path, code: int | None, number: signal.Signals, taken: float
) -> str | None:
    if code != 128 + number or taken > 10:
        return f"{number.name}: exit {code} after {taken:.1f} s: {process.said()[-200:]}"
    if newest(run) != logged(run):
        return f"{number.name}: step {logged(run)} is logged, {newest(run)} is saved"
    return None
