"""From scenes and a model bundle to products: everything around the tile engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from geocyclegan import __version__
from geocyclegan.bundle import Bundle
from geocyclegan.errors import OptionError, OutputError, SceneError, ServerError
from geocyclegan.files import output_lock
from geocyclegan.inference.adapted import Adapted
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.fitting import open_scene
from geocyclegan.inference.levels import Output
from geocyclegan.inference.memory import budget_of, fit
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.precision import Precision, choose_precision, lower, rounded_products
from geocyclegan.inference.provenance import tags_of
from geocyclegan.inference.resume import KeptPieces, recorded_cut
from geocyclegan.inference.statistics import resolve_mode
from geocyclegan.inference.style import is_seed
from geocyclegan.inference.threads import BackgroundWriter
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.progress import Progress
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.inputs import Inputs
from geocyclegan.raster.opening import require_unchanged
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.remote import identity
from geocyclegan.raster.scene import Scene

log = logging.getLogger(__name__)

# A run of fewer tiles is over too soon for keeping its tiles to pay.
KEPT_FROM_TILES = 16


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
        NotFoundError: there is no such scene.
        OutputError: the product exists, is the scene itself, or cannot be written.
        BundleError: the model cannot be loaded.
        OptionError: an option does not fit the model or the device.
        MemoryShortage: not even a small tile fits into memory.
    """
    refuse_output(out, inputs_of([scene_path], bundle, options), options.overwrite)
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
    with (
        rounded_products(_precision(options)),
        open_scene(scene_path, generator, bundle, options) as scene,
        output_lock(out),
    ):
        write_product(scene, generator, bundle, out, options)


def write_product(
    scene: Scene, generator: Generator, bundle: Bundle, out: Path, options: TranslateOptions
) -> None:
    """Run a generator over an open scene and write the product.

    Raises:
        SceneError: the scene has no valid pixel, or cannot be read.
        OutputError: the product cannot be written.
        OptionError: the model cannot do what was asked for.
        MemoryShortage: not even a small tile fits into memory.
    """
    work = prepare(scene, generator, bundle, out, options)
    kept = work.kept
    try:
        with ProductWriter(out, work.spec) as product:
            _translate_into(product, work.engine, work.adapted, kept, scene)
    except ServerError as error:
        # The next run may well go on.
        if kept.any():
            raise ServerError(f"{error}; the tiles that are done are kept") from error
        raise
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
    # Of its own scenes, chip has said so; and "none" says that there is no such value.
    trained_on = dict(bundle.training.get("scenes", {})).get(options.direction[0], [])
    trusted = options.nodata == "none" or scene.path in trained_on
    return SceneWork(engine, Adapted(scene, source, trusted=trusted), spec, kept)


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
    require_unchanged(scene.files)


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
        "model": bundle.sha256,
        "direction": options.direction,
        "scene": [str(file.resolve()) if file.is_file() else str(file) for file in files],
        "changed": [
            *([stat.st_size, stat.st_mtime_ns] for stat in states),
            *(seen for seen in map(identity, scene.files) if seen),
        ],
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
    cut = options.engine
    statistics = replace(cut.statistics, mode=mode, folder=out.parent)
    cut = replace(cut, statistics=statistics)
    if generator.halo is not None:
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


def inputs_of(scenes: Sequence[str], bundle: Bundle, options: TranslateOptions) -> Inputs:
    """Return what is read when scenes are translated: they, the scene of a style, and the model."""
    style = options.style
    styled = () if style is None or is_seed(style) else (style,)
    return Inputs((*scenes, *styled), tuple(bundle.folder.glob("*")))


def refuse_output(out: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse an output that is an input, is a folder, or exists and may not be replaced.

    Raises:
        OptionError: it is an input or a folder, so that another name is wanted.
        OutputError: it exists.
    """
    if out.is_dir():
        raise OptionError(f"--out {out}: a folder; name the GeoTIFF to write")
    inputs.refuse("out", out)
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or choose another name")
