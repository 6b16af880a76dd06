"""What an exported file says about itself, in its own words and in those of the Deepness plugin.

Deepness (https://github.com/PUTvision/qgis-plugin-deepness, 0.6.5) reads JSON values by key from
the metadata of an ONNX file. What else it asks of a model was found in its source:

- inputs of a fixed, square size;
- for a model of type "Regressor", one output of one band for each layer that it shall make;
- it divides its input by 255, then subtracts a mean and divides by a standard deviation;
- it keeps results as 8-bit numbers, so outputs must lie between 0 and 255;
- it cuts half of the overlap, given in percent of the tile, from each side of a tile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from geocyclegan import __version__
from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import round_up

_LARGEST_TILE = 800
"""Largest side of a tile in px that is chosen unasked: about 1 GB of activations at width 64."""


@dataclass(frozen=True)
class Tiling:
    """How Deepness shall cut a scene.

    Attributes:
        tile: side of a tile in px, its margins included.
        overlap: of neighbouring tiles, in percent of the side.
    """

    tile: int
    overlap: int


def plan_tiling(halo: int | None, stride: int, window: int, tile: int | None = None) -> Tiling:
    """Choose tiles whose margins hold the receptive field and whose starts meet the stride.

    Args:
        halo: radius of the receptive field in px; None if it has no bound.
        stride: tiles must start at multiples of it.
        window: side in px of the crops that the generator was trained on.
        tile: side asked for; None chooses the one that costs least, up to 800 px.

    Raises:
        OptionError: the side asked for does not allow for this.
    """
    if halo is None:
        # Nothing makes such tiles independent; half of the training size is what `infer` takes.
        side = tile or round_up(window, stride)
        if side % stride:
            raise OptionError(f"--tile {tile}: expected a multiple of {stride} px")
        return Tiling(side, 50)
    found: list[tuple[float, Tiling]] = []
    last = max(_LARGEST_TILE, 6 * halo) if tile is None else tile
    for side in range(stride, last + 1, stride) if tile is None else (tile,):
        for percent in range(1, 91):
            pixels, rest = divmod(side * percent, 100)
            if rest or pixels % 2 or pixels < 2 * halo or (side - pixels) % stride:
                continue
            found.append(((side / (side - pixels)) ** 2, Tiling(side, percent)))
            break
    if not found:
        least = plan_tiling(halo, stride, window)
        raise OptionError(
            f"--tile {tile}: no whole percentage of it is an overlap of at least {2 * halo} px that"
            f" keeps tiles at multiples of {stride} px; {least.tile} px has one ({least.overlap} %)"
        )
    return min(found, key=lambda pair: pair[0])[1]


def deepness_metadata(source: Domain, target: Domain, tiling: Tiling) -> dict[str, str]:
    """Return what Deepness reads, for a model that takes stored units and gives 0 to 255."""
    told: dict[str, Any] = {
        "model_type": "Regressor",
        "tile_size": tiling.tile,
        "tiles_overlap": tiling.overlap,
        # Takes its division by 255 back.
        "standardization_mean": [0.0] * source.count,
        "standardization_std": [1.0 / 255.0] * source.count,
        "reg_output_scaling": 1.0,
        "class_names": [{"0": name} for name in target.labels],
    }
    if source.gsd is not None:
        told["resolution"] = round(source.gsd * 100.0, 6)
    return {key: json.dumps(value) for key, value in told.items()}


def own_metadata(
    bundle: Bundle, direction: Direction, statistics: str, outputs: str
) -> dict[str, str]:
    """Return what we say: what goes in and comes out, and where the model is from."""
    spec = bundle.generators[direction]
    told: dict[str, Any] = {
        "version": __version__,
        "method": bundle.method,
        "direction": direction,
        "model_sha256": bundle.sha256,
        "statistics": statistics,
        "values": outputs,
        "stride": spec.stride,
        "halo": spec.halo,
        "tile": bundle.tile,
        "synthetic": True,
        "input": describe_domain(bundle.source(direction)),
        "output": describe_domain(bundle.target(direction)),
    }
    return {f"geocyclegan_{key}": json.dumps(value) for key, value in told.items()}


def describe_domain(domain: Domain) -> dict[str, Any]:
    """Return bands with their units and ranges, ready for JSON."""
    return {
        "bands": [
            {"name": name, "unit": band.unit, "from": low, "to": high}
            for name, band, (low, high) in zip(
                domain.labels, domain.bands, value_ranges(domain), strict=True
            )
        ],
        "dtype": domain.dtype,
        "nodata": domain.to_json()["nodata"],
        **({} if domain.undeclared is None else {"undeclared_nodata": domain.undeclared}),
        "gsd": domain.gsd,
    }


def value_ranges(domain: Domain) -> list[tuple[float, float]]:
    """Return the lowest and highest value of each band that its scaling tells apart."""
    ends = np.array([-1.0, 1.0])
    found = (band.scaling.inverse(ends) for band in domain.bands)
    return [(float(values[0]), float(values[1])) for values in found]
