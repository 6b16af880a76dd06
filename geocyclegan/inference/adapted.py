"""A scene in the numbers that a model knows."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

log = logging.getLogger(__name__)


class Adapted:
    """A scene in the stored numbers of its domain: differing scale and offset tags are applied.

    Args:
        scene: open.
        domain: of the scenes that the model knows.
    """

    def __init__(self, scene: Scene, domain: Domain) -> None:
        self._scene = scene
        self._factors = []
        for band, wanted in zip(scene.bands, domain.bands, strict=True):
            ours, theirs = (band.scale, band.offset), (wanted.scale, wanted.offset)
            if ours != theirs and (1.0, 0.0) in (ours, theirs):
                log.warning(
                    "%s: scale and offset of %s are %g and %g, those of the training scenes %g and"
                    " %g; the stored numbers are taken as they are",
                    *(told(scene.path), band.label, *ours, *theirs),
                )
                theirs = ours
            self._factors.append((ours[0] / theirs[0], (ours[1] - theirs[1]) / theirs[0]))

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return pixels `(bands, height, width)` and the valid mask of a window inside."""
        # GDAL's options hold for a thread, and this is the reader's.
        with gdal_env():
            pixels, valid = self._scene.read(window)
        if all(factor == (1.0, 0.0) for factor in self._factors):
            return pixels, valid
        gains, offsets = np.array(self._factors, np.float64).T[:, :, None, None]
        return pixels * gains + offsets, valid
