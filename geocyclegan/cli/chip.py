"""`geocyclegan chip`: cut scenes into chips for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geocyclegan.cli.options import (
    Settings,
    bands_option,
    overwrite_option,
    seed_option,
    workers_option,
)

if TYPE_CHECKING:
    from geocyclegan.chips.tiler import ChipReport


@click.command(name="chip", short_help="Cut scenes into chips for training.")
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@click.option(
    "--domain",
    type=click.Choice(["a", "b"]),
    default="a",
    show_default=True,
    help="The side of the translation that the scenes belong to.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("chips"),
    show_default=True,
    help="Folder of the chips of both domains.",
)
@click.option("--size", type=int, default=256, show_default=True, help="Side of a chip in pixels.")
@click.option("--stride", type=int, help="Pixels from one chip to the next.  [default: the size]")
@bands_option
@click.option(
    "--scale",
    default="auto",
    show_default=True,
    metavar="SCALE",
    help="How pixel values become network levels: auto, linear:LO,HI, percentile:LO,HI, db, log1p"
    " or zscore. Fitted on the valid pixels of all scenes of the domain.",
)
@click.option(
    "--aoi",
    type=click.Path(path_type=Path),
    help="Vector file; only chips that its polygons cover are kept.",
)
@click.option(
    "--min-cover",
    type=float,
    default=0.5,
    show_default=True,
    help="Least share of a chip that the AOI must cover.",
)
@click.option(
    "--min-valid",
    type=float,
    default=0.9,
    show_default=True,
    help="Least share of valid pixels in a chip, padding beyond a small scene not counted.",
)
@click.option(
    "--val",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of the chips set aside for validation, in blocks apart from the training chips.",
)
@workers_option
@seed_option
@overwrite_option
@click.pass_obj
def command(settings: Settings | None, /, scenes: tuple[str, ...], **given: Any) -> None:
    """Cut scenes into chips that CycleGANs are trained on.

    SCENE is a file, a glob pattern, a folder of rasters, a URL or a sub-dataset. Chipping a scene
    again refreshes its chips; further scenes are added to the domain.
    """
    from geocyclegan.chips.options import ChipOptions
    from geocyclegan.chips.tiler import chip_scenes
    from geocyclegan.raster.radiometry import ScaleSpec

    given["scale"] = ScaleSpec.parse(given["scale"])
    report = chip_scenes(scenes, ChipOptions(**given))
    if settings is None or not settings.quiet:
        click.echo(summary(report, given["domain"]))


def summary(report: ChipReport, domain: str) -> str:
    """Say what was written, what was left out and why, and what comes next."""
    record = report.record
    labels = ", ".join(record.domain.labels[:6]) + (", ..." if record.domain.count > 6 else "")
    lines = [
        f"{report.folder}: {_count(report.train + report.val, 'chip')} of {record.size} px from"
        f" {_count(report.scenes, 'scene')} for domain {domain} ({report.train} train,"
        f" {report.val} val); {_count(record.domain.count, 'band')}: {labels}"
    ]
    left_out = [
        f"{number} {reason}"
        for number, reason in (
            (report.uncovered, "too little covered by the AOI"),
            (report.invalid, "with too few valid pixels"),
            (report.straddling, "across the edge of a validation block"),
        )
        if number
    ]
    if left_out:
        lines.append(f"left out of {_count(report.windows, 'window')}: {', '.join(left_out)}")
    if len(record.scenes) > report.scenes:
        lines.append(
            f"the domain now has {report.total_train} train and {report.total_val} val chips from"
            f" {_count(len(record.scenes), 'scene')}"
        )
    other = "b" if domain == "a" else "a"
    is_default = report.folder == Path("chips")
    if (report.folder / f"domain_{other}.json").exists():
        lines.append(f"next: geocyclegan train{'' if is_default else f' {report.folder}'}")
    else:
        out = "" if is_default else f" --out {report.folder}"
        size = "" if record.size == 256 else f" --size {record.size}"
        lines.append(f"next: geocyclegan chip SCENE --domain {other}{out}{size}")
    return "\n".join(lines)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
