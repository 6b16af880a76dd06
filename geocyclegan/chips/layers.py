"""One layer of a vector file, named as QGIS does: `project.gpkg|layername=fields`."""

from __future__ import annotations

import os
from pathlib import Path

from geocyclegan.errors import OptionError

_POLYGONAL = ("polygon", "surface", "unknown", "collection")


def split_layer(path: Path, option: str = "--aoi") -> tuple[Path, str | int | None]:
    """Split a file and the name, or the number from 0, of the layer in it that is meant.

    Args:
        path: a file, alone or with `|layername=NAME` or `|layerid=NUMBER`.
        option: the option that named it, for messages.

    Returns:
        The file, and the layer; None where none is named.

    Raises:
        OptionError: what follows the file says something else, such as a filter.
    """
    file, *parts = str(path).split("|")
    if not parts or os.path.exists(path):
        return path, None
    layer: str | int | None = None
    for part in parts:
        key, _, value = part.partition("=")
        if key.strip().casefold() == "layername" and value:
            layer = value
        elif key.strip().casefold() == "layerid" and value.isdecimal():
            # QGIS gives both at times; names outlive changes of the file.
            layer = int(value) if layer is None else layer
        elif key.strip().casefold() != "geometrytype":
            raise OptionError(
                f"{option} {path}: {part!r} is not understood; expected {file}|layername=NAME"
            )
    return Path(file), layer


def polygon_layer(file: Path, layer: str | int | None, option: str) -> str | int | None:
    """Make sure that it is clear which layer of a vector file is meant.

    Args:
        file: any that GDAL reads as vectors.
        layer: the one that was named, or None.
        option: the option that named it, for messages.

    Returns:
        The layer to read; None: the only one.

    Raises:
        OptionError: the file has no such layer, or several that may hold polygons and none is
            named.
        pyogrio.errors.DataSourceError: the file cannot be read.
    """
    import pyogrio

    found = [(str(name), str(kind or "")) for name, kind in pyogrio.list_layers(file)]
    names = [name for name, _ in found]
    there = ", ".join(names) or "no layer"
    if isinstance(layer, int):
        if layer >= len(names):
            raise OptionError(f"{option} {file}: it has no layer {layer}, counted from 0: {there}")
        return names[layer]
    if layer is not None:
        if layer not in names:
            raise OptionError(f"{option} {file}: it has no layer {layer}; it has {there}")
        return layer
    # Tables and layers of points do not make it unclear what is meant.
    areas = [name for name, kind in found if any(word in kind.casefold() for word in _POLYGONAL)]
    # QGIS leaves out the name of a layer that is called like its file.
    if file.stem in areas:
        return file.stem
    if len(areas) > 1:
        raise OptionError(
            f"{option} {file}: it has {len(areas)} layers that may hold polygons"
            f" ({', '.join(areas)}); name one: '{file}|layername={areas[0]}'"
        )
    return (areas or names)[0] if len(names) > 1 else None
