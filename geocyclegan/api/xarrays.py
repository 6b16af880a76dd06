"""DataArrays in and out, with their place; on dask, block by block."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geocyclegan import __version__
from geocyclegan.api.arrays import ArrayScene, Pixels, require_bands, valid_in_all_bands
from geocyclegan.bundle import Direction
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.levels import SceneLevels, to_tensors
from geocyclegan.inference.precision import rounded_products
from geocyclegan.inference.statistics import NormStats
from geocyclegan.models.generator import Generator
from geocyclegan.raster.domain import Domain, name_key
from geocyclegan.raster.windows import Tile, Window, round_up, tile_plan

if TYPE_CHECKING:
    import xarray as xr

    from geocyclegan.api.model import Model, Statistics

Array = Any
"""An array of dask, which has no types."""


def translate_dataarray(
    model: Model,
    data: xr.DataArray,
    direction: Direction,
    norm_stats: NormStats,
    statistics: Statistics | None,
    options: EngineOptions,
) -> xr.DataArray:
    """Translate a DataArray; see `Model.translate`.

    Args:
        model: the model.
        data: (band, y, x), in the stored units of the source domain; of one band, the first
            dimension may be missing.
        direction: "a2b" or "b2a".
        norm_stats: whose statistics to normalise with.
        statistics: given ones, instead of `norm_stats`.
        options: how to cut what is not on dask.

    Returns:
        (band, y, x), in the type and stored units of the target domain; on dask where `data` is.

    Raises:
        SceneError: its dimensions or bands are not those that the model takes.
        OptionError: an option does not fit the model or the array, or a package is missing.
    """
    _require("rioxarray")
    source, target = model.source(direction), model.target(direction)
    data = _ordered(data, source)
    if data.chunks is None:
        pixels = require_bands(np.asarray(data.values), source)
        scene = ArrayScene(pixels, None, _nodata(data, source), source.undeclared)
        made: Any = model._run(scene, direction, norm_stats, statistics, options)
    else:
        if norm_stats not in ("auto", "frozen"):
            raise OptionError(
                f"norm_stats={norm_stats!r}: blocks of dask are translated each by itself, so"
                " statistics must be known; leave it out, or give statistics="
                "model.statistics(data)"
            )
        if options.tile is not None or options.batch is not None:
            raise OptionError("tile and batch: on dask, blocks are the tiles; use .chunk instead")
        made = _lazily(model, data, direction, statistics)
    return _placed(made, data, target, model, direction)


def scene_of(data: xr.DataArray, source: Domain) -> ArrayScene:
    """Return a DataArray (band, y, x) as a scene whose windows are computed when they are read.

    Raises:
        SceneError: its dimensions or bands are not those of the domain.
    """
    data = _ordered(data, source)
    nodata = _nodata(data, source)

    def compute(part: Any) -> Pixels:
        return np.asarray(part)

    return ArrayScene(data.data, None, nodata, source.undeclared, compute)


def _ordered(data: xr.DataArray, source: Domain) -> xr.DataArray:
    """Bring the bands of a DataArray into the order of a domain, by their names where it has them.

    Raises:
        SceneError: its dimensions or bands are not those of the domain.
    """
    if hasattr(data, "data_vars"):
        raise SceneError("a Dataset: expected one DataArray; give data.to_dataarray('band')")
    if data.ndim == 2 and source.count == 1:
        data = data.expand_dims("band")
    if data.ndim != 3:
        raise SceneError(
            f"a DataArray of dimensions {data.dims}: expected three, bands first, such as"
            " (band, y, x)"
        )
    names = _band_names(data)
    wanted = [name_key(name) for name in source.names if name]
    have = [name_key(name) for name in names]
    clear = all(wanted.count(name) == have.count(name) == 1 for name in wanted)
    if len(wanted) == source.count and clear:
        return data.isel({data.dims[0]: [have.index(name) for name in wanted]})
    if data.shape[0] != source.count:
        raise SceneError(
            f"a DataArray of {data.shape[0]} bands ({', '.join(names) or 'none is named'}): the"
            f" model wants {source.count} ({', '.join(source.labels)})"
        )
    return data


def _band_names(data: xr.DataArray) -> list[str]:
    """Names of bands: coordinates that are text, or descriptions as rioxarray keeps them."""
    dimension = data.dims[0]
    if dimension in data.coords and data.coords[dimension].dtype.kind in "UO":
        return [str(name) for name in data.coords[dimension].values]
    told = data.attrs.get("long_name", ())
    told = (told,) if isinstance(told, str) else tuple(told)
    return [str(name) for name in told] if len(told) == data.shape[0] else []


def _nodata(data: xr.DataArray, source: Domain) -> float | None:
    told = data.rio.nodata
    return source.nodata if told is None else float(told)


def _lazily(
    model: Model, data: xr.DataArray, direction: Direction, statistics: Statistics | None
) -> Array:
    """Translate an array of dask: each block, read with its halo, is one tile.

    The windows are those of the tile engine, which are clamped at the border of the scene, where
    the generator's own padding acts; an overlap of equal depth everywhere would not do that.
    """
    dask, da = _require("dask"), _require("dask.array")
    source, target = model.source(direction), model.target(direction)
    generator = model.frozen(direction, statistics)
    if generator.halo is None:
        raise OptionError(
            "the receptive field of this generator has no bound, so blocks of dask would show;"
            " translate data.compute(), or a file with geocyclegan.infer"
        )
    height, width = data.shape[1:]
    if data.dtype.kind not in "uifb":
        raise SceneError(f"a DataArray of {data.dtype}: expected whole or floating numbers")
    side = max(max(sizes) for sizes in data.chunks[1:])  # type: ignore[index]
    plan = tile_plan(
        height,
        width,
        core=round_up(side, generator.stride),
        halo=generator.halo,
        stride=generator.stride,
        min_size=generator.min_size,
    )
    # One task for the network, so that a graph holds its weights once.
    network = dask.delayed(generator, traverse=False)
    block = dask.delayed(_block, pure=False)
    pixels, nodata = data.data, _nodata(data, source)
    rows: dict[int, list[Array]] = {}
    for tile in plan:
        inside = tile.read.clip(height, width)
        part = pixels[:, inside.row : inside.row_stop, inside.col : inside.col_stop]
        made = block(part, network, tile, (height, width), source, target, nodata, model.device)
        shape = (target.count, *tile.core.shape)
        rows.setdefault(tile.core.row, []).append(
            da.from_delayed(made, shape, dtype=np.dtype(target.dtype))
        )
    return da.concatenate([da.concatenate(row, axis=2) for row in rows.values()], axis=1)


def _block(
    part: Pixels,
    generator: Generator,
    tile: Tile,
    shape: tuple[int, int],
    source: Domain,
    target: Domain,
    nodata: float | None,
    device: torch.device,
) -> Pixels:
    """Translate one tile; `part` is what of its window lies inside the scene."""
    part = np.asarray(part)

    class Part:
        def read(self, window: Window) -> tuple[Pixels, Any]:
            return part, valid_in_all_bands(part, nodata, source.undeclared)

    levels, valid = SceneLevels(Part(), source, *shape).read(tile.read)
    rows, cols = tile.core.slices_in(tile.read)
    core = valid[rows, cols]
    if not core.any():
        return target.to_pixels(np.zeros((target.count, *core.shape), np.float32), core)
    x, mask = to_tensors([(levels, valid)], device)
    with rounded_products("32"), torch.inference_mode():
        made = generator(x, mask)[0].float().cpu().numpy()
    return target.to_pixels(made[:, rows, cols], core)


def _placed(
    made: Any, data: xr.DataArray, target: Domain, model: Model, direction: Direction
) -> xr.DataArray:
    """Wrap pixels in the coordinates of the DataArray that they were made of."""
    band, y, x = data.dims
    coords = {
        name: coord
        for name, coord in data.coords.items()
        if band not in coord.dims and name != band
    }
    coords[band] = np.arange(1, target.count + 1)
    attributes = {
        "long_name": target.labels,
        "SYNTHETIC": "YES",
        "GEOCYCLEGAN_VERSION": __version__,
        "GEOCYCLEGAN_MODEL_SHA256": model.bundle.sha256,
        "GEOCYCLEGAN_METHOD": model.bundle.method,
        "GEOCYCLEGAN_DIRECTION": direction,
    }
    units = tuple(info.unit or "" for info in target.bands)
    if any(units):
        attributes["units"] = units
    result: xr.DataArray = _require("xarray").DataArray(
        made, dims=(band, y, x), coords=coords, attrs=attributes, name="translation"
    )
    if data.rio.crs is not None:
        result = result.rio.write_crs(data.rio.crs)
    if target.nodata is not None:
        result = result.rio.write_nodata(target.nodata)
    return result


def _require(name: str) -> Any:
    """Import a package of the extra `xarray`.

    Raises:
        OptionError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise OptionError(
            f'a DataArray needs the package {name}; pip install "geocyclegan[xarray]"'
        ) from None
