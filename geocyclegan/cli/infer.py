"""`geocyclegan infer`: whole scenes through a trained model."""

from __future__ import annotations

from pathlib import Path

import click

from geocyclegan.cli.options import Settings, overwrite_option, parse_bytes, split_bands
from geocyclegan.errors import GeoCycleGANError, OptionError, SceneError


@click.command("infer")
@click.argument("scenes", nargs=-1, metavar="[SCENE]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("translated.tif"),
    show_default=True,
    help="GeoTIFF to write; with several scenes, a folder for SCENE_a2b.tif each.",
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
    "--tile",
    type=click.IntRange(min=1),
    default=None,
    help="Pixels per tile side, without its halo.  [default: by device and scene]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=None,
    help="Tiles per forward pass.  [default: by device]",
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
    help="Memory for the passes of sample and exact; above it they take a pass for each layer.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; auto takes CUDA when there is one.",
)
@overwrite_option
@click.pass_obj
def command(
    settings: Settings,
    scenes: tuple[str, ...],
    out: Path,
    model: Path | None,
    direction: str | None,
    bands: tuple[str, ...] | None,
    tile: int | None,
    batch: int | None,
    norm_stats: str,
    style: str | None,
    stats_memory: int,
    device: str,
    overwrite: bool,
) -> None:
    """Translate whole scenes into Cloud-Optimised GeoTIFFs on their own grid.

    Without a SCENE, the scenes that the model's source domain was chipped from are translated.

    \b
        geocyclegan infer sar.tif --out optical.tif
        geocyclegan infer scenes/*.tif --out products/
        geocyclegan infer optical.tif --direction b2a --out sar.tif
    """  # noqa: D301 - click reads the backspace character
    from typing import cast

    from geocyclegan.bundle import Direction, load_bundle, newest_bundle
    from geocyclegan.device import choose_device
    from geocyclegan.inference.engine import EngineOptions
    from geocyclegan.inference.statistics import NormStats, StatisticsOptions
    from geocyclegan.inference.translate import (
        TranslateOptions,
        refuse_output,
        translate_scene_with,
    )
    from geocyclegan.raster.sources import expand_scenes

    bundle = load_bundle(model) if model is not None else newest_bundle(Path("runs"))
    way = bundle.way(cast(Direction | None, direction))
    options = TranslateOptions(
        direction=way,
        bands=bands,
        overwrite=overwrite,
        device=choose_device(device),
        norm_stats=cast(NormStats, norm_stats),
        style=style,
        engine=EngineOptions(
            tile=tile,
            batch=batch,
            window=bundle.tile,
            statistics=StatisticsOptions(memory=stats_memory),
        ),
    )
    if scenes:
        sources = expand_scenes(scenes)
    else:
        recorded = dict(bundle.training.get("scenes", {}))
        sources = [str(path) for path in recorded.get(way[0], [])]
        if not sources:
            raise OptionError(f"the model in {bundle.folder} records no scenes; name one")
    products = _product_paths(sources, out, way)
    for source, product in zip(sources, products, strict=True):
        refuse_output(source, product, overwrite)
    generator = bundle.generator(options.direction, options.device)
    failed: list[GeoCycleGANError] = []
    for source, product in zip(sources, products, strict=True):
        try:
            translate_scene_with(source, product, bundle, generator, options)
        except GeoCycleGANError as error:
            if len(sources) == 1:
                raise
            click.echo(f"Error: {error}", err=True)
            failed.append(error)
            continue
        if not settings.quiet:
            click.echo(str(product))
    if failed:
        raise SceneError(f"{len(failed)} of {len(sources)} scenes were not translated")


def _product_paths(sources: list[str], out: Path, direction: str) -> list[Path]:
    is_folder = out.is_dir() or not out.suffix
    if len(sources) == 1 and not is_folder:
        if out.suffix.lower() not in (".tif", ".tiff"):
            raise OptionError(f"--out {out}: products are GeoTIFFs; name it {out.stem}.tif")
        return [out]
    if not is_folder:
        raise OptionError(
            f"--out {out}: {len(sources)} scenes need a folder; name one, such as {out.stem}/"
        )
    products = [out / f"{Path(source).stem}_{direction}.tif" for source in sources]
    if len(set(products)) < len(products):
        raise OptionError(
            "two of the scenes have one name, so their products would overwrite each other;"
            " translate them into two folders"
        )
    return products
