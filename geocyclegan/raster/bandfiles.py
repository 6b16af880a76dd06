"""Scenes that come as a file for each band: which files belong together, and what each one is.

Sentinel-2 products (SAFE folders of level 1C and 2A) and Landsat Collection 2 folders are known by
their layout, and their metadata file says what the numbers mean. Any other files are put together
by their names (`--stack`), or one by one (`B02.tif+B03.tif`).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from geocyclegan.errors import NotFoundError, SceneError
from geocyclegan.raster.opening import subdataset_parts

log = logging.getLogger(__name__)

JOIN = "+"
"""What stands between the files of a scene in its name."""

# A band's name as a word of a file name.
_BAND = re.compile(
    r"(?:^|[_.\-])((?:SR_|ST_)?B(?:\d{1,2}|8A|0?[1-9]A)|SCL|AOT|WVP|QA_\w+|Fmask|VV|VH|HH|HV"
    r"|blue|green|red|nir\d*|swir\d*|rededge\d*|coastal|pan)(?:_\d{2}m)?(?=[_.\-]|$)",
    re.I,
)
_SENTINEL2_ORDER = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A"),
    *("B09", "B10", "B11", "B12"),
)
_SENTINEL2_FILE = re.compile(r"_(B\d{2}|B8A|SCL)(?:_(\d{2})m)?\.jp2$")
_LANDSAT_FILE = re.compile(r"^(L[COTEM]\d{2}_.+?)_((?:SR_|ST_)?B\d{1,2}|QA_PIXEL)\.TIF$", re.I)
_METADATA_FILE = re.compile(r"^MTD_MSIL\w+\.xml$|_MTL\.(?:txt|xml|json)$", re.I)
# What products hold beside their bands: a picture, and the angles of sun and sensor.
_BESIDE = re.compile(r"_TCI(?:_\d{2}m)?$|\.(?:SAA|SZA|VAA|VZA)$", re.I)
# Fifteen-metre pixels would make all others finer, too; who wants them names them.
_LANDSAT_PAN = {"B8"}


@dataclass(frozen=True)
class BandFile:
    """A file of a scene.

    Attributes:
        path: the file.
        name: its band, where the file itself does not say it; None leaves it to the file.
        scale: factor that turns stored numbers into physical ones, None for the file's own.
        offset: the offset that goes with it.
        nodata: value of pixels without data, None for the file's own.
        chosen: taken unless bands are named.
    """

    path: str
    name: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    chosen: bool = True


def product_of(path: Path) -> Path:
    """Return the product whose metadata file a path is (MTD_MSIL2A.xml, *_MTL.txt), else the path.

    Other programs open products by these files.
    """
    if _METADATA_FILE.search(path.name) and path.is_file() and is_product(path.parent):
        return path.parent
    return path


def is_product(folder: Path) -> bool:
    """Say whether a folder is one scene: a Sentinel-2 product, or the files of a Landsat scene."""
    if not folder.is_dir():
        return False
    if folder.suffix.lower() == ".safe":
        return bool(_sentinel2_images(folder))
    prefixes = {found[1] for path in folder.iterdir() if (found := _LANDSAT_FILE.match(path.name))}
    return len(prefixes) == 1


def band_files(scene: str) -> list[BandFile] | None:
    """Return the files of a scene that comes in several; None if it is a single file.

    Raises:
        NotFoundError: a file of `one.tif+two.tif` is not there.
        SceneError: a product lacks its images.
    """
    folder = product_of(Path(scene))
    if folder.is_dir():
        if not is_product(folder):
            return None
        is_safe = folder.suffix.lower() == ".safe"
        return _sentinel2(folder) if is_safe else _landsat(folder)
    if JOIN not in scene or folder.exists():
        return None
    paths = scene.split(JOIN)
    for path in paths:
        if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
            raise NotFoundError(f"{path}: no such file, of the scene {short_name(scene)}")
    return [BandFile(path, band_name(path)) for path in paths]


def paths_of(scene: str) -> list[str]:
    """Return all files that a scene is read from.

    Raises:
        NotFoundError, SceneError: see `band_files`.
    """
    files = band_files(scene)
    return [scene] if files is None else [file.path for file in files]


def metadata_files(scene: str) -> list[str]:
    """Return the metadata files of a product; of other scenes there are none."""
    folder = product_of(Path(scene))
    if not is_product(folder):
        return []
    return [str(path) for path in folder.iterdir() if _METADATA_FILE.search(path.name)]


def band_name(path: str) -> str | None:
    """Return the band that a file name tells, such as B02 or SR_B4."""
    found = _BAND.findall(Path(path).stem)
    return str(found[-1]) if found else None


def stacked(paths: Sequence[str]) -> list[str]:
    """Put files together that differ in their band only, each group in the order of its bands.

    Files whose names tell no band stay scenes of their own, but for what Sentinel-2 and HLS have
    beside their bands, which is left out.
    """
    groups: dict[str, list[str]] = {}
    beside = []
    for path in paths:
        stem, name = Path(path).stem, band_name(path)
        if name is None and _BESIDE.search(stem):
            beside.append(path)
            continue
        if name is None:
            groups[path] = [path]
            continue
        at = stem.lower().rindex(name.lower())
        rest = re.sub(r"_\d{2}m$", "", stem[:at] + stem[at + len(name) :])
        groups.setdefault(str(Path(path).with_name(rest)), []).append(path)
    if beside and groups:
        names = ", ".join(Path(path).name for path in beside[:4])
        log.warning(
            "--stack: left out %s%s, which are no bands of the scene",
            *(names, f" and {len(beside) - 4} more" if len(beside) > 4 else ""),
        )
    found = [JOIN.join(sorted(group, key=_order)) for group in groups.values()]
    return found or beside


def short_name(scene: str) -> str:
    """Return a name for a scene: the stem of its file, or what the stems of its files share."""
    parts = subdataset_parts(scene)
    if parts is not None:
        file = Path(re.split(r"[\\/]", parts[0])[-1]).stem
        variable = re.sub(r"[^\w.\-]+", "_", parts[1]).strip("_")
        return f"{file}_{variable}" if variable else file
    paths = scene.split(JOIN) if JOIN in scene and not Path(scene).exists() else [scene]
    stems = [Path(path).stem for path in paths]
    if len(stems) == 1:
        return stems[0]
    shared = stems[0]
    for stem in stems[1:]:
        while not stem.startswith(shared):
            shared = shared[:-1]
    # Bands often begin alike: SR_B2, SR_B3.
    shared = re.sub(r"(?:^|[_.\-])(?:SR_|ST_)?B\d?$", "", shared).rstrip("_.-")
    return shared or Path(paths[0]).parent.name or "scene"


def told(scene: str) -> str:
    """Return what to call a scene where there is room for one line."""
    if JOIN not in scene or Path(scene).exists():
        return scene
    paths = scene.split(JOIN)
    return f"{Path(paths[0]).parent / short_name(scene)} ({len(paths)} files)"


def _order(path: str) -> tuple[int, float, str]:
    """Sort bands by their numbers (B8A after B8), others by their names after them."""
    name = (band_name(path) or "").upper()
    found = re.fullmatch(r"(SR_|ST_)?B0*(\d+)(A?)", name)
    if found is None:
        return 1, 0.0, name
    return 0, int(found[2]) + (0.5 if found[3] else 0.0), name


def _sentinel2_images(folder: Path) -> dict[str, Path]:
    """Return the finest image of each band."""
    finest: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        found = _SENTINEL2_FILE.search(path.name)
        if found:
            size = int(found[2] or 0)
            if found[1] not in finest or size < finest[found[1]][0]:
                finest[found[1]] = size, path
    return {name: path for name, (_, path) in finest.items()}


def _sentinel2(folder: Path) -> list[BandFile]:
    images = _sentinel2_images(folder)
    scale, offsets = _sentinel2_numbers(folder)
    files = [
        BandFile(str(images[name]), name, scale, offsets.get(name, 0.0), 0.0)
        for name in _SENTINEL2_ORDER
        if name in images
    ]
    if "SCL" in images:
        files.append(BandFile(str(images["SCL"]), "SCL", chosen=False))
    return files


def _sentinel2_numbers(folder: Path) -> tuple[float | None, dict[str, float]]:
    """Return the factor to reflectance, and the offset of each band (baseline 04.00 and later).

    Reflectance is (number + ADD_OFFSET) / QUANTIFICATION_VALUE (Sentinel-2 Products Specification
    Document, issue 14.6 and later).
    """
    found = sorted(folder.glob("MTD_MSIL*.xml"))
    if not found:
        return None, {}
    try:
        root = ElementTree.parse(found[0]).getroot()
        divisor = 0.0
        offsets: dict[str, float] = {}
        for element in root.iter():
            tag = element.tag.rpartition("}")[2]
            if tag in ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE") and element.text:
                divisor = float(element.text)
            elif tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET") and element.text:
                name = _SENTINEL2_ORDER[int(element.attrib["band_id"])]
                offsets[name] = float(element.text)
    except (ElementTree.ParseError, ValueError, KeyError, IndexError, OSError) as error:
        raise SceneError(
            f"{found[0]}: the metadata of the product cannot be read ({error}); fetch it again"
        ) from error
    if not (math.isfinite(divisor) and divisor > 0):
        return None, {}
    return 1.0 / divisor, {name: offset / divisor for name, offset in offsets.items()}


def _landsat(folder: Path) -> list[BandFile]:
    numbers = _landsat_numbers(folder)
    files = []
    for path in sorted(map(str, folder.iterdir()), key=_order):
        found = _LANDSAT_FILE.match(Path(path).name)
        if found is None:
            continue
        name = found[2].upper()
        is_data = name.startswith("SR_") or (name[0] == "B" and name not in _LANDSAT_PAN)
        scale, offset = numbers.get(name, (None, None))
        nodata = None if name.startswith("QA") else 0.0
        files.append(BandFile(path, name, scale, offset, nodata, chosen=is_data))
    return files


def _landsat_numbers(folder: Path) -> dict[str, tuple[float, float]]:
    """Return factor and offset to reflectance or kelvin of each band, by the MTL file."""
    found = sorted(folder.glob("*_MTL.txt"))
    if not found:
        return {}
    text = found[0].read_text(encoding="utf-8", errors="replace")
    numbers: dict[str, tuple[float, float]] = {}
    kinds = (
        ("LEVEL1_RADIOMETRIC_RESCALING", "REFLECTANCE", "B"),
        ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE", "SR_B"),
        ("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", "TEMPERATURE", "ST_B"),
    )
    for group, quantity, prefix in kinds:
        part = re.search(rf"GROUP = {group}\n(.*?)END_GROUP", text, re.S)
        values = dict(re.findall(r"(\w+) = (\S+)", part[1])) if part else {}
        for key, value in values.items():
            band = re.fullmatch(rf"{quantity}_MULT_BAND_(?:ST_B)?(\d+)", key)
            added = values.get(key.replace("_MULT_", "_ADD_"))
            if band and added:
                numbers[f"{prefix}{band[1]}"] = float(value), float(added)
    return numbers
