"""Histograms of the bands of a domain as one picture, with the percentiles that scalings stand on.

Drawn from streaming statistics, so from all pixels of an archive, at no further reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.sketch import BandSketch

_WIDTH, _HEIGHT, _GAP = 512, 120, 10
_TITLE, _AXIS = 16, 16
_COLUMNS = 256
_MARKED = ((0.01, "p1"), (0.5, "p50"), (0.99, "p99"))
_INK, _BAR, _MARK, _KNOT = (0, 0, 0), (120, 150, 190), (200, 40, 40), (40, 140, 40)
# What is shown reaches a little beyond the bulk; the tails are squeezed away.
_SHOWN = (0.001, 0.999)


def draw_histograms(
    labels: Sequence[str],
    sketches: Sequence[BandSketch],
    scalings: Sequence[BandScaling] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a panel for each band, one below the other.

    Args:
        labels: what to call the bands.
        sketches: their statistics.
        scalings: where given, the inner knots of each scaling are marked below the axis.

    Returns:
        An RGB picture `(height, width, 3)`, 8 bits. Values are in stored units, counts on a linear
        axis.
    """
    panels = [
        _panel(label, sketch, scalings[i] if scalings else None)
        for i, (label, sketch) in enumerate(zip(labels, sketches, strict=True))
    ]
    return np.concatenate(panels)


def _panel(label: str, sketch: BandSketch, scaling: BandScaling | None) -> npt.NDArray[np.uint8]:
    canvas = Image.new("RGB", (_WIDTH, _TITLE + _HEIGHT + _AXIS + _GAP), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    if not sketch.count:
        draw.text((4, 2), f"{label}: no valid pixel", fill=_INK)
        return np.asarray(canvas)
    marks = [(sketch.quantile(share), name) for share, name in _MARKED]
    told = ", ".join(f"{name} {value:.5g}" for value, name in marks)
    spread = f"min {sketch.minimum:.5g}, max {sketch.maximum:.5g}, std {sketch.std:.4g}"
    draw.text((4, 2), f"{label}: {told}; {spread}; {sketch.count:,} px", fill=_INK)
    low, high = (sketch.quantile(share) for share in _SHOWN)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    counts = sketch.histogram(low, high, _COLUMNS)
    base = _TITLE + _HEIGHT
    step = _WIDTH / len(counts)
    for i, share in enumerate(counts / max(counts.max(), 1)):
        top = base - round(float(share) * (_HEIGHT - 2))
        if top < base:
            draw.rectangle((i * step, top, (i + 1) * step - 1, base), fill=_BAR)
    draw.line((0, base, _WIDTH, base), fill=_INK)

    def at(value: float) -> float:
        return (value - low) / (high - low) * (_WIDTH - 1)

    for value, name in marks:
        if low <= value <= high:
            draw.line((at(value), _TITLE, at(value), base), fill=_MARK)
            draw.text((min(at(value) + 2, _WIDTH - 24), _TITLE), name, fill=_MARK)
    if scaling is not None:
        for value in scaling.inverse(np.asarray(scaling.levels)):
            if low <= value <= high:
                draw.polygon(
                    [(at(value) - 4, base + 8), (at(value) + 4, base + 8), (at(value), base + 1)],
                    fill=_KNOT,
                )
    draw.text((10, base + 2), f"{low:.5g}", fill=_INK)
    text = f"{high:.5g}"
    draw.text((_WIDTH - 2 - draw.textlength(text), base + 2), text, fill=_INK)
    return np.asarray(canvas)
