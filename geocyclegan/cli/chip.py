"""`geocyclegan chip`: cut scenes into chips for training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from geocyclegan.cli.chipped import following, summary
from geocyclegan.cli.options import (
    Settings,
    bands_option,
    cluster_option,
    nodata_option,
    nodata_value,
    overwrite_option,
    seed_option,
    split_bands,
    stack_option,
    workers_option,
)

_MOST_CLASSES = 1 << 16


def _length(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> Any:  # a Length; its module is not imported for --help
    if value is None:
        return None
    from geocyclegan.chips.geometry import parse_length

    return parse_length(value, str(param.name))


def _scale(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> Any:  # a ScaleSpec; its module is not imported for --help
    if value is None:
        return None
    from geocyclegan.raster.radiometry import ScaleSpec

    return ScaleSpec.parse(value)


def _codec(ctx: click.Context, param: click.Parameter, value: str) -> Any:  # a Codec
    from geocyclegan.chips.chipfile import Codec

    return Codec.parse(value)


def _integers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Read `3,8-10` or `-1`."""
    if value is None:
        return None
    found: list[int] = []
    for part in value.split(","):
        ends = re.fullmatch(r"\s*(-?\d+)(?:-(-?\d+))?\s*", part)
        classes = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else range(0)
        if not 0 < len(classes) <= _MOST_CLASSES:
            raise click.BadParameter(f"{part!r}: expected classes such as 3,8-10")
        found.extend(classes)
    return tuple(found)


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """Read `0,15,30`."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected numbers such as 0,15,30") from None


def _grouped(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Stack decorators so that --help shows them in the order given."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_geometry_options = _grouped(
    click.option(
        "--size",
        default="256",
        show_default=True,
        metavar="SIZE",
        callback=_length,
        help="Side of a chip: pixels, or metres on the ground such as 1280m.",
    ),
    click.option(
        "--stride",
        metavar="SIZE",
        callback=_length,
        help="From one chip to the next, like --size.  [default: the size]",
    ),
    click.option(
        "--edge",
        type=click.Choice(["shift", "pad", "drop"]),
        default="shift",
        show_default=True,
        help="Where a scene ends within a chip: shift it back, pad and mask it, or drop it.",
    ),
    click.option(
        "--random",
        type=int,
        metavar="N",
        help="N chips at random places of each scene, instead of a grid of chips.",
    ),
    click.option(
        "--balance",
        multiple=True,
        metavar="FILE",
        help="Raster of classes, on any grid; with --random, chips are drawn evenly from its"
        " classes. One for all scenes, or repeated for each in order.",
    ),
    click.option(
        "--balance-values",
        callback=_integers,
        metavar="CLASSES",
        help="Classes of --balance to draw from, such as 1,4-6.  [default: all]",
    ),
    click.option(
        "--angles",
        default="0",
        show_default=True,
        metavar="DEGREES",
        callback=_numbers,
        help="Cut chips on grids turned clockwise by these angles, such as 0,15,30; see"
        " --resampling.",
    ),
)
_alignment_options = _grouped(
    click.option("--like", metavar="SCENE", help="Put the scenes on the grid of this raster."),
    click.option(
        "--crs",
        metavar="CRS",
        help="Put the scenes into this CRS, such as EPSG:32630.  [default: their own]",
    ),
    click.option(
        "--res",
        metavar="SIZE",
        help="Put the scenes to this pixel size, in units of the CRS: 10 or 10,20.  [default: their"
        " own]",
    ),
    click.option(
        "--resampling",
        default="auto",
        show_default=True,
        metavar="METHOD",
        help="How, where pixels do not coincide: auto (nearest for bands of classes, bilinear for"
        " others), nearest, bilinear, cubic, cubic_spline, lanczos, average, mode or med.",
    ),
    click.option(
        "--pair",
        multiple=True,
        metavar="SCENE",
        help="Partner of SCENE for the other domain: chips of the same windows of both, on the grid"
        " of SCENE, valid where both are. Repeat it for several scenes, in their order.",
    ),
    click.option(
        "--pair-bands",
        callback=split_bands,
        metavar="BANDS",
        help="Bands of the partner, like --bands.  [default: all but alpha]",
    ),
    click.option(
        "--pair-scale",
        metavar="SCALE",
        callback=_scale,
        help="Scaling of the partner, like --scale.  [default: auto]",
    ),
    click.option(
        "--pair-nodata",
        callback=nodata_value,
        metavar="VALUE",
        help="Undeclared nodata of the partner, like --nodata.",
    ),
    click.option("--pair-unit", metavar="UNIT", help="Unit of the partner, like --unit."),
)
_selection_options = _grouped(
    click.option(
        "--aoi",
        type=click.Path(path_type=Path),
        help="Vector file; only chips that its polygons cover are kept. FILE|layername=NAME names"
        " one of several layers.",
    ),
    click.option(
        "--min-cover",
        type=float,
        default=0.5,
        show_default=True,
        help="Least share of a chip, from 0 to 1, that the AOI must cover.",
    ),
    click.option(
        "--exclude",
        type=click.Path(path_type=Path),
        help="Vector file; chips that its polygons touch are left out.",
    ),
    click.option(
        "--mask",
        multiple=True,
        metavar="FILE",
        help="Raster of classes, on any grid, that makes pixels invalid (clouds). One for all"
        " scenes, or repeated for each in order.",
    ),
    click.option(
        "--mask-values",
        callback=_integers,
        metavar="CLASSES",
        help="Classes of --mask that are invalid, such as 3,8-10.  [default: all but 0]",
    ),
    click.option(
        "--min-valid",
        type=float,
        default=0.9,
        show_default=True,
        help="Least share of valid pixels in a chip, from 0 to 1, padding beyond a scene not"
        " counted.",
    ),
    click.option(
        "--min-std",
        type=float,
        default=0.0,
        show_default=True,
        help="Least standard deviation, in stored units, that some band of a chip must have.",
    ),
    click.option(
        "--drop-duplicates",
        is_flag=True,
        help="Leave out chips whose pixels are those of an earlier chip of the domain.",
    ),
    click.option(
        "--val",
        type=float,
        default=0.1,
        show_default=True,
        help="Share of the chips, from 0 to below 1, set aside for validation, in blocks apart from"
        " training.",
    ),
)


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
@stack_option
@bands_option
@nodata_option
@click.option(
    "--unit",
    metavar="UNIT",
    help="Unit of the pixel values, such as dB, where the files do not state it.",
)
@click.option(
    "--scale",
    default="auto",
    show_default=True,
    metavar="SCALE",
    callback=_scale,
    help="How pixel values become network levels: auto (1st to 99th percentile, tails squeezed),"
    " linear:LO,HI (in stored units), percentile:LO,HI (0 to 100), db (of power or amplitude),"
    " log1p or zscore. Fitted on the valid pixels of all scenes of the domain.",
)
@click.option(
    "--shared-scale",
    is_flag=True,
    help="One scaling for all bands, fitted on them together, so that their ratios are kept; not"
    " for the partner of a --pair.",
)
@_geometry_options
@_alignment_options
@_selection_options
@click.option(
    "--labels",
    multiple=True,
    metavar="FILE",
    help="Raster of classes, on any grid, to cut alongside into labels_a/ or labels_b/. One for all"
    " scenes, or repeated for each in order.",
)
@click.option(
    "--format",
    type=click.Choice(["tif", "npy"]),
    default="tif",
    show_default=True,
    help="GeoTIFF chips, or NumPy arrays whose place is in the list of chips only.",
)
@click.option(
    "--compress",
    default="zstd",
    show_default=True,
    metavar="CODEC",
    callback=_codec,
    help="Compression of chips: zstd, deflate, lerc (lossless), lerc:MAX_ERROR in stored units, or"
    " none.",
)
@click.option(
    "--layout",
    type=click.Choice(["cyclegan", "arcgis"]),
    help="Write the set for another program, too: OUT/cyclegan (trainA, testA, ... of 8-bit PNGs)"
    " or OUT/arcgis (images, labels, map.txt).",
)
@click.option("--gpkg", is_flag=True, help="Write the list of chips as chips.gpkg, too.")
@click.option(
    "--virtual",
    is_flag=True,
    help="Write no chips, only their list; training reads them from the scenes.",
)
@workers_option
@cluster_option
@seed_option
@overwrite_option
@click.pass_obj
def command(settings: Settings | None, /, scenes: tuple[str, ...], **given: Any) -> None:
    """Cut scenes into chips that CycleGANs are trained on.

    SCENE is a file, a glob pattern, a folder of rasters, a URL or a sub-dataset. Chipping a scene
    again refreshes its chips; further scenes are added to the domain.

    \b
        geocyclegan chip sar.tif --domain a
        geocyclegan chip scenes/*.tif --domain b --bands B04,B03,B02 --size 256 --stride 128
        geocyclegan chip sar.tif --pair optical.tif --mask clouds.tif
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.chips.options import ChipOptions
    from geocyclegan.chips.tiler import chip_pairs, chip_scenes
    from geocyclegan.errors import OptionError

    partners = given.pop("pair")
    pair_bands, pair_scale = given.pop("pair_bands"), given.pop("pair_scale")
    pair_nodata, pair_unit = given.pop("pair_nodata"), given.pop("pair_unit")
    options = ChipOptions(**given)
    if partners:
        other = options.partner(pair_bands, pair_scale, pair_nodata, pair_unit)
        reports = chip_pairs(scenes, partners, options, other)
        domains = [options.domain, other.domain]
    else:
        partly = [("bands", pair_bands), ("scale", pair_scale), ("nodata", pair_nodata)]
        partly.append(("unit", pair_unit))
        for name, value in partly:
            if value is not None:
                raise OptionError(f"--pair-{name}: it is for a --pair, and none is named")
        reports = (chip_scenes(scenes, options),)  # type: ignore[assignment]
        domains = [options.domain]
    if settings is None or not settings.quiet:
        for report, domain in zip(reports, domains, strict=True):
            click.echo(summary(report, domain))
        click.echo(following(reports[-1], domains[-1]))
