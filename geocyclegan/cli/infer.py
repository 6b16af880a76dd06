"""`geocyclegan infer`: whole scenes through a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from geocyclegan.cli.options import (
    Settings,
    auto_or_int,
    cluster_option,
    nodata_value,
    overwrite_option,
    parse_bytes,
    split_bands,
    stack_option,
)


def _nodata(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> float | Literal["none"] | None:
    """Read a number, or "none", which switches off what the model knows."""
    return "none" if value == "none" else nodata_value(ctx, param, value)


@click.command("infer")
@click.argument("scenes", nargs=-1, metavar="[SCENE]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="GeoTIFF to write; with several scenes, a folder for SCENE_a2b.tif each.  [default:"
    " translated.tif, or the folder translated]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    help="Run or bundle folder.  [default: the newest run in runs/]",
)
@click.option(
    "--direction",
    type=click.Choice(["a2b", "b2a"]),
    default=None,
    help="Which way to translate.  [default: a2b, or the one way that the model knows]",
)
@click.option(
    "--bands",
    callback=split_bands,
    metavar="BANDS",
    help="Bands of the scene in the model's order, by number or description: 4,3,2 or VV,VH."
    "  [default: those that the model names]",
)
@click.option(
    "--nodata",
    callback=_nodata,
    metavar="VALUE|none",
    help="Stored number that stands for no data though the scene does not say so: pixels are"
    " invalid where all bands have it; none: there is no such number.  [default: that of chip"
    " --nodata, which the model remembers]",
)
@click.option(
    "--tile",
    callback=auto_or_int,
    default="auto",
    show_default=True,
    metavar="PIXELS",
    help="Pixels per tile side, without its halo; auto: by device, scene and free memory.",
)
@click.option(
    "--batch",
    callback=auto_or_int,
    default="auto",
    show_default=True,
    metavar="TILES",
    help="Tiles per forward pass; auto: by device and free memory.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Number format of the network; auto: bf16 on GPUs that have it, else 32. Statistics are"
    " kept in 32.",
)
@click.option(
    "--memory",
    callback=parse_bytes,
    default=None,
    metavar="SIZE",
    help="Memory that tiles may take, such as 4G; --stats-memory is apart.  [default: half of what"
    " is free, on a GPU four fifths]",
)
@click.option(
    "--norm-stats",
    type=click.Choice(["auto", "frozen", "sample", "exact", "dense", "tile"]),
    default="auto",
    show_default=True,
    help="Whose statistics normalise the scene: those of the training set (frozen), of some crops"
    " of the scene (sample), of all of it (exact), of each pixel's surroundings (dense), or of each"
    " tile (with seams); auto: as the model was trained.",
)
@click.option(
    "--style",
    metavar="SCENE|seed:N",
    help="Look of the translation, for models of --method munit: that of a scene of the target"
    " domain, or one drawn by a seed.  [default: the mean of the training set]",
)
@click.option(
    "--stats-memory",
    callback=parse_bytes,
    default="2G",
    show_default=True,
    metavar="SIZE",
    help="Memory for the activations that sample and exact hold from layer to layer; what does not"
    " fit is computed again.",
)
@click.option(
    "--stats-disk",
    callback=parse_bytes,
    default=None,
    metavar="SIZE",
    help="Disk space beside the product for activations that --stats-memory does not hold."
    "  [default: none]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; auto takes CUDA when there is one.",
)
@click.option(
    "--devices",
    default="1",
    show_default=True,
    metavar="N|all",
    help="GPUs of this machine to share the work; on a CPU, processes.",
)
@cluster_option
@stack_option
@overwrite_option
@click.pass_obj
def command(settings: Settings, /, scenes: tuple[str, ...], **given: Any) -> None:
    """Translate whole scenes into Cloud-Optimised GeoTIFFs on their own grid.

    Without a SCENE, the scenes that the model's source domain was chipped from are translated.

    \b
        geocyclegan infer sar.tif --out optical.tif
        geocyclegan infer scenes/*.tif --out products/
        geocyclegan infer optical.tif --direction b2a --out sar.tif
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.inference.run import InferOptions, infer_scenes

    def show(product: Path) -> None:
        if not settings.quiet:
            click.echo(str(product))

    def tell(error: Exception) -> None:
        click.echo(f"Error: {error}", err=True)

    infer_scenes(scenes, InferOptions(**given), finished=show, failed=tell)
