"""Which windows of a scene become chips, before a pixel is read and after."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.aoi import Aoi, cover_shares
from geocyclegan.chips.balance import balanced_windows
from geocyclegan.chips.geometry import (
    Geometry,
    Windows,
    lay_windows,
)
from geocyclegan.chips.manifest import Split
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.split import DROPPED, VAL
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.errors import ChipsError, OptionError
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

Reason = Literal["uncovered", "excluded", "invalid", "flat", "straddling", "duplicate", "unpaired"]
"""Why a window is left out; each is looked at in this order."""

# Shares are sums of floating-point areas; a window covered exactly by half counts as half.
ROUNDING = 1e-9


@dataclass(frozen=True)
class PlannedChip:
    """A window that may become a chip.

    Attributes:
        window: its pixels in the scene.
        number: its place among the windows of the scene.
        path: where it is cut, relative to the folder for cutting.
        cover: share that the AOI covers, 1 without one.
    """

    window: Window
    number: int
    path: str
    cover: float


@dataclass(frozen=True)
class Plan:
    """A scene and what is to be done with it.

    Attributes:
        scene: the scene.
        size: side of its windows in pixels.
        windows: how many windows it has.
        chips: those that may become chips.
        uncovered: numbers of windows too little of which lies in the AOI.
        excluded: of the rest, numbers of those that an exclusion polygon touches.
        most: how many windows are wanted; None for all.
    """

    scene: SceneFacts
    size: int
    windows: int
    chips: tuple[PlannedChip, ...]
    uncovered: npt.NDArray[np.int64]
    excluded: npt.NDArray[np.int64]
    most: int | None = None

    def considered(self, straddling: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which windows are looked at: of random ones the first few that do not straddle.

        Args:
            straddling: numbers of windows that are on neither side.
        """
        looked_at = np.ones(self.windows, np.bool_)
        if self.most is not None:
            looked_at[straddling] = False
            looked_at &= looked_at.cumsum() <= self.most
        return looked_at


def plan_scenes(
    scenes: Sequence[SceneFacts],
    geometry: Geometry,
    options: ChipOptions,
) -> list[Plan]:
    """Lay windows over the scenes; scenes that the AOI does not touch are left out.

    Args:
        scenes: the scenes.
        geometry: how windows are laid.
        options: which of them are wanted.

    Raises:
        OptionError: polygons cannot be used, the AOI touches no scene, or no class to balance lies
            over a scene.
        SceneError: labels to balance cannot be read.
    """
    aoi = Aoi(options.aoi) if options.aoi else None
    exclude = Aoi(options.exclude, "--exclude") if options.exclude else None
    plans, outside = [], []
    for scene in scenes:
        area = aoi.in_pixels(scene.grid, scene.path) if aoi else None
        if aoi and area is None:
            outside.append(scene.path)
            continue
        out = exclude.in_pixels(scene.grid, scene.path) if exclude else None
        plans.append(_plan(scene, geometry, options, area, out))
    if not plans:
        more = f" nor any of {len(outside) - 1} other scenes" if len(outside) > 1 else ""
        raise OptionError(
            f"--aoi {options.aoi}: its polygons do not touch {outside[0]}{more}; is it of another"
            " place, or is its CRS wrong?"
        )
    for path in outside:
        log.warning("%s: outside the AOI, left out", path)
    return plans


def _plan(
    scene: SceneFacts,
    geometry: Geometry,
    options: ChipOptions,
    area: Any,
    exclude: Any,
) -> Plan:
    shape, size = scene.grid.shape, geometry.size
    if scene.balance is not None:
        windows = balanced_windows(scene.balance, options.balance_values, scene.grid, geometry)
    else:
        windows = lay_windows(*shape, geometry)
    cover = _shares(area, windows, size, shape) if area is not None else np.ones(len(windows))
    covered = (cover > 0.0) & (cover >= options.min_cover - ROUNDING)
    free = np.ones(len(windows), np.bool_)
    if exclude is not None:
        free = _shares(exclude, windows, size, shape) <= ROUNDING
    chips = tuple(
        _chip(scene, options, windows, int(i), size, float(cover[i]))
        for i in np.flatnonzero(covered & free)
    )
    return Plan(
        scene,
        size,
        len(windows),
        chips,
        uncovered=np.flatnonzero(~covered),
        excluded=np.flatnonzero(covered & ~free),
        most=geometry.random,
    )


