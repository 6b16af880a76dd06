"""Which windows of a scene become chips: AOI, valid pixels, split."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.aoi import Aoi, cover_shares
from geocyclegan.chips.manifest import Split
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.split import DROPPED, VAL, split_windows
from geocyclegan.chips.survey import SceneFacts, SceneSurvey, window_counts, window_starts
from geocyclegan.errors import ChipsError, OptionError
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

# Shares are sums of floating-point areas; a window covered exactly by half counts as half.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PlannedChip:
    """A chip to be cut.

    Attributes:
        window: its pixels in the scene.
        split: "train" or "val".
        path: where it goes, relative to the chip folder.
        valid: share of valid pixels.
        cover: share that the AOI covers, 1 without one.
    """

    window: Window
    split: Split
    path: str
    valid: float
    cover: float


@dataclass(frozen=True)
class Choice:
    """The chips of a scene, and how many windows were left out for what.

    Attributes:
        chips: by row, then column.
        windows: all windows of the scene.
        uncovered: too little of them lies in the AOI.
        invalid: of the rest, too few pixels are valid.
        straddling: of the rest, they lie across the edge between training and validation.
    """

    chips: tuple[PlannedChip, ...]
    windows: int
    uncovered: int
    invalid: int
    straddling: int


def choose_chips(
    scenes: list[SceneFacts],
    covers: list[npt.NDArray[np.float64]],
    surveys: list[SceneSurvey],
    options: ChipOptions,
) -> list[Choice]:
    """Choose the chips of all scenes.

    Raises:
        ChipsError: no window of any scene passes the filters.
    """
    choices = [
        _choose(scene, cover, survey.valid, options)
        for scene, cover, survey in zip(scenes, covers, surveys, strict=True)
    ]
    if not any(choice.chips for choice in choices):
        raise _nothing(choices, options)
    for scene, choice in zip(scenes, choices, strict=True):
        if not choice.chips:
            log.warning("%s: none of its windows passes the filters, it gives no chip", scene.path)
    return choices


def _nothing(choices: list[Choice], options: ChipOptions) -> ChipsError:
    """Say which filter removed how many windows."""
    windows = sum(choice.windows for choice in choices)
    uncovered = sum(choice.uncovered for choice in choices)
    invalid = sum(choice.invalid for choice in choices)
    straddling = sum(choice.straddling for choice in choices)
    reasons, remedies = [], []
    if uncovered:
        reasons.append(f"{uncovered} less than {options.min_cover:.0%} covered by --aoi")
        remedies.append("--min-cover")
    if invalid:
        reasons.append(f"{invalid} with less than {options.min_valid:.0%} valid pixels")
        remedies.append("--min-valid")
    if straddling:
        reasons.append(f"{straddling} across the edge of a validation block")
        remedies.append("--val")
    return ChipsError(
        f"no chip to write, of {windows} window{'s' * (windows != 1)} of {options.size} px:"
        f" {', '.join(reasons)}; lower {', '.join(remedies)} or --size"
    )


def cover_scenes(
    scenes: list[SceneFacts], options: ChipOptions
) -> tuple[list[SceneFacts], list[npt.NDArray[np.float64]]]:
    """Return the scenes that the AOI touches, and for each the covered share of every window.

    Raises:
        OptionError: the AOI cannot be used, or touches no scene.
    """
    if options.aoi is None:
        return scenes, [np.ones(window_counts(scene.grid, options)) for scene in scenes]
    aoi = Aoi(options.aoi)
    touched, covers, outside = [], [], []
    for scene in scenes:
        area = aoi.in_pixels(scene.grid, scene.path)
        if area is None:
            outside.append(scene.path)
            continue
        rows, cols = window_starts(scene.grid, options)
        touched.append(scene)
        covers.append(cover_shares(area, rows, cols, options.size, scene.grid.shape))
    if not touched:
        more = f" nor any of {len(outside) - 1} other scenes" if len(outside) > 1 else ""
        raise OptionError(
            f"--aoi {options.aoi}: its polygons do not touch {outside[0]}{more}; is it of another"
            " place, or is its CRS wrong?"
        )
    for path in outside:
        log.warning("%s: outside the AOI, left out", path)
    return touched, covers


def _choose(
    scene: SceneFacts,
    cover: npt.NDArray[np.float64],
    valid: npt.NDArray[np.float64],
    options: ChipOptions,
) -> Choice:
    rows, cols = window_starts(scene.grid, options)
    covered = (cover > 0.0) & (cover >= options.min_cover - _ROUNDING)
    sound = covered & (valid > 0.0) & (valid >= options.min_valid - _ROUNDING)
    split = split_windows(*scene.grid.shape, options.size, options.step, options.val, options.seed)
    kept = sound & (split != DROPPED)
    chips = []
    for i, j in np.argwhere(kept):
        side: Split = "val" if split[i, j] == VAL else "train"
        name = f"{scene.id}_r{rows[i]:05d}_c{cols[j]:05d}.tif"
        chips.append(
            PlannedChip(
                Window(rows[i], cols[j], options.size, options.size),
                side,
                str(PurePosixPath(f"{side}_{options.domain}", name)),
                float(valid[i, j]),
                float(cover[i, j]),
            )
        )
    return Choice(
        tuple(chips),
        windows=valid.size,
        uncovered=int(np.count_nonzero(~covered)),
        invalid=int(np.count_nonzero(covered & ~sound)),
        straddling=int(np.count_nonzero(sound & ~kept)),
    )
