"""What chip and infer make of a folder of hard rasters: works, one clear line, or something worse.

Each raster goes through `geocyclegan chip` and `geocyclegan infer` (a small untrained model with as
many bands) in a process of its own, with limits of 30 s of processor time and 1 GB of resident
memory. Counted are:

- works: exit 0 and the output is there;
- refused: exit 1 or 2, one line that begins with "Error:", and nothing was written;
- unfinished: at work on a raster that the manifest says is sound, and stopped after the time limit;
- traceback, unclear (no line, several, or "unexpected"), timeout, memory, crash (a signal), and
  left-over (something was written although the raster was refused): each is a fault.

Where the folder has a manifest.csv with the columns file and expectation ("works" or "clear
error"), it is compared, too. Processes are forked from one that has done its imports, so the times
are those of the work, and the memory includes all libraries.

    python benchmarks/hard_rasters.py ../shared/data/6_broken --csv results.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEBIBYTES = 30.0, 1024.0
MOST_BANDS = 16
FAULTS = ("traceback", "unclear", "timeout", "memory", "crash", "left-over")
SHOWN = ("works", "refused", "unfinished", *FAULTS)
# Companions of rasters, and files about them.
NO_RASTERS = {".aux.xml", ".ovr", ".msk", ".txt", ".md", ".csv", ".json", ".hdr", ".tfw", ".xml"}


@dataclass(frozen=True)
class Found:
    """What came of one raster and one command."""

    file: str
    command: str
    verdict: str
    seconds: float
    mebibytes: float
    line: str


def make_models(folder: Path) -> None:
    """Write a small model for each number of bands."""
    from geocyclegan.bundle import save_bundle
    from geocyclegan.models.registry import build_generator
    from geocyclegan.raster.domain import BandInfo, Domain
    from geocyclegan.raster.radiometry import BandScaling

    scaling = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
    for count in range(1, MOST_BANDS + 1):
        domain = Domain((BandInfo(scaling),) * count, "float32")
        network = build_generator("resnet6", in_channels=count, out_channels=count, width=2)
        save_bundle(
            folder / str(count),
            method="cyclegan",
            generators={"a2b": ("resnet6", network)},
            domains={"a": domain, "b": domain},
            tile=64,
            training={"steps": 0},
        )


def bands_of(raster: Path) -> int:
    """Return how many bands infer will take; 1 where the raster does not even open."""
    from geocyclegan.errors import GeoCycleGANError
    from geocyclegan.raster.opening import gdal_env
    from geocyclegan.raster.scene import Scene

    try:
        with gdal_env(), Scene(raster, amplitude=True, classes=True) as scene:
            return min(len(scene.bands), MOST_BANDS)
    except GeoCycleGANError:
        return 1


def arguments(command: str, raster: Path, work: Path, models: Path) -> list[str]:
    if command == "chip":
        size = ["--size", "64", "--val", "0", "--min-valid", "0"]
        return ["chip", str(raster), "--out", str(work / "out"), *size, "--workers", "1"]
    model = str(models / str(bands_of(raster)))
    return ["infer", str(raster), "--model", model, "--out", str(work / "out.tif"), "--tile", "128"]


def child(command: str, raster: Path, work: Path, models: Path) -> None:
    """Run a command in this process, which ends with it."""
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(work)
    code = 70
    try:
        from geocyclegan.cli.main import cli

        cli(arguments(command, raster, work, models), prog_name="geocyclegan")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def seconds_of(process: int) -> float:
    """Return the processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(command: str, raster: Path, name: str, models: Path, expected: str) -> Found:
    work = Path(tempfile.mkdtemp())
    try:
        process = os.fork()
        if not process:
            child(command, raster, work, models)
        slow = False
        while True:
            done, status, usage = os.wait4(process, os.WNOHANG)
            if done:
                break
            if seconds_of(process) > SECONDS:
                slow = True
                os.kill(process, signal.SIGKILL)
                _, status, usage = os.wait4(process, 0)
                break
            time.sleep(0.02)
        seconds = usage.ru_utime + usage.ru_stime
        text = (work / "log").read_text(errors="replace") if (work / "log").exists() else ""
        written = [path.name for path in work.iterdir() if path.name != "log"]
        mebibytes = usage.ru_maxrss / 1024
        errors = [line for line in text.splitlines() if line.startswith("Error:")]
        verdict = judge(slow, status, mebibytes, text, errors, written)
        if verdict == "timeout" and expected == "works":
            verdict = "unfinished"
        return Found(name, command, verdict, seconds, mebibytes, (errors or [""])[0])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def judge(
    slow: bool, status: int, mebibytes: float, text: str, errors: list[str], written: list[str]
) -> str:
    if slow:
        return "timeout"
    if os.WIFSIGNALED(status):
        return "crash"
    if mebibytes > MEBIBYTES:
        return "memory"
    if "Traceback" in text:
        return "traceback"
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return "works" if written and not errors else "unclear"
    if written:
        return "left-over"
    is_clear = code in (1, 2) and len(errors) == 1 and "unexpected" not in errors[0]
    return "refused" if is_clear else "unclear"


def expectations(folder: Path) -> dict[str, str]:
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        return {}
    with open(manifest, newline="", encoding="utf-8") as file:
        return {row["file"]: row.get("expectation", "") for row in csv.DictReader(file)}


def rasters_of(folder: Path, expected: dict[str, str]) -> list[Path]:
    if expected:
        return [folder / name for name, what in expected.items() if what]
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(path.name.lower().endswith(end) for end in NO_RASTERS)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["chip", "infer"])
    parser.add_argument("--csv", type=Path, help="what came of each raster")
    args = parser.parse_args()
    folder = args.folder.resolve()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import geocyclegan.chips.tiler
    import geocyclegan.inference.translate  # noqa: F401 - for the processes to come

    expected = expectations(folder)
    rasters = rasters_of(folder, expected)
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as models:
        make_models(Path(models))
        for command in [args.only] if args.only else ["chip", "infer"]:
            of_command = []
            for raster in rasters:
                name = str(raster.relative_to(folder))
                wanted = expected.get(name, "")
                of_command.append(run(command, raster, name, Path(models), wanted))
            tell(command, of_command, expected)
            found += of_command
    if args.csv:
        with open(args.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "command", "expected", "verdict", "seconds", "MiB", "line"])
            for f in found:
                figures = f"{f.seconds:.2f}", f"{f.mebibytes:.0f}"
                wanted = expected.get(f.file, "")
                writer.writerow([f.file, f.command, wanted, f.verdict, *figures, f.line])
    sys.exit(any(f.verdict in FAULTS for f in found))


def tell(command: str, found: list[Found], expected: dict[str, str]) -> None:
    counts = Counter(f.verdict for f in found)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in SHOWN)
    print(f"{command}: {len(found)} rasters: {told}")
    print(
        f"  slowest {max(f.seconds for f in found):.1f} s,"
        f" largest {max(f.mebibytes for f in found):.0f} MiB"
    )
    for f in found:
        if f.verdict in (*FAULTS, "unfinished"):
            print(f"  {f.verdict}: {f.file}: {f.line}")
    words = {"works": "works", "clear error": "refused"}
    for f in found:
        wanted = words.get(expected.get(f.file, ""), f.verdict)
        if f.verdict in ("works", "refused") and f.verdict != wanted:
            print(f"  {f.verdict} where the manifest expects {wanted}: {f.file} {f.line}")
    print(flush=True)


if __name__ == "__main__":
    main()
