"""Files of one band each, seen as one scene: virtual rasters that GDAL reads like any other.

The finest band gives the grid; coarser ones are resampled to it when they are read. Nothing is
copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from geocyclegan.errors import SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env

_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


@dataclass(frozen=True)
class Band:
    """One band of a stack.

    Attributes:
        name: its description in the stack.
        path: the file.
        index: which band of the file, from 1.
        scale: what a stored number is multiplied by for its physical value.
        offset: what is added then.
        nodata: stored number that means nothing; None: as the file says.
        classes: its numbers are classes, so that the nearest one is taken.
    """

    name: str
    path: Path
    index: int = 1
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    classes: bool = False


def write_stack(path: Path, bands: Sequence[Band]) -> Path:
    """Write the virtual raster of some bands.

    Args:
        path: the file to write, `.vrt`.
        bands: at least one, in order; all in one CRS and with north up.

    Returns:
        `path`.

    Raises:
        SceneError: a file cannot be read, or lies in another CRS than the first.
        OutputError: `path` cannot be written.
    """
    facts = [_facts(band) for band in bands]
    finest = min(facts, key=lambda fact: abs(fact.transform.a))
    for fact in facts:
        if fact.crs != finest.crs:
            raise SceneError(
                f"{fact.path}: its CRS is {fact.crs}, that of {finest.path} is {finest.crs}; bands"
                " of one scene must share it"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    stacked = []
    for band, fact in zip(bands, facts, strict=True):
        if fact.nodata is not None and fact.transform != finest.transform:
            # Many products do not say in the file what their nodata is. GDAL keeps it out of what
            # it interpolates if the raster that it reads from declares it.
            inner = path.with_name(f"{path.stem}.{band.name}.vrt")
            _write(inner, [(band, fact)], fact)
            band, fact = replace(band, path=inner, index=1), replace(fact, path=inner)
        stacked.append((band, fact))
    _write(path, stacked, finest)
    return path


def write_warped(path: Path, source: Path, crs: str, resolution: float | None = None) -> Path:
    """Write the virtual raster of a file with ground control points, put on a grid by them.

    Args:
        path: the file to write, `.vrt`.
        source: the file.
        crs: where to, such as "EPSG:32630".
        resolution: pixel size in units of `crs`; None: about that of the file.

    Returns:
        `path`.

    Raises:
        SceneError: the file cannot be read, or has no control points.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with gdal_env(), rasterio.open(source) as dataset:
            points, points_crs = dataset.gcps
            if not points:
                raise SceneError(f"{source}: no ground control points, which this recipe expects")
            options = {"crs": crs, "resampling": Resampling.bilinear, "src_nodata": 0, "nodata": 0}
            if resolution is not None:
                transform, width, height = rasterio.warp.calculate_default_transform(
                    points_crs, crs, dataset.width, dataset.height, gcps=points,
                    resolution=resolution,
                )  # fmt: skip
                options |= {"transform": transform, "width": width, "height": height}
            with (
                WarpedVRT(dataset, src_crs=points_crs, **options) as warped,
                atomic_write(path) as part,
            ):
                copy(warped, part, driver="VRT")
    except GDAL_ERRORS as error:
        raise SceneError(f"{source}: cannot be warped ({first_line(error)})") from error
    return path


def utm_of(points: Sequence[GroundControlPoint]) -> str:
    """Return the UTM zone around ground control points in longitude and latitude."""
    longitude = sum(point.x for point in points) / len(points)
    latitude = sum(point.y for point in points) / len(points)
    zone = min(int((longitude + 180) // 6) + 1, 60)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


@dataclass(frozen=True)
class _Facts:
    path: Path
    crs: str
    transform: rasterio.Affine
    width: int
    height: int
    dtype: str
    nodata: float | None


def _facts(band: Band) -> _Facts:
    try:
        with gdal_env(), rasterio.open(band.path) as dataset:
            if band.index > dataset.count:
                raise SceneError(
                    f"{band.path}: {dataset.count} bands, and number {band.index} is wanted"
                )
            crs = dataset.crs.to_wkt() if dataset.crs else ""
            nodata = dataset.nodata if band.nodata is None else band.nodata
            dtype = dataset.dtypes[band.index - 1]
            found = (dataset.transform, dataset.width, dataset.height, dtype, nodata)
    except GDAL_ERRORS as error:
        raise SceneError(
            f"{band.path}: not a raster that can be read ({first_line(error)})"
        ) from error
    if dtype not in _TYPES:
        raise SceneError(f"{band.path}: numbers of type {dtype}, which a stack cannot hold")
    return _Facts(band.path, crs, *found)


def _write(path: Path, bands: Sequence[tuple[Band, _Facts]], grid: _Facts) -> None:
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height)
    )
    if grid.crs:
        ElementTree.SubElement(root, "SRS").text = grid.crs
    if not grid.transform.is_identity:
        numbers = ", ".join(repr(number) for number in grid.transform.to_gdal())
        ElementTree.SubElement(root, "GeoTransform").text = numbers
    for number, (band, fact) in enumerate(bands, start=1):
        _add_band(root, number, band, fact, grid)
    with atomic_write(path) as part:
        ElementTree.ElementTree(root).write(part, encoding="utf-8")


def _add_band(
    root: ElementTree.Element, number: int, band: Band, fact: _Facts, finest: _Facts
) -> None:
    element = ElementTree.SubElement(
        root, "VRTRasterBand", dataType=_TYPES[fact.dtype], band=str(number)
    )
    texts: dict[str, object] = {"Description": band.name}
    if fact.nodata is not None:
        texts["NoDataValue"] = repr(fact.nodata)
    if (band.scale, band.offset) != (1.0, 0.0):
        texts |= {"Offset": repr(band.offset), "Scale": repr(band.scale)}
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)
    kind = "SimpleSource" if fact.nodata is None else "ComplexSource"
    source = ElementTree.SubElement(element, kind)
    if fact.transform != finest.transform:
        source.set("resampling", "nearest" if band.classes else "bilinear")
    name = ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0")
    name.text = str(band.path.resolve())
    ElementTree.SubElement(source, "SourceBand").text = str(band.index)
    ElementTree.SubElement(
        source, "SrcRect", xOff="0", yOff="0", xSize=str(fact.width), ySize=str(fact.height)
    )
    # Where the file lies in pixels of the finest one.
    into = ~finest.transform * fact.transform
    left, top = into.c, into.f
    right, bottom = into.c + into.a * fact.width, into.f + into.e * fact.height
    ElementTree.SubElement(
        source, "DstRect", xOff=repr(left), yOff=repr(top), xSize=repr(right - left),
        ySize=repr(bottom - top),
    )  # fmt: skip
    if fact.nodata is not None:
        ElementTree.SubElement(source, "NODATA").text = repr(fact.nodata)
