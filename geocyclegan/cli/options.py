"""What several commands share: settings of the group, parameter types and options, each once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from geocyclegan.progress import ProgressKind


@dataclass(frozen=True)
class Settings:
    """What all commands are given, before them or after; every command finds it as `ctx.obj`.

    Attributes:
        verbosity: 0, or how many times -v was given.
        quiet: nothing but errors.
        progress: how progress is shown.
        debug: show tracebacks.
    """

    verbosity: int = 0
    quiet: bool = False
    progress: ProgressKind = "none"
    debug: bool = False


def split_bands(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Split `1-3,B08` at its commas; whether the bands exist is for the scene to say."""
    if value is None:
        return None
    return tuple(part.strip() for part in value.split(",") if part.strip())


def nodata_value(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read the number that stands for no data; whether pixels can hold it is for the scene."""
    if value is None:
        return None
    from geocyclegan.raster.undeclared import parse_nodata

    return parse_nodata(value, str(param.name).replace("_", "-"))


def auto_or_int(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Read a number of at least 1, or "auto" as None."""
    if value == "auto":
        return None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r}: expected a number of at least 1, or auto")
    return int(value)


def parse_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read an amount of memory, such as 512M or 4G; the letters count in powers of 1024."""
    if value is None:
        return None
    if value[-2:].upper() in ("KB", "MB", "GB", "TB"):
        value = value[:-1]
    number, unit = (value[:-1], value[-1].upper()) if value[-1:].isalpha() else (value, "B")
    try:
        amount = float(number) * 1024 ** "BKMGT".index(unit)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise click.BadParameter(f"{value!r}: expected an amount of memory such as 512M or 4G")
    return int(amount)


bands_option = click.option(
    "--bands",
    callback=split_bands,
    metavar="BANDS",
    help="Bands by number or description, such as 1-3 or B04,B03,B02.  [default: all but alpha]",
)
nodata_option = click.option(
    "--nodata",
    callback=nodata_value,
    metavar="VALUE",
    help="Stored number, such as 0 or -9999, that stands for no data though the files do not say"
    " so: pixels are invalid where all chosen bands have it. Holds besides what they declare.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace what the output holds already."
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of all random choices."
)
cluster_option = click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Dask scheduler whose workers do it, such as tcp://host:8786; local:N starts N processes.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Processes.  [default: by the size of the job]"
)
stack_option = click.option(
    "--stack",
    is_flag=True,
    help="Put files together that differ in their band only (x_B02.tif, x_B03.tif): one scene, on"
    " the grid of its finest band.",
)
