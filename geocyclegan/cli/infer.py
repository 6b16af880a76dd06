"""`geocyclegan infer`: whole scenes through a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geocyclegan.cli.options import (
    Settings,
    auto_or_int,
    cluster_option,
    overwrite_option,
    parse_bytes,
    split_bands,
)
from geocyclegan.errors import GeoCycleGANError, OptionError, SceneError

if TYPE_CHECKING:
    from geocyclegan.bundle import Bundle
    from geocyclegan.inference.translate import TranslateOptions


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
    default="a2b",
    show_default=True,
    help="Which way to translate.",
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
    help="Disk space beside the product for activations that --stats-memory does not hold.",
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
@overwrite_option
@click.pass_obj
def command(
    settings: Settings,
    scenes: tuple[str, ...],
    out: Path,
    model: Path | None,
    direction: str,
    bands: tuple[str, ...] | None,
    tile: int | None,
    batch: int | None,
    precision: str,
    memory: int | None,
    norm_stats: str,
    stats_memory: int,
    stats_disk: int | None,
    device: str,
    devices: str,
    cluster: str | None,
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
    from geocyclegan.inference.precision import Precision
    from geocyclegan.inference.statistics import NormStats, StatisticsOptions
    from geocyclegan.inference.translate import TranslateOptions, refuse_output
    from geocyclegan.raster.sources import expand_scenes

    if cluster is not None and devices != "1":
        raise OptionError("--devices: on a cluster each worker has one; leave it out")
    bundle = load_bundle(model) if model is not None else newest_bundle(Path("runs"))
    options = TranslateOptions(
        direction=cast(Direction, direction),
        bands=bands,
        overwrite=overwrite,
        # On a cluster it is the workers' device that counts.
        device=choose_device(device if cluster is None else "cpu"),
        norm_stats=cast(NormStats, norm_stats),
        engine=EngineOptions(
            tile=tile,
            batch=batch,
            window=bundle.tile,
            statistics=StatisticsOptions(memory=stats_memory, disk=stats_disk),
        ),
        precision=cast(Precision, precision),
        memory=memory,
    )
    if scenes:
        sources = expand_scenes(scenes)
    else:
        recorded = dict(bundle.training.get("scenes", {}))
        sources = [str(path) for path in recorded.get(direction[0], [])]
        if not sources:
            raise OptionError(f"the model in {bundle.folder} records no scenes; name one")
    products = _product_paths(sources, out, direction)
    for source, product in zip(sources, products, strict=True):
        refuse_output(source, product, overwrite)
    failed: list[GeoCycleGANError] = []
    for number, error in _translated(sources, products, bundle, options, device, devices, cluster):
        if error is not None:
            if len(sources) == 1:
                raise error
            click.echo(f"Error: {error}", err=True)
            failed.append(error)
        elif not settings.quiet:
            click.echo(str(products[number]))
    if failed:
        raise SceneError(f"{len(failed)} of {len(sources)} scenes were not translated")


def _translated(
    sources: list[str],
    products: list[Path],
    bundle: Bundle,
    options: TranslateOptions,
    device: str,
    devices: str,
    cluster: str | None,
) -> Iterator[tuple[int, GeoCycleGANError | None]]:
    """Translate scenes here or elsewhere; yield the number of each, and what went wrong with it."""
    from geocyclegan.inference.devices import count_devices, device_crew
    from geocyclegan.inference.translate import load_generator, translate_scene_with

    if cluster is not None:
        from geocyclegan.crew import DaskCrew
        from geocyclegan.inference.cluster import translate_scenes

        with DaskCrew(cluster) as crew:
            yield from translate_scenes(crew, sources, products, bundle, options, device)
        return
    count = count_devices(devices, options.device)
    if count > 1:
        from geocyclegan.inference.cluster import translate_scenes

        with device_crew(count, options.device) as local:
            kind = options.device.type
            yield from translate_scenes(local, sources, products, bundle, options, kind)
        return
    generator = load_generator(bundle, options)
    for number, (source, product) in enumerate(zip(sources, products, strict=True)):
        try:
            translate_scene_with(source, product, bundle, generator, options)
        except GeoCycleGANError as error:
            yield number, error
        else:
            yield number, None


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
