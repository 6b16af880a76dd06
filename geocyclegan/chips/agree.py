"""Whether a run agrees with the domain that its folder holds already."""

from __future__ import annotations

from collections.abc import Sequence

from geocyclegan.chips.alike import difference
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.manifest import DomainRecord
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.survey import SceneFacts, warn_of_gsd
from geocyclegan.errors import OptionError
from geocyclegan.raster.bandfiles import told


def refuse_contradiction(
    old: DomainRecord, facts: Sequence[SceneFacts], geometry: Geometry, options: ChipOptions
) -> None:
    """Refuse what contradicts the domain that the folder holds; say so if pixels differ in size.

    Raises:
        OptionError: it names the option, what the folder has, and what to do.
    """
    where = f"domain {options.domain} in {options.out}"
    remedy = "replace the domain with --overwrite or choose another --out"
    if old.size != geometry.size:
        raise OptionError(
            f"--size {options.size}: {where} has chips of {old.size} px; give --size {old.size},"
            f" {remedy}"
        )
    if old.scale != str(options.scale):
        raise OptionError(
            f"--scale {options.scale}: {where} is scaled by {old.scale}; give --scale {old.scale},"
            f" {remedy}"
        )
    if old.shared_scale != options.shared_scale:
        there, verb = (
            ("one scaling", "give") if old.shared_scale else ("a scaling each", "leave out")
        )
        raise OptionError(
            f"--shared-scale: {where} has {there} for its bands; {verb} --shared-scale, {remedy}"
        )
    nodata, ours = old.domain.undeclared, facts[0].domain.undeclared
    if nodata != ours:
        kept = "leave out --nodata" if nodata is None else f"give --nodata {nodata:.9g}"
        there = "no such value" if nodata is None else f"{nodata:.9g} for it"
        raise OptionError(
            f"--nodata {'(none)' if ours is None else f'{ours:.9g}'}: {where} has {there}; {kept},"
            f" {remedy}"
        )
    first = {scene.path for scene in facts} & {old.scenes[0].path}
    if options.unit is not None and not first and not all(band.unit for band in old.domain.bands):
        raise OptionError(
            f"--unit {options.unit}: {where} has no unit; name its first scene too"
            f" ({told(old.scenes[0].path)}), leave --unit out, {remedy}"
        )
    if old.virtual != options.virtual:
        raise OptionError(
            f"--virtual: {where} is {'virtual' if old.virtual else 'a set of files'};"
            f" {'give' if old.virtual else 'leave out'} --virtual, {remedy}"
        )
    unlike = difference(old.domain, facts[0].domain)
    if unlike is not None:
        raise OptionError(
            f"{told(facts[0].path)}: it has {unlike[1]}, {where} has {unlike[0]}; choose bands with"
            f" --bands, {remedy}"
        )
    warn_of_gsd(old.domain, facts[0])
