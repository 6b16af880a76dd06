"""Bands of scenes: how files describe them, and how they are chosen."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rasterio.enums import ColorInterp

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.domain import Domain, name_key

log = logging.getLogger(__name__)

_COLOURS = {"red", "green", "blue"}
_MOST_LISTED = 16


@dataclass(frozen=True)
class SourceBand:
    """A band as its file describes it.

    Attributes:
        index: number in the file, from 1.
        name: its description, or its colour for red, green and blue; None where there is none.
        dtype: pixel type.
        nodata: nodata value or None.
        unit: physical unit or None.
        scale: factor of the file's scale tag.
        offset: offset of the file's offset tag.
        color: colour interpretation.
    """

    index: int
    name: str | None
    dtype: str
    nodata: float | None
    unit: str | None
    scale: float
    offset: float
    color: str

    @property
    def label(self) -> str:
        """Something to call the band by."""
        return self.name or f"band {self.index}"


@cache
def _warn_of_scale(path: str) -> None:
    """Say so once, however often the file is opened."""
    log.warning(
        "%s: a scale of 0, or a scale or offset that is no finite number, makes nothing of what is"
        " stored; it is left out",
        path,
    )


def _packing(path: str, scale: float, offset: float) -> tuple[float, float]:
    """Return scale and offset, those that would lose every number left out."""
    if scale != 0.0 and math.isfinite(scale) and math.isfinite(offset):
        return scale, offset
    _warn_of_scale(path)
    return 1.0, 0.0


def describe_bands(dataset: Any) -> tuple[SourceBand, ...]:
    """Describe all bands of an open rasterio dataset."""
    colors = color_names(dataset)
    packings = [
        _packing(dataset.name, scale, offset)
        for scale, offset in zip(dataset.scales, dataset.offsets, strict=True)
    ]
    return tuple(
        SourceBand(
            index=i + 1,
            name=(dataset.descriptions[i] or "").strip()
            or (colors[i] if colors[i] in _COLOURS else None),
            dtype=dataset.dtypes[i],
            nodata=dataset.nodatavals[i],
            unit=dataset.units[i] or None,
            scale=packings[i][0],
            offset=packings[i][1],
            color=colors[i],
        )
        for i in range(dataset.count)
    )


def color_names(dataset: Any) -> list[str]:
    """Return the colour interpretation of each band of an open rasterio dataset."""
    try:
        return [color.name for color in dataset.colorinterp]
    except ValueError:
        # A colour interpretation that this rasterio does not know yet.
        return [ColorInterp.undefined.name] * int(dataset.count)


def resolve_bands(
    wanted: Sequence[str | int], names: Sequence[str | None], where: str
) -> list[int]:
    """Turn numbers ("3", "2-4") and descriptions ("B04", "b4") into band numbers from 1.

    Args:
        wanted: what was asked for; text may be a description, even one that is a number, and a
            number is that of a band.
        names: the name of each band that there is, or None.
        where: what to call the file in an error.

    Raises:
        OptionError: a band does not exist, is asked for twice, or shares its name with others.
    """
    # By its letters first: of B2 and B02 in one file, each can be asked for.
    by_name: dict[str, list[int]] = {}
    by_key: dict[str, list[int]] = {}
    for i, name in enumerate(names, start=1):
        by_name.setdefault((name or "").strip().casefold(), []).append(i)
        by_key.setdefault(name_key(name), []).append(i)
    found: list[int] = []
    for item in wanted:
        text = str(item).strip()
        number = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        same = by_name.get(text.casefold(), []) if isinstance(item, str) and text else []
        if not same and number is None and text:
            same = by_key.get(name_key(text), [])
        if same:
            if len(same) > 1:
                raise OptionError(
                    f"--bands {text}: {where} has {len(same)} bands of that name"
                    f" ({listed([str(i) for i in same])}); choose by number"
                )
            found.extend(same)
            continue
        if number is None:
            known = listed([name for name in names if name]) or "none is named, use numbers"
            raise OptionError(f"--bands {text}: no such band in {where} (there: {known})")
        first, last = int(number[1]), int(number[2] or number[1])
        if first < 1 or last > len(names) or first > last:
            raise OptionError(
                f"--bands {text}: {where} has bands 1 to {len(names)}, counted from 1"
            )
        found.extend(range(first, last + 1))
    if not found:
        raise OptionError("--bands: no band was named")
    if len(set(found)) < len(found):
        raise OptionError(f"--bands {','.join(map(str, wanted))}: a band is named twice")
    return found


def bands_for(domain: Domain, there: Sequence[SourceBand], where: str) -> list[int]:
    """Choose the bands of a scene that a model wants, by name, or by order where names lack.

    Where some have no name, order decides, if bands that are named on both sides agree with it.

    Args:
        domain: what the model wants.
        there: all bands of the scene.
        where: what to call the scene in an error.

    Returns:
        Their numbers, from 1.

    Raises:
        SceneError: they are not there; it names what the model wants and what the scene has.
    """
    have = [band for band in there if band.color != "alpha"]
    wanted = [name_key(name) or None for name in domain.names]
    found = [name_key(band.name) or None for band in have]
    # A name that several bands have says nothing.
    if all(name and wanted.count(name) == found.count(name) == 1 for name in wanted):
        return [have[found.index(name)].index for name in wanted]
    unnamed = not any(found) or not any(wanted)
    if len(have) == domain.count and (unnamed or _is_same_order(wanted, found)):
        return [band.index for band in have]
    remedy = "choose them in that order with --bands"
    if len(have) < domain.count <= len(there):
        alpha = next(band.index for band in there if band.color == "alpha")
        remedy = f"its band {alpha} is marked as alpha; if it holds data, name all with --bands"
    elif len(have) < domain.count:
        remedy = "take a scene that has them"
    raise SceneError(
        f"{where}: the model wants {domain.count} band{'s' * (domain.count != 1)}"
        f" ({listed(domain.labels)}), the scene has {len(have)}"
        f" ({listed([band.label for band in have])}); {remedy}"
    )


def _is_same_order(wanted: Sequence[str | None], found: Sequence[str | None]) -> bool:
    """Say whether bands with a name on both sides have one place; some may have none."""
    known = {*wanted} & {*found} - {None}
    return all(
        one == other if one and other else one not in known and other not in known
        for one, other in zip(wanted, found, strict=True)
    )


def taken_by_place(
    known: Sequence[str | None], found: Sequence[str | None], others: str
) -> str | None:
    """Say that bands are told apart by their place alone, since only one side names them.

    Args:
        known: names of the bands that are wanted, None where there is none.
        found: names of as many bands of a scene.
        others: what to call those who know the bands, in plural.

    Returns:
        What to say of the scene; None where names decide, no side has any, or one band is left.
    """
    pairs = list(zip(known, found, strict=True))
    if sum(bool(one) != bool(other) for one, other in pairs) < 2:
        return None
    labels = listed([one or other or "one without a name" for one, other in pairs])
    if any(one and not other for one, other in pairs):
        named = "does not name all of its bands" if any(found) else "names no bands"
        return f"it {named}; they are taken to be {labels}, in this order (--bands chooses)"
    return (
        f"its bands are {labels}; {others} name none, so they are taken in this order (--bands"
        " chooses)"
    )


def listed(labels: Sequence[str]) -> str:
    """Return names as one text; the middle of many is left out."""
    return ", ".join(labels) if len(labels) <= _MOST_LISTED else f"{', '.join(labels[:15])}, ..."
