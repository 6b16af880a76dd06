"""The faults that we say we hold, one row of a table each: how many trials, and how many held.

    python -m benchmarks.reliability
    python -m benchmarks.reliability --only kill-train --trials 10
    python -m benchmarks.reliability --list

Every trial is a real command in a process of its own, on chips of the bundled sample scenes and
with a tiny network; the faults are real, too: kill -9, file systems without room or read-only
(these need root), control groups, system calls that fail (by strace). What a row does, and what
counts as held, is said by its function's first line. Not here: rasters that are hard to read, see
hard_rasters.py, and remote sources that fail midway, see tests/sources/.

The figures are counts; no speed is measured, so a busy machine will do.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import (
    reliability_damage,
    reliability_disks,
    reliability_kills,
    reliability_limits,
    reliability_strangers,
)
from benchmarks.reliability_bench import Bench, Outcome, Process


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        fault: what happens.
        trials: how often.
        run: does it.
    """

    fault: str
    trials: int
    run: Callable[[Bench, int], Outcome]


ROWS = {
    "kill-train": Row("kill -9 while training", 50, reliability_kills.kill_train),
    "kill-infer": Row("kill -9 while inferring", 50, reliability_kills.kill_infer),
    "kill-chip": Row("kill -9 while chipping", 20, reliability_kills.kill_chip),
    "nth-call": Row("the Nth write, fsync or rename fails, every N", 0, reliability_disks.nth_call),
    "disk-full": Row("disk full, 10 levels each", 40, reliability_disks.disk_full),
    "two-runs": Row("two runs, one output", 20, reliability_disks.two_runs),
    "read-only": Row("read-only output", 5, reliability_disks.read_only),
    "corrupt-checkpoint": Row(
        "corrupted checkpoint, 1 cut to 10 flips", 110, reliability_damage.checkpoint
    ),
    "corrupt-bundle": Row("corrupted bundle, 1 cut to 10 flips", 110, reliability_damage.bundle),
    "malicious": Row("malicious checkpoint, bundle or weights", 0, reliability_strangers.malicious),
    "chip-damaged": Row("chip damaged during training, four ways", 40, reliability_damage.chip),
    "not-finite": Row("NaN or exploding loss", 20, reliability_damage.not_finite),
    "memory": Row("2 GB limit, inference", 3, reliability_limits.memory),
    "signals": Row("SIGINT, SIGTERM", 48, reliability_kills.signals),
    "workers": Row("worker killed, chip and infer", 20, reliability_limits.workers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--trials", type=int, help="of each row  [default: the table's figures]")
    parser.add_argument("--list", action="store_true", help="say what each row does")
    args = parser.parse_args()
    if args.list:
        for name, row in ROWS.items():
            print(f"{name:18} {(row.run.__doc__ or '').partition(chr(10))[0]}")
        return
    # For the processes to come, which are forked from this one.
    import torch.utils.tensorboard

    import geocyclegan.chips.tiler
    import geocyclegan.cli.chip
    import geocyclegan.cli.infer
    import geocyclegan.cli.train
    import geocyclegan.inference.translate
    import geocyclegan.training.loop  # noqa: F401

    torch.set_num_threads(1)
    # Whatever ends it, what was counted is told.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"$ python -m benchmarks.reliability {shlex.join(sys.argv[1:])}".rstrip())
    print(f"{date.today()}, {platform.system()}, torch {torch.__version__}\n")
    print("| fault | trials | held | figures | first failure |\n|---|---|---|---|---|", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        bench = Bench(Path(folder))
        for name in args.only:
            row, began = ROWS[name], time.monotonic()
            try:
                outcome = row.run(bench, row.trials if args.trials is None else args.trials)
            except KeyboardInterrupt:
                for process in list(Process.running.values()):
                    process.kill()
                outcome = Outcome.current or Outcome()
                outcome.notes.append("interrupted")
                print(line(row, outcome), flush=True)
                raise
            print(line(row, outcome), flush=True)
            print(f"  {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            failed = failed or bool(outcome.failures)
    sys.exit(failed)


def line(row: Row, outcome: Outcome) -> str:
    """Return a row of the table."""
    first = (outcome.failures or ["–"])[0].replace("|", "\\|")[:300]
    held = max(outcome.trials - len(outcome.failures), 0)
    cells = (row.fault, outcome.trials, held, "; ".join(outcome.notes) or "–", first)
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
