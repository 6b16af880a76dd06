"""What `geocyclegan info` says of a scene, a chip folder or a model, as JSON values.

Keys are stable: they may be added, and are not renamed or taken away within a major version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rasterio.crs import CRS

    from geocyclegan.bundle import Bundle
    from geocyclegan.chips.reader import ChipSet
    from geocyclegan.raster.bands import SourceBand
    from geocyclegan.raster.domain import Domain
    from geocyclegan.raster.grid import Grid
    from geocyclegan.raster.sketch import BandSketch

Facts = dict[str, Any]
EXPORTS = ("onnx", "torch", "deepness", "mlm")


def scene_facts(
    path: str,
    grid: Grid,
    bands: Sequence[SourceBand],
    block: tuple[int, int],
    sketches: Sequence[BandSketch],
    valid: npt.NDArray[np.bool_],
    provenance: Mapping[str, str],
) -> Facts:
    """Return what a scene is; its values are those of a sample, where `valid` says it has any.

    `provenance` are the tags by which it says to be synthetic, and what made it.
    """
    rows = []
    for band, sketch in zip(bands, sketches, strict=True):
        known = sketch.count > 0
        rows.append(
            {
                "index": band.index,
                "name": band.name,
                "dtype": band.dtype,
                "nodata": number(band.nodata),
                "unit": band.unit,
                "scale": number(band.scale),
                "offset": number(band.offset),
                "min": number(sketch.minimum if known else None),
                "mean": number(sketch.mean if known else None),
                "max": number(sketch.maximum if known else None),
            }
        )
    return {
        "kind": "scene",
        "path": path,
        "height": grid.height,
        "width": grid.width,
        "count": len(rows),
        "crs": None if grid.crs is None else crs_name(grid.crs),
        "transform": list(grid.transform)[:6],
        "res": list(grid.pixel_size),
        "gsd": number(grid.gsd),
        "bounds": list(grid.footprint().bounds),
        "lonlat": _lonlat(grid),
        "block_shape": list(block),
        "valid": float(valid.mean()),
        "sample_shape": list(valid.shape),
        "synthetic": bool(provenance),
        "provenance": dict(provenance),
        "bands": rows,
    }


def _lonlat(grid: Grid) -> list[float] | None:
    """Return west, south, east and north in degrees; west > east across 180 degrees."""
    from geocyclegan.errors import SceneError
    from geocyclegan.raster.footprint import bounds_on_globe

    try:
        bounds = None if grid.crs is None else bounds_on_globe(grid)
    except SceneError:
        return None
    return None if bounds is None else list(bounds)


def chips_facts(
    folder: Path, sets: Mapping[str, tuple[ChipSet, ChipSet]], missing: Mapping[str, str]
) -> Facts:
    """Return what a chip folder holds.

    Args:
        folder: where it is.
        sets: training and validation chips of the domains that it has.
        missing: why it has not got the others.
    """
    domains = {
        name: {
            "train": len(train),
            "val": len(val),
            "virtual": bool(train.virtual),
            "size": train.size,
            "scenes": [str(scene) for scene in train.scenes],
            **domain_facts(train.domain),
        }
        for name, (train, val) in sets.items()
    }
    return {"kind": "chips", "path": str(folder), "domains": domains, "missing": dict(missing)}


def model_facts(bundle: Bundle) -> Facts:
    """Return what a model is: what it wants, what it gives, what it was trained on."""
    training = bundle.training
    bounded = all(spec.halo is not None for spec in bundle.generators.values())
    modes = ["frozen"] if bundle.has_statistics else []
    modes += ["sample", "exact", "dense", "tile"] if bounded else ["sample", "tile"]
    return {
        "kind": "model",
        "path": str(bundle.folder),
        "method": bundle.method,
        "steps": training.get("steps"),
        "tile": bundle.tile,
        "device": training.get("device") or None,
        "torch": training.get("torch") or None,
        "skipped_chips": list(training.get("skipped_chips") or []),
        "sha256": bundle.sha256,
        "weights_bytes": bundle.weights_bytes,
        "weights_sha256": bundle.weights_sha256,
        "created_by": bundle.created_by,
        "pool": str(bundle.normalization.get("pool", "crop")),
        "norm_stats": modes,
        "export": list(EXPORTS),
        "generators": {
            direction: {
                "name": spec.name,
                "args": dict(spec.args),
                "stride": spec.stride,
                "halo": spec.halo,
                "wants": list(bundle.source(direction).labels),
                "gives": list(bundle.target(direction).labels),
            }
            for direction, spec in bundle.generators.items()
        },
        "domains": {
            name: {
                "scenes": [str(scene) for scene in training.get("scenes", {}).get(name, [])],
                **domain_facts(bundle.domains[name]),
            }
            for name in ("a", "b")
        },
    }


def domain_facts(domain: Domain) -> Facts:
    """Return bands and radiometry of a domain; `from` and `to` are the ends of its levels."""
    import numpy as np

    levels = np.array([-1.0, 1.0])
    rows = []
    for index, band in enumerate(domain.bands, start=1):
        low, high = band.scaling.inverse(levels)
        rows.append(
            {
                "index": index,
                "name": band.name,
                "unit": band.unit,
                "scaling": band.scaling.method,
                "from": number(low),
                "to": number(high),
            }
        )
    return {
        "gsd": number(domain.gsd),
        "dtype": domain.dtype,
        "nodata": number(domain.nodata),
        "undeclared_nodata": number(domain.undeclared),
        "bands": rows,
    }


def number(value: Any) -> float | int | str | None:
    """Return a number that JSON has; "nan", "inf" and "-inf" are text, as in gdalinfo."""
    if value is None or isinstance(value, int):
        return value
    plain = float(value)
    return plain if math.isfinite(plain) else str(plain)


def crs_name(crs: CRS) -> str:
    """Return the code of a CRS, its name where it has none, or its projection without either."""
    authority = crs.to_authority()
    if authority:
        return ":".join(authority)
    found = re.search(r'^\w+\["([^"]*)"', crs.to_wkt())
    name = found[1] if found else ""
    if name.casefold() in ("", "unknown", "unnamed"):
        return re.sub(r" \+(no_defs|type)\S*", "", crs.to_proj4()) or "without a name"
    return f"{name} (no code)"
