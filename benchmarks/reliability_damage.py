"""Rows of `reliability.py`: files that are damaged, and numbers that are not finite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability_bench import (
    SAVE_EVERY,
    Bench,
    Outcome,
    hashes,
    logged,
    newest,
)


def _damage(bench: Bench, file: Path, trial: int) -> str:
    """Cut a file, one time in eleven, or flip a bit of it; say which."""
    data = bytearray(file.read_bytes())
    if trial % 11 == 0:
        length = bench.random.randrange(len(data))
        file.write_bytes(data[:length])
        return f"{file.name} cut at byte {length} of {len(data)}"
    at = bench.random.randrange(len(data))
    data[at] ^= 1 << bench.random.randrange(8)
    file.write_bytes(data)
    return f"{file.name} with a flip in byte {at} of {len(data)}"


def checkpoint(bench: Bench, trials: int) -> Outcome:
    """Cut or flip the newest checkpoint, or its hash, then resume: refused, the run unchanged."""
    found = Outcome()
    run = bench.fresh("damaged") / "run"
    for trial in range(trials):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(bench.whole / "run", run)
        saved = sorted((run / "checkpoints").glob("step_*.pt"))
        # One time in five the hash beside it, which is short.
        file = saved[-1]
        harmed = file.with_name(file.name + ".sha256") if trial % 5 == 4 else file
        what = _damage(bench, harmed, trial)
        before = hashes(run)
        more = ["--steps", 2 * newest(run)]
        process = bench.start(*bench.train(run.parent), *more, "--resume")
        process.wait()
        wrong = process.is_clear((1,))
        if wrong is None and f"the last good one is {saved[-2].name}" not in process.error():
            wrong = f"the last good one is not named: {process.error()}"
        if wrong is None and hashes(run) != before:
            wrong = "the run was changed"
        found.add(wrong and f"{what}: {wrong}")
    return found


def bundle(bench: Bench, trials: int) -> Outcome:
    """Cut or flip a file of a bundle that inference uses, then translate: refused, no product."""
    found = Outcome()
    model, out = bench.fresh("damaged") / "model", bench.folder / "damaged.tif"
    for trial in range(trials):
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(bench.model, model)
        name = "model.json" if trial % 2 else "model.safetensors"
        what = _damage(bench, model / name, trial)
        process = bench.start(*bench.infer(out, model))
        process.wait()
        wrong = process.is_clear((1,))
        if wrong is None and name not in process.error():
            wrong = f"the file is not named: {process.error()}"
        if out.exists():
            wrong = wrong or "there is a product all the same"
            out.unlink()
        found.add(wrong and f"{what}: {wrong}")
    return found


def _keep_nothing() -> None:
    """Read chips each time, as those of a set that memory cannot hold."""
    from geocyclegan.training.levels import Budget

    Budget.take = lambda self, size: False  # type: ignore[method-assign]


def _flip(one: Path, two: Path) -> None:
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)


def _cut(one: Path, two: Path) -> None:
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])


def _delete(one: Path, two: Path) -> None:
    one.unlink()


def _swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


_HARMS: dict[str, Callable[[Path, Path], None]] = {
    "flip": _flip,
    "cut": _cut,
    "delete": _delete,
    "swap": _swap,
}


def chip(bench: Bench, trials: int) -> Outcome:
    """Harm chips while training reads them: stops and names one, or skips them (--max-bad)."""
    found, skipped = Outcome(), 0
    for trial in range(trials):
        name, harm = list(_HARMS.items())[trial % 4]
        skips = trial % 8 >= 4
        folder = bench.fresh("harmed")
        chips = shutil.copytree(bench.chips, folder / "chips")
        # Long enough for every chip to be read after it; not -q, which leaves out warnings.
        job = [*bench.train(folder, 40, chips)[1:], *(["--max-bad", 2] if skips else [])]
        process = bench.start(*job, prepare=_keep_nothing)
        one, two = bench.random.sample(sorted((chips / "train_a").glob("*.tif")), 2)
        goal = bench.random.randrange(1, 12)
        process.watch(lambda f=folder, g=goal: logged(f / "run") >= g, 60)  # type: ignore[misc]
        harm(one, two)
        code = process.wait()
        named = [path.name for path in (one, two) if path.name in process.said()]
        wrong = None
        if not skips:
            wrong = process.is_clear((1,))
            if wrong is None and not named:
                wrong = f"it names neither: {process.error()}"
        elif code != 0 or not named or "skipped" not in process.said():
            wrong = f"exit {code}, not skipped: {process.said()[-300:]}"
        else:
            skipped += len(named)
        found.add(wrong and f"{name}: {wrong}")
    found.notes.append(f"{skipped} skipped where --max-bad was given")
    return found


def not_finite(bench: Bench, trials: int) -> Outcome:
    """Let a weight become NaN, or the rate explode: stops, and what was saved stays."""
    from geocyclegan.training.checkpoint import checkpoints, damage

    found, latest = Outcome(), 0
    for trial in range(trials):
        folder, at = bench.fresh("poisoned"), bench.random.randrange(1, 50)
        run = folder / "run"
        poisons = trial % 2 == 0
        more: list[object] = [] if poisons else ["--lr", 10.0 ** bench.random.randrange(12, 30)]
        process = bench.start(*bench.train(folder), *more, prepare=_poison(at) if poisons else None)
        process.wait()
        wrong = process.is_clear((1,))
        if wrong is None and ".tif" not in process.error():
            wrong = f"the batch is not named: {process.error()}"
        late = logged(run) - at
        if wrong is None and poisons and not 0 <= late + 1 <= 1:
            wrong = f"it stops {late} steps late: {process.error()}"
        latest = max(latest, logged(run))
        bad = [path.name for path in checkpoints(run / "checkpoints") if damage(path)]
        if wrong is None and (bad or newest(run) % SAVE_EVERY):
            wrong = f"checkpoints are harmed: {bad or newest(run)}"
        if wrong is None and newest(run) > logged(run):
            wrong = "a checkpoint is newer than the last good step"
        found.add(wrong and f"{'weight' if poisons else more}: {wrong}")
    return found


def _poison(at: int) -> Callable[[], None]:
    def prepare() -> None:
        import torch

        from geocyclegan.training.state import TrainingState

        advance = TrainingState.advance

        def poisoned(self: TrainingState, *batches: object) -> None:
            if self.step == at:
                with torch.no_grad():
                    next(iter(self.method.parameters())).fill_(float("nan"))
            advance(self, *batches)  # type: ignore[arg-type]

        TrainingState.advance = poisoned  # type: ignore[method-assign]

    return prepare
