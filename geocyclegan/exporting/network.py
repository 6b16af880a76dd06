"""A generator with all that surrounds it in `infer`, as one module from pixels to pixels.

Windows of any size are padded to the generator's stride as the tile engine pads them, pixels
without data are left out of the statistics and come out as nodata, and the radiometry of both
domains is part of the graph, so that no one else needs to write it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from geocyclegan.models.generator import Generator
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.radiometry import BandScaling

Outputs = Literal["units", "levels", "display"]

DISPLAY = (0.0, 255.0)
"""Range of outputs that are made to be looked at."""


class Scalings(nn.Module):
    """The scalings of all bands of a domain, in torch.

    The same piecewise linear maps as `raster.radiometry.BandScaling`, all bands at once: bands with
    fewer knots than others have segments of no length.

    Args:
        scalings: one for each band.

    Attributes:
        is_db: which bands are scaled in decibel (bands, 1, 1), bool.
        is_log1p: which bands are scaled by log(1 + |x|) (bands, 1, 1), bool.
        lowest: smallest value of which decibel are taken (bands, 1, 1), in stored units.
    """

    def __init__(self, scalings: Sequence[BandScaling]) -> None:
        super().__init__()
        # float32 resolves all but ranges far from zero, as in BandScaling.
        wide = any(_is_far(scaling) for scaling in scalings)
        self.dtype = torch.float64 if wide else torch.float32
        self.methods = tuple(scaling.method for scaling in scalings)
        # Anchored at the piece that takes up most of the levels, as BandScaling is.
        bulks = [int(np.argmax(np.diff(scaling.levels))) for scaling in scalings]
        self.to_levels = _Pieces([s.knots for s in scalings], [s.levels for s in scalings], bulks)
        self.to_values = _Pieces([s.levels for s in scalings], [s.knots for s in scalings], bulks)
        lowest = [10.0 ** (s.knots[0] / 10.0) if s.method == "db" else 1.0 for s in scalings]
        self.register_buffer("lowest", _column(lowest))
        for name in ("db", "log1p"):
            chosen = torch.tensor([method == name for method in self.methods])
            self.register_buffer(f"is_{name}", chosen[:, None, None])
        self.to(self.dtype)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels in stored units to levels.

        Args:
            pixels: (samples, bands, height, width).

        Returns:
            float32 of the same shape, in [-1, 1].
        """
        values = pixels.to(self.dtype)
        if "db" in self.methods:
            decibel = 10.0 * torch.log10(torch.maximum(values, self.lowest))
            values = torch.where(self.is_db, decibel, values)
        if "log1p" in self.methods:
            # Of bands that have another scaling the result is not taken, so it need not be finite.
            logarithm = torch.sign(values) * torch.log1p(values.abs())
            values = torch.where(self.is_log1p, logarithm, values)
        levels: Tensor = self.to_levels(values)
        return levels.float()

    def inverse(self, levels: Tensor) -> Tensor:
        """Map levels (samples, bands, height, width) to values of that shape, in stored units."""
        values: Tensor = self.to_values(levels.to(self.dtype))
        if "db" in self.methods:
            values = torch.where(self.is_db, torch.pow(10.0, values / 10.0), values)
        if "log1p" in self.methods:
            # Clipped, or the exponential of a band that is not logarithmic could overflow.
            power = torch.sign(values) * torch.expm1(values.abs().clamp_max(80.0))
            values = torch.where(self.is_log1p, power, values)
        return values

    is_db: Tensor
    is_log1p: Tensor
    lowest: Tensor


class _Pieces(nn.Module):
    """Piecewise linear maps, clipped at their ends, one for each band."""

    def __init__(
        self,
        xs: Sequence[Sequence[float]],
        ys: Sequence[Sequence[float]],
        anchors: Sequence[int],
    ) -> None:
        super().__init__()
        most = max(len(knots) for knots in xs) - 1
        table: list[list[tuple[float, float, float, float]]] = []
        for x, y, anchor in zip(xs, ys, anchors, strict=True):
            pieces = [
                (x0, x1, x0 if k >= anchor else x1, (y1 - y0) / (x1 - x0))
                for k, ((x0, x1), (y0, y1)) in enumerate(zip(pairwise(x), pairwise(y), strict=True))
            ]
            # Bands with fewer pieces get pieces of no length.
            table.append(pieces + [(x[-1], x[-1], x[-1], 0.0)] * (most - len(pieces)))
        # (pieces, bands, 1, 1) of each of the four.
        parts = torch.tensor(table, dtype=torch.float64).permute(2, 1, 0)[..., None, None]
        for name, part in zip(("low", "high", "anchor", "slope"), parts, strict=True):
            self.register_buffer(name, part.contiguous())
        starts = [y[anchor] for y, anchor in zip(ys, anchors, strict=True)]
        self.register_buffer("start", _column(starts))
        self.register_buffer("least", _column([y[0] for y in ys]))
        self.register_buffer("most", _column([y[-1] for y in ys]))

    def forward(self, x: Tensor) -> Tensor:
        result = self.start
        for low, high, anchor, slope in zip(
            self.low, self.high, self.anchor, self.slope, strict=True
        ):
            inside = torch.minimum(torch.maximum(x, low), high)
            result = result + (inside - anchor) * slope
        return torch.minimum(torch.maximum(result, self.least), self.most)

    low: Tensor
    high: Tensor
    anchor: Tensor
    slope: Tensor
    start: Tensor
    least: Tensor
    most: Tensor


