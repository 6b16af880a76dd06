"""From scenes and a model bundle to products: everything around the tile engine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from geocyclegan import __version__
from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, OutputError, SceneError
from geocyclegan.files import output_lock
from geocyclegan.inference.engine import EngineOptions, Output, TileEngine
from geocyclegan.inference.resume import KeptPieces
from geocyclegan.inference.statistics import NormStats, resolve_mode
from geocyclegan.inference.style import use_style
from geocyclegan.inference.threads import BackgroundWriter
from geocyclegan.models.generator import Generator
from geocyclegan.progress import Progress
from geocyclegan.raster.bands import bands_for
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

_CACHE_BYTES = 64 << 20
# Resolutions that differ by more than this make features of another size than those learned.
_GSD_TOLERANCE = 0.1
# A run of fewer tiles is over too soon for keeping its tiles to pay.
_KEPT_FROM_TILES = 16


@dataclass(frozen=True)
class TranslateOptions:
    """How to translate.

    Attributes:
        direction: "a2b" or "b2a".
        bands: bands of the scene to take, in the model's order; None chooses by name.
        overwrite: replace a product that exists.
        device: where to run.
        norm_stats: whose statistics to normalise with; "auto": as the model was trained.
        style: "seed:N" or a scene of the target domain, for models with styles; None: the mean.
        engine: how to cut; its `statistics.mode` follows from `norm_stats`.
    """

    direction: Direction = "a2b"
    bands: Sequence[str] | None = None
    overwrite: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    norm_stats: NormStats = "auto"
    style: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)


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
    generator = bundle.generator(options.direction, options.device)
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
    source = bundle.source(options.direction)
    use_style(generator, bundle, options.direction, options.style, options.device)
    with gdal_env(), Scene(scene_path, options.bands, amplitude=source.amplitude) as scene:
        bands = options.bands or _bands(bundle, options.direction, scene)
        cache = _cache_bytes(scene, generator, options)
    with (
        gdal_env(cache),
        Scene(scene_path, bands, amplitude=source.amplitude) as scene,
    ):
        _check(scene, source)
        with output_lock(out):
            write_product(scene, generator, bundle, out, options)


def write_product(
    scene: Scene, generator: Generator, bundle: Bundle, out: Path, options: TranslateOptions
) -> None:
    """Run a generator over an open scene and write the product.

    Raises:
        SceneError: the scene has no valid pixel, or cannot be read.
        OutputError: the product cannot be written.
    """
    source, target = bundle.source(options.direction), bundle.target(options.direction)
    engine = _engine(generator, bundle, options)
    height, width = scene.grid.shape
    spec = ProductSpec(
        grid=scene.grid,
        domain=target,
        tags=_tags(scene, bundle, options, engine.options.statistics.mode),
        masked=scene.may_have_invalid,
    )
    tiles = engine.count(height, width)
    kept = KeptPieces(
        out, _job(scene, bundle, engine.options, options), active=tiles >= _KEPT_FROM_TILES
    )
    try:
        with ProductWriter(out, spec) as product:
            _translate_into(product, engine, _Adapted(scene, source), kept, scene)
    except SceneError:
        # The next run would fail as well: nothing is left behind.
        kept.discard()
        raise
    kept.discard()


def _translate_into(
    product: ProductWriter,
    engine: TileEngine,
    adapted: _Adapted,
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
        raise SceneError(
            f"{scene.path}: no valid pixel in it (all nodata, masked or not finite), so there"
            " is nothing to translate"
        )


def _job(
    scene: Scene, bundle: Bundle, cut: EngineOptions, options: TranslateOptions
) -> dict[str, Any]:
    """All that the pixels of a product depend on."""
    file = Path(scene.path)
    stat = file.stat() if file.is_file() else None
    return {
        "geocyclegan": __version__,
        "torch": str(torch.__version__),
        "device": options.device.type,
        "model": bundle.weights_sha256,
        "direction": options.direction,
        "style": options.style,
        "scene": str(file.resolve()) if stat else scene.path,
        "changed": [stat.st_size, stat.st_mtime_ns] if stat else None,
        "shape": list(scene.grid.shape),
        "bands": [band.index for band in scene.bands],
        "cut": asdict(cut),
    }


def _engine(generator: Generator, bundle: Bundle, options: TranslateOptions) -> TileEngine:
    """The engine of a scene, in the statistics mode that the model asks for."""
    cut, trained, mode = options.engine, None, options.norm_stats
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
        trained = bundle.statistics(options.direction) if mode == "frozen" else None
    cut = replace(cut, statistics=replace(cut.statistics, mode=mode))
    source, target = bundle.source(options.direction), bundle.target(options.direction)
    return TileEngine(generator, source, target, options.device, cut, trained)


class _Adapted:
    """A scene in the stored numbers of its domain: differing scale and offset tags are applied."""

    def __init__(self, scene: Scene, domain: Domain) -> None:
        self._scene = scene
        self._factors = []
        for band, wanted in zip(scene.bands, domain.bands, strict=True):
            ours, theirs = (band.scale, band.offset), (wanted.scale, wanted.offset)
            if ours != theirs and (1.0, 0.0) in (ours, theirs):
                log.warning(
                    "%s: scale and offset of %s are %g and %g, those of the training scenes %g and"
                    " %g; the stored numbers are taken as they are",
                    *(scene.path, band.label, *ours, *theirs),
                )
                theirs = ours
            self._factors.append((ours[0] / theirs[0], (ours[1] - theirs[1]) / theirs[0]))

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        # GDAL's options hold for a thread, and this is the reader's.
        with gdal_env():
            pixels, valid = self._scene.read(window)
        if all(factor == (1.0, 0.0) for factor in self._factors):
            return pixels, valid
        gains, offsets = np.array(self._factors, np.float64).T[:, :, None, None]
        return pixels * gains + offsets, valid


def refuse_output(scene_path: str, out: Path, overwrite: bool) -> None:
    """Refuse an output that is the input, is a folder, or exists and may not be replaced.

    Raises:
        OutputError: it is one of these.
    """
    if out.is_dir():
        raise OutputError(f"--out {out}: a folder; name the GeoTIFF to write")
    if out.exists() and os.path.exists(scene_path) and os.path.samefile(out, scene_path):
        raise OutputError(f"--out {out}: it is the input scene; choose another name")
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or choose another name")


def _bands(bundle: Bundle, direction: Direction, scene: Scene) -> list[str]:
    source, target = bundle.source(direction), bundle.target(direction)
    try:
        return bands_for(source, scene.all_bands, scene.path)
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
            f"--bands: {len(scene.bands)} chosen from {scene.path}, the model wants"
            f" {source.count} ({', '.join(source.labels)})"
        )
    gsd = scene.grid.gsd
    if gsd is not None and source.gsd is not None:
        ratio = gsd / source.gsd
        if abs(ratio - 1.0) > _GSD_TOLERANCE:
            log.warning(
                "%s: its pixels are %.3g m, the model was trained at %.3g m; resample it for"
                " features of the size that the model knows",
                scene.path,
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


def _tags(scene: Scene, bundle: Bundle, options: TranslateOptions, mode: str) -> dict[str, str]:
    styled = {} if options.style is None else {"GEOCYCLEGAN_STYLE": Path(options.style).name}
    return {
        "AREA_OR_POINT": "Area",
        "SYNTHETIC": "YES",
        "TIFFTAG_SOFTWARE": f"geocyclegan {__version__}",
        "GEOCYCLEGAN_MODEL_SHA256": bundle.weights_sha256,
        "GEOCYCLEGAN_METHOD": bundle.method,
        "GEOCYCLEGAN_DIRECTION": options.direction,
        "GEOCYCLEGAN_NORM_STATS": mode,
        **styled,
        "GEOCYCLEGAN_SOURCE": Path(scene.path).name,
        "GEOCYCLEGAN_SOURCE_BANDS": ",".join(band.label for band in scene.bands),
    }
