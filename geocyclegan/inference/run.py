"""Translate many scenes: the whole of `geocyclegan infer`, as one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geocyclegan.bundle import Bundle, Direction, load_bundle, newest_bundle
from geocyclegan.device import choose_device
from geocyclegan.errors import GeoCycleGANError, OptionError, SceneError
from geocyclegan.files import refuse_as_folder
from geocyclegan.inference.devices import count_devices, device_crew
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.precision import Precision
from geocyclegan.inference.statistics import STATS_MEMORY, NormStats, StatisticsOptions
from geocyclegan.inference.translate import (
    inputs_of,
    load_generator,
    refuse_output,
    translate_scene_with,
)
from geocyclegan.raster.naming import distinct_names
from geocyclegan.raster.sources import expand_scenes

RUNS = Path("runs")
"""Where the newest run is looked for."""

PRODUCT = Path("translated.tif")
"""What the product of one scene is called; of several, the folder of this name without suffix."""


@dataclass(frozen=True)
class InferOptions:
    """The options of `infer`.

    Attributes:
        out: GeoTIFF to write; with several scenes, a folder for SCENE_DIRECTION.tif each; None:
            "translated.tif", or the folder "translated".
        model: run or bundle folder; None: the newest run in `runs`.
        direction: "a2b" or "b2a"; None: a2b, or the one way that the model knows.
        bands: bands of the scene in the model's order; None: those that the model names.
        nodata: stored number that stands for no data where all bands have it, though the scene does
            not say so; "none": there is none; None: the one that the model remembers.
        tile: px per tile side, without its halo; None: by device, scene and free memory.
        batch: tiles per forward pass; None: by device and free memory.
        precision: number format of the network; "auto": by device. Statistics are kept in 32.
        memory: bytes that tiles may take; None: a share of what is free.
        norm_stats: whose statistics normalise the scene; "auto": as the model was trained.
        style: look of the translation, of models with many: a scene of the target domain, or
            "seed:N"; None: the mean of the training set.
        stats_memory: bytes for the passes of "sample" and "exact".
        stats_disk: bytes beside the product for activations that `stats_memory` does not hold;
            None: none.
        device: "auto", "cpu" or "cuda".
        devices: GPUs of this machine to share the work, or "all"; on a CPU, processes.
        cluster: address of a Dask scheduler, or "local:N"; None: this process.
        stack: put files together that differ in their band only.
        overwrite: replace products that exist.
    """

    out: Path | None = None
    model: Path | None = None
    direction: Direction | None = None
    bands: tuple[str, ...] | None = None
    nodata: float | Literal["none"] | None = None
    tile: int | None = None
    batch: int | None = None
    precision: Precision = "auto"
    memory: int | None = None
    norm_stats: NormStats = "auto"
    style: str | None = None
    stats_memory: int = STATS_MEMORY
    stats_disk: int | None = None
    device: str = "auto"
    devices: str = "1"
    cluster: str | None = None
    stack: bool = False
    overwrite: bool = False

    def bundle(self) -> Bundle:
        """Read the model that is meant.

        Raises:
            NotFoundError: there is none.
            BundleError: it is not one.
        """
        return newest_bundle(RUNS) if self.model is None else load_bundle(self.model)

    def translation(self, bundle: Bundle) -> TranslateOptions:
        """Return how each scene is translated.

        Raises:
            BundleError: the model does not translate in the direction asked for.
            OptionError: CUDA was asked for and there is none.
        """
        return TranslateOptions(
            direction=bundle.way(self.direction),
            bands=self.bands,
            nodata=self.nodata,
            overwrite=self.overwrite,
            # On a cluster it is the workers' device that counts.
            device=choose_device(self.device if self.cluster is None else "cpu"),
            norm_stats=self.norm_stats,
            style=self.style,
            engine=EngineOptions(
                tile=self.tile,
                batch=self.batch,
                window=bundle.tile,
                statistics=StatisticsOptions(memory=self.stats_memory, disk=self.stats_disk),
            ),
            precision=self.precision,
            memory=self.memory,
        )


def infer_scenes(
    scenes: Sequence[str | Path],
    options: InferOptions,
    finished: Callable[[Path], None] = lambda product: None,
    failed: Callable[[GeoCycleGANError], None] = lambda error: None,
    bundle: Bundle | None = None,
) -> list[Path]:
    """Translate scenes into products, each whole or absent.

    Args:
        scenes: files, glob patterns, folders, URLs or sub-dataset names; none: the scenes that the
            model's source domain was chipped from.
        options: how.
        finished: called with each product.
        failed: called with the error of each scene that fails, where there are several.
        bundle: the model, if it is loaded already; None: as the options say.

    Returns:
        The products.

    Raises:
        NotFoundError: a scene or the model is not there.
        OptionError: an option does not fit the model or the scenes.
        SceneError: a scene cannot be translated; the others have been.
        OutputError: a product exists or cannot be written.
        BundleError: the model is damaged.
        ClusterError: the cluster cannot be used.
    """
    if options.cluster is not None and options.devices != "1":
        raise OptionError("--devices: on a cluster each worker has one; leave it out")
    bundle = options.bundle() if bundle is None else bundle
    how = options.translation(bundle)
    sources = (
        expand_scenes(scenes, stack=options.stack, synthetic="alone")
        if scenes
        else _recorded(bundle, how.direction)
    )
    products = product_paths(sources, options.out, how.direction)
    # One scene's product may be another scene.
    inputs = inputs_of(sources, bundle, how)
    for product in products:
        refuse_output(product, inputs, options.overwrite)
    done: list[Path] = []
    for number, error in _translated(sources, products, bundle, how, options):
        if error is None:
            done.append(products[number])
            finished(products[number])
        elif len(sources) == 1:
            raise error
        else:
            failed(error)
    if len(done) < len(sources):
        lost = len(sources) - len(done)
        raise SceneError(f"{lost} of {len(sources)} scenes were not translated")
    return done


def _translated(
    sources: Sequence[str],
    products: Sequence[Path],
    bundle: Bundle,
    how: TranslateOptions,
    options: InferOptions,
) -> Iterator[tuple[int, GeoCycleGANError | None]]:
    """Translate scenes here or elsewhere; yield the number of each, and what went wrong with it."""
    if options.cluster is not None:
        from geocyclegan.crew import DaskCrew
        from geocyclegan.inference.cluster import translate_scenes

        with DaskCrew(options.cluster) as crew:
            yield from translate_scenes(crew, sources, products, bundle, how, options.device)
        return
    count = count_devices(options.devices, how.device)
    if count > 1:
        from geocyclegan.inference.cluster import translate_scenes

        with device_crew(count, how.device) as local:
            yield from translate_scenes(local, sources, products, bundle, how, how.device.type)
        return
    generator = load_generator(bundle, how)
    for number, (source, product) in enumerate(zip(sources, products, strict=True)):
        try:
            translate_scene_with(source, product, bundle, generator, how)
        except GeoCycleGANError as error:
            yield number, error
        else:
            yield number, None


def _recorded(bundle: Bundle, direction: Direction) -> list[str]:
    recorded = dict(bundle.training.get("scenes", {}))
    sources = [str(path) for path in recorded.get(direction[0], [])]
    if not sources:
        raise OptionError(f"the model in {bundle.folder} records no scenes; name one")
    return sources


def product_paths(sources: Sequence[str], out: Path | None, direction: Direction) -> list[Path]:
    """Name the product of each scene.

    Scenes whose files are called alike are told apart by their folders, see `distinct_names`.

    Args:
        sources: the scenes.
        out: a GeoTIFF for one scene, or a folder; None: `translated.tif`, or `translated`.
        direction: which way they are translated.

    Raises:
        OptionError: `out` does not fit the number of scenes.
    """
    if out is None:
        out = PRODUCT if len(sources) == 1 else PRODUCT.with_suffix("")
    is_folder = out.is_dir() or not out.suffix
    if len(sources) == 1 and not is_folder:
        if out.suffix.lower() not in (".tif", ".tiff"):
            raise OptionError(f"--out {out}: products are GeoTIFFs; name it {out.stem}.tif")
        return [out]
    if not is_folder:
        raise OptionError(
            f"--out {out}: {len(sources)} scenes need a folder; name one, such as {out.stem}/"
        )
    refuse_as_folder(out)
    return [out / f"{name}_{direction}.tif" for name in distinct_names(sources)]
