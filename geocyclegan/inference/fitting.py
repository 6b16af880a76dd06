"""Scenes opened with what a model wants: its bands, its nodata value; refused where they differ."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.style import use_style
from geocyclegan.models.generator import Generator
from geocyclegan.raster import stack
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.bands import bands_for, taken_by_place
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.undeclared import parse_nodata, undeclared_value

log = logging.getLogger(__name__)

_CACHE_BYTES = 64 << 20
# Resolutions that differ by more than this make features of another size than those learned.
_GSD_TOLERANCE = 0.1


@contextmanager
def open_scene(
    scene_path: str, generator: Generator, bundle: Bundle, options: TranslateOptions
) -> Iterator[Scene]:
    """Open a scene with the bands that a model wants, and check that it fits.

    Raises:
        NotFoundError: the scene, or the one that the style is of, is not there.
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
        if options.bands is None:
            names = [band.name for band in scene.bands]
            by_place = taken_by_place(source.names, names, "the training scenes")
            if by_place is not None:
                log.warning("%s: %s", told(scene_path), by_place)
        scene.leave_out(_undeclared(scene, source, options))
        yield scene


def _undeclared(scene: Scene, source: Domain, options: TranslateOptions) -> float | None:
    """Return the number that stands for no data in a scene: as asked for, or as in training."""
    if options.nodata is None:
        return source.undeclared
    if options.nodata == "none":
        return None
    return undeclared_value(parse_nodata(options.nodata), scene.bands, told(scene.path))


def _bands(bundle: Bundle, direction: Direction, scene: Scene) -> list[int]:
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