def _shares(
    area: Any, windows: Windows, size: int, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    return cover_shares(area, windows.rows, windows.cols, size, shape)


def _chip(
    scene: SceneFacts, options: ChipOptions, windows: Windows, i: int, size: int, cover: float
) -> PlannedChip:
    row, col = int(windows.rows[i]), int(windows.cols[i])
    name = f"{scene.id}_r{row:05d}_c{col:05d}.{options.format}"
    return PlannedChip(Window(row, col, size, size), i, f"cut_{options.domain}/{name}", cover)


@dataclass(frozen=True)
class CutChip:
    """A window that passed, cut or hashed.

    Attributes:
        plan: what was planned.
        valid: share of valid pixels, of those inside the scene.
        sha256: hash of the file; empty where there is none.
        content: hash of the pixels and their mask; empty where it was not needed.
        label_sha256: hash of the label chip's file; empty where there is none.
        split: "train" or "val", once that is decided.
    """

    plan: PlannedChip
    valid: float
    sha256: str
    content: str
    label_sha256: str
    split: Split | None = None

    @property
    def path(self) -> str:
        """Where the chip goes, relative to the chip folder."""
        assert self.split is not None  # for mypy: asked for chips of a set only
        return f"{self.split}_{self.plan.path.removeprefix('cut_')}"


Outcome = CutChip | Reason
"""What became of a planned chip."""


@dataclass(frozen=True)
class Choice:
    """The chips of a scene, and how many windows were left out for what."""

    chips: tuple[CutChip, ...]
    windows: int
    left_out: Counter[Reason]


def choose_chips(
    plans: Sequence[Plan],
    outcomes: Sequence[Sequence[Outcome]],
    splits: Sequence[npt.NDArray[np.uint8]],
    known: Sequence[set[str]] | None,
) -> list[Choice]:
    """Sort out what became of the windows of each scene.

    Args:
        plans: the scenes.
        outcomes: what became of each of their planned chips.
        splits: TRAIN, VAL or DROPPED for each of them.
        known: for each scene, the content of chips that come before it in the domain and are not
            cut now; None keeps duplicates. Scenes must be in the order of the domain.
    """
    seen: set[str] = set()
    choices = []
    for i, (plan, found, split) in enumerate(zip(plans, outcomes, splits, strict=True)):
        numbers = np.array([chip.number for chip in plan.chips], np.int64)
        considered = plan.considered(numbers[split == DROPPED])
        left_out: Counter[Reason] = Counter()
        left_out["uncovered"] = int(np.count_nonzero(considered[plan.uncovered]))
        left_out["excluded"] = int(np.count_nonzero(considered[plan.excluded]))
        chips = []
        for chip, outcome, side in zip(plan.chips, found, split, strict=True):
            if not considered[chip.number]:
                continue
            if not isinstance(outcome, CutChip):
                left_out[outcome] += 1
            elif side == DROPPED:
                left_out["straddling"] += 1
            elif known is not None and (outcome.content in seen or outcome.content in known[i]):
                left_out["duplicate"] += 1
            else:
                seen.add(outcome.content)
                chips.append(replace(outcome, split="val" if side == VAL else "train"))
        choices.append(Choice(tuple(chips), int(np.count_nonzero(considered)), left_out))
    return choices


def pair_up(first: Sequence[Choice], second: Sequence[Choice]) -> tuple[list[Choice], list[Choice]]:
    """Keep the windows that became chips in both scenes of each pair."""

    def keep(choice: Choice, partner: Choice) -> Choice:
        there = {chip.plan.window for chip in partner.chips}
        chips = tuple(chip for chip in choice.chips if chip.plan.window in there)
        left_out = choice.left_out.copy()
        left_out["unpaired"] += len(choice.chips) - len(chips)
        return Choice(chips, choice.windows, left_out)

    pairs = list(zip(first, second, strict=True))
    return [keep(a, b) for a, b in pairs], [keep(b, a) for a, b in pairs]


def check_choices(plans: Sequence[Plan], choices: Sequence[Choice], options: ChipOptions) -> None:
    """Refuse a run without a chip; warn of scenes without one.

    Raises:
        ChipsError: no window of any scene passes the filters; it says which filter removed them.
    """
    if not any(choice.chips for choice in choices):
        raise _nothing(plans[0].size, choices, options)
    for plan, choice in zip(plans, choices, strict=True):
        if not choice.chips:
            log.warning(
                "%s: none of its windows passes the filters, it gives no chip", plan.scene.path
            )


_FAR_OFF = 2.0


def warn_of_share(
    train: int, val: int, choices: Sequence[Choice], options: ChipOptions, *, is_bound: bool
) -> None:
    """Say so, and why, if far fewer or far more chips are for validation than was asked.

    Args:
        train: training chips of the domain.
        val: its validation chips.
        choices: what this run chose.
        options: what was asked.
        is_bound: chips that were there before had a say in it.
    """
    share = val / (train + val)
    if options.val <= 0.0 or options.val / _FAR_OFF < share < options.val * _FAR_OFF:
        return
    # Of a few chips one is the least.
    if val == 1 and share > options.val:
        return
    straddling = sum(choice.left_out["straddling"] for choice in choices)
    reason = "the ground that chips show cannot be divided more evenly"
    remedy = "a smaller --size or another --seed may come closer"
    if train + val == 1:
        reason = "there is but one chip"
        remedy = "a smaller --size or --min-valid, or more scenes, give more"
    elif is_bound:
        reason = "ground that this folder's chips show already stays on their side"
        remedy = "chip all scenes into another --out, with one --val"
    elif straddling > val:
        reason = f"{straddling} chips would show ground of both sides"
    log.warning(
        "%s: %d of %d chips of domain %s are for validation, %.0f %% where --val asks for %.0f %%:"
        " %s; %s",
        options.out,
        val,
        train + val,
        options.domain,
        100 * share,
        100 * options.val,
        reason,
        remedy,
    )


def _nothing(size: int, choices: Sequence[Choice], options: ChipOptions) -> ChipsError:
    windows = sum(choice.windows for choice in choices)
    counts = sum((choice.left_out for choice in choices), Counter[Reason]())
    if not windows:
        return ChipsError(
            f"no chip to write: no window of {size} px fits into a scene; lower --size, or let it"
            " reach beyond with --edge pad"
        )
    told: dict[Reason, tuple[str, str]] = {
        "uncovered": (f"less than {options.min_cover:.0%} covered by --aoi", "--min-cover"),
        "excluded": ("touched by --exclude", "--exclude"),
        "invalid": (f"with less than {options.min_valid:.0%} valid pixels", "--min-valid"),
        "flat": (f"with less than {options.min_std:g} standard deviation", "--min-std"),
        "straddling": ("across the edge of a validation block", "--val"),
        "duplicate": ("of the same pixels as another chip", "--drop-duplicates"),
        "unpaired": ("without a partner", "--pair"),
    }
    reasons = [f"{counts[key]} {text}" for key, (text, _) in told.items() if counts[key]]
    lowered: tuple[Reason, ...] = ("uncovered", "invalid", "flat", "straddling")
    remedies = [told[key][1] for key in lowered if counts[key]]
    advice = f"{', '.join(remedies)} or --size" if remedies else "--size"
    return ChipsError(
        f"no chip to write, of {windows} window{'s' * (windows != 1)} of {size} px:"
        f" {', '.join(reasons)}; lower {advice}"
    )
