"""What `geocyclegan chip` says when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geocyclegan.chips.tiler import ChipReport

_REASONS = {
    "uncovered": "too little covered by the AOI",
    "excluded": "touched by an exclusion polygon",
    "invalid": "with too few valid pixels",
    "flat": "with too little variation",
    "straddling": "across the edge of a validation block",
    "duplicate": "of the same pixels as another chip",
    "unpaired": "that the partner does not have",
}


def summary(report: ChipReport, domain: str) -> str:
    """Say what was made, and what was left out and why."""
    record = report.record
    labels = ", ".join(record.domain.labels[:6]) + (", ..." if record.domain.count > 6 else "")
    kind = "virtual chip" if record.virtual else "chip"
    lines = [
        f"{report.folder}: {_count(report.train + report.val, kind)} of {record.size} px from"
        f" {_count(report.scenes, 'scene')} for domain {domain} ({report.train} train,"
        f" {report.val} val); {_count(record.domain.count, 'band')}: {labels}"
    ]
    left_out = [
        f"{report.left_out[reason]} {text}"  # type: ignore[index]
        for reason, text in _REASONS.items()
        if report.left_out[reason]  # type: ignore[index]
    ]
    if left_out:
        lines.append(f"left out of {_count(report.windows, 'window')}: {', '.join(left_out)}")
    # A scene has an entry for each of its --angles.
    there = len({scene.path for scene in record.scenes})
    if there > report.scenes:
        lines.append(
            f"the domain now has {report.total_train} train and {report.total_val} val chips from"
            f" {_count(there, 'scene')}"
        )
    return "\n".join(lines)


def following(report: ChipReport, domain: str) -> str:
    """Say what comes next."""
    other = "b" if domain == "a" else "a"
    is_default = report.folder == Path("chips")
    if (report.folder / f"domain_{other}.json").exists():
        return f"Next: geocyclegan train{'' if is_default else f' {report.folder}'}"
    out = "" if is_default else f" --out {report.folder}"
    size = "" if report.record.size == 256 else f" --size {report.record.size}"
    return f"Next: geocyclegan chip SCENE --domain {other}{out}{size}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
