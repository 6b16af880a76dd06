"""A scene in the numbers that a model knows."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.bands import listed
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sketch import usual_filler
from geocyclegan.raster.undeclared import filler_advice
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)

# Pixels that are looked at in a window, and in all.
_SAMPLES = 1 << 14
# Some scalings clip on purpose: percentile:25,75 has half of all values beyond its ends.
_BEYOND = 0.95
_USUAL = 0.995


class _Range:
    """Notices a scene whose numbers are of another kind than those that a model knows.

    Eight bits for sixteen, reflectance for stored numbers, power for decibels: nearly all values
    lie beyond those of the training scenes.

    Args:
        domain: of the scenes that the model knows.
        path: what to call the scene.
        enough: valid pixels to look at before anything is said.
    """

    def __init__(self, domain: Domain, path: str, enough: int) -> None:
        self._domain, self._path, self._enough = domain, path, enough
        ends = [
            band.scaling.inverse(np.clip(band.scaling.bulk_levels, -_USUAL, _USUAL))
            for band in domain.bands
        ]
        self._low, self._high = np.array(ends).T[:, :, np.newaxis]
        # Saturated colours, the background of a map: where the range ends there may be much.
        ends = [band.scaling.inverse(np.array([-1.0, 1.0])) for band in domain.bands]
        self._lowest, self._highest = np.array(ends).T[:, :, np.newaxis]
        self._seen, self._beyond = 0, np.zeros(domain.count, np.int64)

    def look(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        """Look at some of the pixels of a window, until enough was seen; warn once."""
        if self._seen >= self._enough:
            return
        step = max(1, math.isqrt(valid.size // _SAMPLES))
        values = pixels[:, ::step, ::step][:, valid[::step, ::step]]
        self._seen += values.shape[1]
        below = (values < self._low) & (values != self._lowest)
        above = (values > self._high) & (values != self._highest)
        self._beyond += (below | above).sum(axis=1)
        worst = int(self._beyond.argmax())
        if self._seen < self._enough or self._beyond[worst] < _BEYOND * self._seen:
            return
        log.warning(
            "%s: %.0f%% of the pixels looked at lie beyond the usual range of %s in the training"
            " scenes, %.4g to %.4g; are its numbers in their units (%s)?",
            self._path,
            100 * self._beyond[worst] / self._seen,
            self._domain.labels[worst],
            *(self._low[worst, 0], self._high[worst, 0]),
            ", ".join(filter(None, (self._domain.dtype, self._domain.bands[worst].unit))),
        )


class _Filler:
    """Notices values that usually stand for no data among the valid pixels of a scene.

    Args:
        scene: open.
    """

    def __init__(self, scene: Scene) -> None:
        self._path, self._labels = told(scene.path), [band.label for band in scene.bands]
        # Those values are negative or huge.
        self._over = np.dtype(scene.dtype).kind == "u"

    def look(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        """Look at all pixels of a window, as they are stored; warn once."""
        if self._over or not pixels.size:
            return
        # What is not valid takes part at first: to leave it out takes longer, and most have none.
        # NaN, though, hides all other values.
        ends = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))
        if not any(math.isnan(end) or usual_filler(end) for end in map(float, np.ravel(ends))):
            return
        values = pixels[:, valid]
        for label, band in zip(self._labels, values, strict=True):
            found = usual_filler(float(band.min()), float(band.max())) if band.size else None
            if found is not None:
                self._over = True
                log.warning("%s, %s: %s", self._path, label, filler_advice(found, "infer"))
                return


class Adapted:
    """A scene in the stored numbers of its domain: differing scale and offset tags are applied.

    Args:
        scene: open.
        domain: of the scenes that the model knows.
        trusted: no value of it is suspected of standing for no data.
    """

    def __init__(self, scene: Scene, domain: Domain, *, trusted: bool = False) -> None:
        self._scene = scene
        self._filler = None if trusted else _Filler(scene)
        height, width = scene.grid.shape
        enough = max(1, min(_SAMPLES, height * width // 64))
        self._range = _Range(domain, told(scene.path), enough)
        self._factors = []
        unclear: dict[tuple[float, ...], list[str]] = {}
        for band, wanted in zip(scene.bands, domain.bands, strict=True):
            ours, theirs = (band.scale, band.offset), (wanted.scale, wanted.offset)
            if ours != theirs and (1.0, 0.0) in (ours, theirs):
                unclear.setdefault((*ours, *theirs), []).append(band.label)
                theirs = ours
            self._factors.append((ours[0] / theirs[0], (ours[1] - theirs[1]) / theirs[0]))
        if unclear:
            log.warning(
                "%s: scale and offset of %s; the stored numbers are taken as they are",
                told(scene.path),
                "; ".join(
                    f"{listed(labels)} are {ours:g} and {offset:g}, those of the training scenes"
                    f" {theirs:g} and {shift:g}"
                    for (ours, offset, theirs, shift), labels in unclear.items()
                ),
            )

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window that lies inside the scene.

        Returns:
            Pixels `(bands, height, width)` in the domain's stored units: in the scene's type, or
            float64 where scale or offset differ. And the valid mask `(height, width)`.

        Raises:
            SceneError: the pixels cannot be read.
        """
        # GDAL's options hold for a thread, and this is the reader's.
        with gdal_env():
            pixels, valid = self._scene.read(window)
        if self._filler is not None:
            self._filler.look(pixels, valid)
        if any(factor != (1.0, 0.0) for factor in self._factors):
            gains, offsets = np.array(self._factors, np.float64).T[:, :, None, None]
            pixels = pixels * gains + offsets
        self._range.look(pixels, valid)
        return pixels, valid