class Translation(nn.Module):
    """A generator from pixels of one domain to pixels of the other.

    Windows may be of any size: they are padded below and to the right to a multiple of the
    generator's stride, and the padding is cut off again. A pixel is without data where any band is
    not finite or, with `outputs` other than "levels", equals the source's nodata value, or where
    all bands equal its undeclared one; it counts in no statistics.

    Args:
        generator: in eval mode; its norm layers as they shall be.
        source: the domain of the inputs.
        target: the domain of the outputs.
        outputs: "units", stored units of the domains, in and out; "levels", [-1, 1] in and out;
            "display", stored units in and whole numbers from 0 to 255 out.
        split: give a tuple of one-band images instead of one image.

    Attributes:
        least: smallest side of an input in pixels.
    """

    def __init__(
        self,
        generator: Generator,
        source: Domain,
        target: Domain,
        outputs: Outputs = "units",
        split: bool = False,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.outputs = outputs
        self.split = split
        self.source = Scalings(source.radiometry.scalings)
        self.target = Scalings(target.radiometry.scalings)
        self.nodata: float | None = None
        if source.nodata is not None and math.isfinite(source.nodata):
            self.nodata = source.nodata
        self.undeclared = source.undeclared
        self.fill = math.nan if outputs == "levels" else _fill(target, outputs)
        self.limits = _limits(target)
        # A U-Net has a single pixel at its bottom below that, which torch.export takes for special.
        bounded = generator.halo is not None
        self.least = (
            max(generator.min_size - generator.stride, 0 if bounded else generator.stride) + 1
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Translate images.

        Args:
            image: float32 (samples, bands of the source, height, width), sides of `least` or more.

        Returns:
            float32 (samples, bands of the target, height, width); with `split` one (samples, 1,
            height, width) for each band.
        """
        height, width = image.shape[-2:]
        seen = torch.isfinite(image)
        if self.nodata is not None and self.outputs != "levels":
            seen = seen & self._far(image, self.nodata)
        valid = seen.all(dim=1, keepdim=True)
        if self.undeclared is not None and self.outputs != "levels":
            far = self._far(image, self.undeclared)
            valid = valid & far.any(dim=1, keepdim=True)
        pixels = torch.where(valid, image, torch.zeros_like(image))
        levels = pixels if self.outputs == "levels" else self.source(pixels)
        levels = torch.where(valid, levels, torch.zeros_like(levels))
        levels, mask = self._padded(levels, valid)
        made = self.generator(levels, mask)
        # Not a slice: whether its end lies within is more than torch.export can prove.
        made = made.index_select(2, torch.arange(height, device=made.device))
        made = made.index_select(3, torch.arange(width, device=made.device))
        if self.outputs == "units":
            made = self.target.inverse(made).float()
            made = made.clamp(*self.limits) if self.limits else made
        elif self.outputs == "display":
            made = (made + 1.0) * 127.5
            made = made.round().clamp(*DISPLAY)
        made = torch.where(valid, made, torch.full_like(made, self.fill))
        return torch.split(made, 1, dim=1) if self.split else made

    def _far(self, image: Tensor, value: float) -> Tensor:
        """Return where an image does not have a value."""
        # A viewer may have divided and multiplied what it hands over.
        tolerance = 1e-6 * abs(value) if self.outputs == "display" else 0.0
        return (image - value).abs() > tolerance

    def _padded(self, levels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Repeat the last row and column up to a size that the generator takes."""
        height, width = levels.shape[-2:]
        rows = self._places(height, levels.device)
        cols = self._places(width, levels.device)
        inside = (rows < height)[:, None] & (cols < width)[None, :]
        rows, cols = rows.clamp_max(height - 1), cols.clamp_max(width - 1)
        levels = levels.index_select(2, rows).index_select(3, cols)
        valid = valid.index_select(2, rows).index_select(3, cols) & inside
        return levels, valid.to(levels.dtype)

    def _places(self, length: int, device: torch.device) -> Tensor:
        stride = self.generator.stride
        return torch.arange((length + stride - 1) // stride * stride, device=device)


def _fill(target: Domain, outputs: Outputs) -> float:
    if outputs == "display" or target.nodata is None:
        return 0.0
    return target.nodata


def _limits(target: Domain) -> tuple[float, float] | None:
    """Range of whole numbers that a product may hold; its ends are not the nodata value."""
    dtype = np.dtype(target.dtype)
    if dtype.kind not in "iu":
        return None
    low, high = (int(end) for end in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return float(low + (target.nodata == low)), float(high - (target.nodata == high))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def _is_far(scaling: BandScaling) -> bool:
    extent = scaling.knots[-1] - scaling.knots[0]
    return extent > 1e5 or max(map(abs, scaling.knots)) > 1e5 * extent
