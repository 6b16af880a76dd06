"""From scenes and a model bundle to products: everything around the tile engine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from geocyclegan import __version__
from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, OutputError, SceneError
from geocyclegan.files import output_lock
from geocyclegan.inference.adapted import Adapted
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.levels import Output
from geocyclegan.inference.memory import budget_of, fit
from geocyclegan.inference.precision import Precision, choose_precision, lower
from geocyclegan.inference.provenance import tags_of
from geocyclegan.inference.resume import KeptPieces, recorded_cut
from geocyclegan.inference.statistics import NormStats, resolve_mode
from geocyclegan.inference.style import use_style
from geocyclegan.inference.threads import BackgroundWriter
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.progress import Progress
from geocyclegan.raster import stack
from geocyclegan.raster.bandfiles import paths_of, told
from geocyclegan.raster.bands import bands_for
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.undeclared import parse_nodata, undeclared_value

log = logging.getLogger(__name__)

_CACHE_BYTES = 64 << 20
# Resolutions that differ by more than this make features of another size than those learned.
_GSD_TOLERANCE = 0.1
# A run of fewer tiles is over too soon for keeping its tiles to pay.
KEPT_FROM_TILES = 16


@dataclass(frozen=True)
class TranslateOptions:
    """How to translate.

    Attributes:
        direction: "a2b" or "b2a".
        bands: bands of the scene to take, in the model's order; None chooses by name.
        nodata: stored number that stands for no data where all bands have it, though the scene does
            not say so; "none": there is none; None: that of the source domain.
        overwrite: replace a product that exists.
        device: where to run.
        norm_stats: whose statistics to normalise with; "auto": as the model was trained.
        style: "seed:N" or a scene of the target domain, for models with styles; None: the mean.
        engine: how to cut; its `statistics.mode` follows from `norm_stats`. A tile or batch of None
            is chosen from the memory.
        precision: number format of the generator; "auto" chooses by device.
        memory: bytes that tiles may take; None: a share of what is free.
    """

    direction: Direction = "a2b"
    bands: Sequence[str] | None = None
    nodata: float | Literal["none"] | None = None
    overwrite: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    norm_stats: NormStats = "auto"
    style: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    precision: Precision = "auto"
    memory: int | None = None


def load_generator(bundle: Bundle, options: TranslateOptions) -> Generator:
    """Load the generator of a model, in the precision asked for, where it shall run.

    Raises:
        BundleError: the model cannot be loaded.
        OptionError: the device cannot compute in that precision.
    """
    precision = choose_precision(options.precision, options.device)
    generator = bundle.generator(options.direction, options.device)
    lower(generator, precision)
    return generator


def translate_scene(scene_path: str, out: Path, bundle: Bundle, options: TranslateOptions) -> Path:
    """Translate one scene into a product.

    Args:
        scene_path: anything GDAL reads.
        out: the product, a GeoTIFF.
        bundle: the model.
        options: how.

    Returns:
        The path of the product.

    Raises:
        SceneError: the scene cannot be read, lacks the bands, or has no valid pixel.
        OutputError: the product exists, is the scene itself, or cannot be written.
        BundleError: the model cannot be loaded.
    """
    refuse_output(scene_path, out, options.overwrite)
    generator = load_generator(bundle, options)
    translate_scene_with(scene_path, out, bundle, generator, options)
    return out


def translate_scene_with(
    scene_path: str, out: Path, bundle: Bundle, generator: Generator, options: TranslateOptions
) -> None:
    """Translate a scene with a generator that is loaded already.

    Raises:
        SceneError: the scene cannot be read, lacks the bands, or has no valid pixel.
        OutputError: the product cannot be written.
    """
    with open_scene(scene_path, generator, bundle, options) as scene, output_lock(out):
        write_product(scene, generator, bundle, out, options)


@contextmanager
def open_scene(
    scene_path: str, generator: Generator, bundle: Bundle, options: TranslateOptions
) -> Iterator[Scene]:
    """Open a scene with the bands that a model wants, and check that it fits.

    Raises:
        SceneError: the scene cannot be read or lacks the bands.
        OptionError: the bands or the style do not fit the model, or no pixel can hold the nodata
            value.
    """
    source = bundle.source(options.direction)
    use_style(generator, bundle, options.direction, options.style, options.device)
    amplitude = source.amplitude
    with gdal_env(), stack.open_scene(scene_path, options.bands, amplitude=amplitude) as scene:
        bands = options.bands or _bands(bundle, options.direction, scene)
        cache = _cache_bytes(scene, generator, options)
    with (
        gdal_env(cache),
        stack.open_scene(scene_path, bands, amplitude=amplitude) as scene,
    ):
        _check(scene, source)
        scene.leave_out(_undeclared(scene, source, options))
        yield scene


def _undeclared(scene: Scene, source: Domain, options: TranslateOptions) -> float | None:
    """Return the number that stands for no data in a scene: as asked for, or as in training."""
    if options.nodata is None:
        return source.undeclared
    if options.nodata == "none":
        return None
    return undeclared_value(parse_nodata(options.nodata), scene.bands, told(scene.path))


def write_product(
    scene: Scene, generator: Generator, bundle: Bundle, out: Path, options: TranslateOptions
) -> None:
    """Run a generator over an open scene and write the product.

    Raises:
        SceneError: the scene has no valid pixel, or cannot be read.
        OutputError: the product cannot be written.
    """
    work = prepare(scene, generator, bundle, out, options)
    kept = work.kept
    try:
        with ProductWriter(out, work.spec) as product:
            _translate_into(product, work.engine, work.adapted, kept, scene)
    except SceneError:
        # The next run would fail as well: nothing is left behind.
        kept.discard()
        raise
    kept.discard()


@dataclass(frozen=True, eq=False)
class SceneWork:
    """A scene that is ready to be translated.

    Attributes:
        engine: what translates it.
        adapted: its pixels, in the numbers of its domain.
        spec: what the product will be.
        kept: where finished pieces are kept.
    """

    engine: TileEngine
    adapted: Adapted
    spec: ProductSpec
    kept: KeptPieces


def prepare(
    scene: Scene,
    generator: Generator,
    bundle: Bundle,
    out: Path,
    options: TranslateOptions,
    trained: Sequence[Moments] | None = None,
) -> SceneWork:
    """Settle how an open scene is translated; nothing is read or written.

    Args:
        scene: opened by `open_scene`.
        generator: of the bundle.
        bundle: the model.
        out: the product.
        options: how.
        trained: statistics of the scene, if they are known already.

    Raises:
        MemoryShortage: not even a small tile fits into memory.
        OptionError: the model cannot do what was asked for.
    """
    source, target = bundle.source(options.direction), bundle.target(options.direction)
    shape = scene.grid.shape
    engine = _engine(generator, bundle, out, options, shape, trained)
    job = _job(scene, bundle, engine.options, options)
    recorded = recorded_cut(out, job)
    if recorded is not None and options.engine.tile is None and options.engine.batch is None:
        # What an interrupted run chose from the memory of then; its pieces are of those tiles.
        tile, batch = recorded
        options = replace(options, engine=replace(options.engine, tile=tile, batch=batch))
        engine = _engine(generator, bundle, out, options, shape, trained)
        job = _job(scene, bundle, engine.options, options)
    spec = ProductSpec(
        grid=scene.grid,
        domain=target,
        tags=tags_of(
            scene, bundle, options.direction, engine.options.statistics.mode, options.style
        ),
        masked=scene.may_have_invalid,
    )
    kept = KeptPieces(out, job, active=engine.count(*shape) >= KEPT_FROM_TILES)
    return SceneWork(engine, Adapted(scene, source), spec, kept)


def _translate_into(
    product: ProductWriter,
    engine: TileEngine,
    adapted: Adapted,
    kept: KeptPieces,
    scene: Scene,
) -> None:
    height, width = scene.grid.shape
    done = set()
    for piece in kept.load():
        product.write(piece.window, piece.pixels, piece.valid)
        done.add(piece.window)
    if done:
        log.warning(
            "%s: goes on where an interrupted run stopped, with %d finished parts",
            *(product.final, len(done)),
        )

    def write(output: Output) -> None:
        piece = engine.finish(output)
        product.write(piece.window, piece.pixels, piece.valid)
        kept.keep(piece)

    total = engine.count(height, width)
    with (
        Progress(total, f"infer {scene.name}", "tile", done=len(done)) as progress,
        BackgroundWriter(write) as writer,
    ):
        for output in engine.outputs(adapted, height, width, done):
            writer.put(output)
            progress.update(output.tiles)
    if not product.valid_pixels:
        raise nothing_valid(scene.path)


def _precision(options: TranslateOptions) -> Precision:
    # Settled already where scenes go to other machines, whose GPUs this one may lack.
    if options.precision != "auto":
        return options.precision
    return choose_precision("auto", options.device)


def nothing_valid(scene_path: str) -> SceneError:
    """Return the error of a scene without a valid pixel."""
    return SceneError(
        f"{told(scene_path)}: no valid pixel in it (all nodata, masked or not finite), so there is"
        " nothing to translate"
    )


def _job(
    scene: Scene, bundle: Bundle, cut: EngineOptions, options: TranslateOptions
) -> dict[str, Any]:
    """All that the pixels of a product depend on."""
    files = [Path(path) for path in scene.files]
    states = [file.stat() for file in files if file.is_file()]
    return {
        "geocyclegan": __version__,
        "torch": str(torch.__version__),
        "device": options.device.type,
        "precision": _precision(options),
        "model": bundle.weights_sha256,
        "direction": options.direction,
        "scene": [str(file.resolve()) if file.is_file() else str(file) for file in files],
        "changed": [[stat.st_size, stat.st_mtime_ns] for stat in states],
        "style": options.style,
        "shape": list(scene.grid.shape),
        "bands": [band.index for band in scene.bands],
        "undeclared_nodata": scene.undeclared,
        # Neither memory nor disk changes a pixel.
        "cut": asdict(cut)
        | {"statistics": {"mode": cut.statistics.mode, "crops": cut.statistics.crops}},
    }


def _engine(
    generator: Generator,
    bundle: Bundle,
    out: Path,
    options: TranslateOptions,
    shape: tuple[int, int],
    trained: Sequence[Moments] | None,
) -> TileEngine:
    """The engine of a scene, in the statistics mode that the model asks for."""
    cut, mode = options.engine, options.norm_stats
    if isinstance(generator, Generator):
        if options.style is not None and options.norm_stats == "frozen":
            raise OptionError(
                f"--norm-stats frozen with --style {options.style}: the statistics in the model are"
                " those of its mean style; choose sample, exact or dense, or leave one of them out"
            )
        mode = resolve_mode(
            options.norm_stats,
            generator,
            pool=str(bundle.normalization.get("pool", "crop")),
            has_statistics=bundle.has_statistics and options.style is None,
            model=str(bundle.folder),
        )
        log.info("statistics of the norm layers: %s", mode)
        if mode == "frozen":
            trained = bundle.statistics(options.direction)
    statistics = replace(cut.statistics, mode=mode, folder=out.parent)
    cut = replace(cut, statistics=statistics)
    if getattr(generator, "halo", None) is not None:
        found = fit(
            generator,
            options.device,
            shape,
            tile=cut.tile,
            batch=cut.batch,
            budget=budget_of(options.device, options.memory, asked=cut.tile is not None),
        )
        log.info("tiles of %d px, %d at a time", found.tile, found.batch)
        cut = replace(cut, tile=found.tile, batch=found.batch)
    source, target = bundle.source(options.direction), bundle.target(options.direction)
    return TileEngine(generator, source, target, options.device, cut, trained)


def refuse_output(scene_path: str, out: Path, overwrite: bool) -> None:
    """Refuse an output that is the input, is a folder, or exists and may not be replaced.

    Raises:
        OptionError: it is the input or a folder, so that another name is wanted.
        OutputError: it exists.
    """
    if out.is_dir():
        raise OptionError(f"--out {out}: a folder; name the GeoTIFF to write")
    if out.exists() and any(
        os.path.exists(path) and os.path.samefile(out, path) for path in paths_of(scene_path)
    ):
        raise OptionError(f"--out {out}: it is the input scene; choose another name")
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or choose another name")


def _bands(bundle: Bundle, direction: Direction, scene: Scene) -> list[str]:
    source, target = bundle.source(direction), bundle.target(direction)
    try:
        return bands_for(source, scene.all_bands, told(scene.path))
    except SceneError as error:
        try:
            bands_for(target, scene.all_bands, scene.path)
        except SceneError:
            raise error from None
        # The commonest slip: the scene is one of the other side.
        other = "b2a" if direction == "a2b" else "a2b"
        if other not in bundle.generators:
            raise
        raise SceneError(f"{error}, or give --direction {other}") from None


def _check(scene: Scene, source: Domain) -> None:
    if len(scene.bands) != source.count:
        raise OptionError(
            f"--bands: {len(scene.bands)} chosen from {told(scene.path)}, the model wants"
            f" {source.count} ({', '.join(source.labels)})"
        )
    gsd = scene.grid.gsd
    if gsd is not None and source.gsd is not None:
        ratio = gsd / source.gsd
        if abs(ratio - 1.0) > _GSD_TOLERANCE:
            log.warning(
                "%s: its pixels are %.3g m, the model was trained at %.3g m; resample it for"
                " features of the size that the model knows",
                told(scene.path),
                gsd,
                source.gsd,
            )


def _cache_bytes(scene: Scene, generator: Generator, options: TranslateOptions) -> int:
    """GDAL's block cache: a fixed size, or one row of tiles where the file needs more.

    A file stored in strips decodes whole rows of the scene for every tile, so that a row of tiles
    must stay in the cache. In a tiled file only the blocks under a halo are decoded twice; a cache
    for those would grow with the scene and save little beside the forward pass.
    """
    block_rows, block_cols = scene.block_shape
    if block_cols < scene.grid.width:
        return _CACHE_BYTES
    rows = (options.engine.tile or 512) + 2 * (generator.halo or 0) + block_rows
    row_bytes = scene.grid.width * len(scene.all_bands) * np.dtype(scene.dtype).itemsize
    # A quarter more for the blocks of the product that wait to be written.
    return max(_CACHE_BYTES, min(rows, scene.grid.height) * row_bytes * 5 // 4)
