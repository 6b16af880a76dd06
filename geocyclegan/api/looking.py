"""info and verify as functions."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocyclegan.api.options import Scenes, listed
from geocyclegan.api.wording import python_words
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.raster.undeclared import parse_nodata

Facts = dict[str, Any]


def _command(name: str) -> Any:
    # When it is called, as for options: the package does without the command line until then.
    return importlib.import_module(f"geocyclegan.cli.{name}")


@python_words("info")
def info(
    path: str | Path,
    *,
    bands: str | Sequence[str | int] | None = None,
    nodata: float | None = None,
) -> Facts:
    """Say what a scene, a chip folder or a model is.

    Args:
        path: a scene, of which a sample is read; a chip folder; a run or bundle folder.
        bands: bands of a scene, by number or description; None: all but alpha.
        nodata: stored number that stands for no data in a scene that does not say so.

    Returns:
        What `geocyclegan info --json` prints, without pictures; its keys are in the command line
        reference.

    Raises:
        NotFoundError: there is nothing of that name.
        OptionError: a band does not exist, or an argument is for scenes only.
        SceneError, ChipsError, BundleError: it cannot be read, or is none of these.
    """
    if isinstance(bands, str):
        bands = [part.strip() for part in bands.split(",") if part.strip()]
    chosen = None if bands is None else tuple(map(str, bands))
    value = None if nodata is None else parse_nodata(nodata)
    facts: Facts = _command("info").look(str(path), chosen, value)[0]
    return facts


@dataclass(frozen=True)
class VerifyReport:
    """What was found in one of the paths.

    Attributes:
        path: what was looked at.
        faults: how many things in it are damaged or missing.
        lines: what was found, as the command prints it.
    """

    path: Path
    faults: int
    lines: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """True if nothing is damaged or missing."""
        return self.faults == 0


def verify(paths: Scenes) -> list[VerifyReport]:
    """Look for damage in chip folders, products and models; see `geocyclegan verify`.

    Args:
        paths: one or several: chip folders, products, runs, model folders, checkpoints.

    Returns:
        A report for each. Damage raises nothing.

    Raises:
        NotFoundError: there is nothing of that name; nothing was looked at.
        ChipsError: a folder holds nothing that can be verified.
    """
    every = [Path(path) for path in listed(paths)]
    if not every:
        raise OptionError("paths: none was named")
    for path in every:
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder")
    find_damage = _command("verify").find_damage
    found: list[tuple[Path, Any]] = [(path, find_damage(path)) for path in every]
    return [VerifyReport(path, faults, tuple(lines)) for path, (lines, faults) in found]
