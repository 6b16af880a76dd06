"""A trained model on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt
import torch

from geocyclegan.api.arrays import ArrayScene, Pixels, mask_of, pixels_of
from geocyclegan.api.options import path_of, typed
from geocyclegan.api.wording import python_words
from geocyclegan.bundle import Bundle, Direction, load_bundle, newest_bundle
from geocyclegan.device import choose_device
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.exporting.files import ExportOptions, ExportResult, export_model
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.levels import SceneLevels
from geocyclegan.inference.precision import rounded_products
from geocyclegan.inference.run import RUNS
from geocyclegan.inference.statistics import (
    STATS_MEMORY,
    NormStats,
    StatisticsOptions,
    freeze_windows,
    resolve_mode,
)
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import Window

if TYPE_CHECKING:
    import xarray as xr

Mask = npt.NDArray[np.bool_ | np.integer[Any]]
Statistics = tuple[Moments, ...]
"""Statistics of each norm layer of a generator, in order."""


def load(model: str | Path | None = None, *, device: str = "auto") -> Model:
    """Load a trained model.

    Args:
        model: run or bundle folder; None: the newest run in `runs`.
        device: "auto", "cpu" or "cuda".

    Raises:
        NotFoundError: there is no model.
        BundleError: it is damaged, or no model.
        OptionError: CUDA was asked for and there is none.
    """
    bundle = newest_bundle(RUNS) if model is None else load_bundle(path_of("model", model))
    return Model(bundle, choose_device(device))


@dataclass(frozen=True)
class Model:
    """A trained model that translates arrays.

    Attributes:
        bundle: what it was loaded from: domains, radiometry, provenance.
        device: where it runs.
    """

    bundle: Bundle
    device: torch.device

    def __repr__(self) -> str:
        ways = ", ".join(self.directions)
        return f"Model({str(self.bundle.folder)!r}, {self.bundle.method}: {ways}, {self.device})"

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which ways it translates."""
        return tuple(self.bundle.generators)

    def source(self, direction: Direction = "a2b") -> Domain:
        """Bands, units and radiometry of what a direction takes."""
        return self.bundle.source(self.bundle.way(direction))

    def target(self, direction: Direction = "a2b") -> Domain:
        """Bands, units and radiometry of what a direction gives."""
        return self.bundle.target(self.bundle.way(direction))

    @overload
    def translate(
        self,
        data: npt.NDArray[Any],
        direction: Direction = "a2b",
        *,
        valid: Mask | None = None,
        norm_stats: NormStats = "auto",
        statistics: Statistics | None = None,
        tile: int | None = None,
        batch: int | None = None,
    ) -> npt.NDArray[Any]: ...

    @overload
    def translate(
        self,
        data: xr.DataArray,
        direction: Direction = "a2b",
        *,
        valid: Mask | None = None,
        norm_stats: NormStats = "auto",
        statistics: Statistics | None = None,
        tile: int | None = None,
        batch: int | None = None,
    ) -> xr.DataArray: ...

    def translate(
        self,
        data: Any,
        direction: Direction = "a2b",
        *,
        valid: Mask | None = None,
        norm_stats: NormStats = "auto",
        statistics: Statistics | None = None,
        tile: int | None = None,
        batch: int | None = None,
    ) -> Any:
        """Translate an array.

        Args:
            data: `(bands, height, width)` in the stored units of the source domain: an array, or an
                `xarray.DataArray` with dimensions (band, y, x), as `rioxarray.open_rasterio` gives.
                A DataArray on dask stays lazy, and each block is translated with its halo.
            direction: "a2b" or "b2a".
            valid: `(height, width)`, bool or whole numbers that are 0 where a pixel is invalid, as
                rasterio's masks; None: where all bands are finite, not nodata and not masked
                (`numpy.ma`), and not all of them the undeclared value that the model remembers.
                Only for arrays; a DataArray has its nodata value or NaN.
            norm_stats: whose statistics to normalise with, as `infer --norm-stats`; "auto": as the
                model was trained, and "frozen" on dask.
            statistics: given ones, from `statistics`, instead of `norm_stats`.
            tile: px per tile side; None: by device and size. On dask, blocks are the tiles.
            batch: tiles per forward pass; None: by device.

        Returns:
            The same kind, `(bands, height, width)` in the target domain's type and stored units.
            Pixels that are not valid have its nodata value, or 0. A DataArray keeps its coordinates
            and CRS, and says `SYNTHETIC` in its attributes.

        Raises:
            SceneError: the bands are not those that the model takes, or nothing is valid.
            OptionError: an option does not fit the model or the array.
            BundleError: there is no generator for this direction, or it is damaged.
        """
        if hasattr(data, "dims"):
            if valid is not None:
                raise OptionError("valid: it is for arrays; mask the DataArray instead (.where)")
            from geocyclegan.api.xarrays import translate_dataarray

            return translate_dataarray(
                self, data, direction, norm_stats, statistics, EngineOptions(tile=tile, batch=batch)
            )
        pixels, mask = pixels_of(data, self.source(direction))
        if valid is not None:
            mask = mask_of(valid, pixels.shape[1:])
        options = EngineOptions(tile=tile, batch=batch)
        return self._run(ArrayScene(pixels, mask), direction, norm_stats, statistics, options)

    def statistics(
        self,
        data: npt.NDArray[Any] | xr.DataArray,
        direction: Direction = "a2b",
        *,
        norm_stats: Literal["sample", "exact"] = "sample",
        memory: int = STATS_MEMORY,
    ) -> Statistics:
        """Measure what the norm layers see in an array, to translate other arrays with the same.

        Args:
            data: as in `translate`; of one on dask, the windows needed are computed.
            direction: "a2b" or "b2a".
            norm_stats: "sample", of 32 crops spread over it, or "exact", of all of it.
            memory: bytes that the activations may take.

        Returns:
            For each norm layer in order the moments of one sample: count (1,), mean and m2, each
            (1, channels), float64.

        Raises:
            SceneError: the bands are not those that the model takes.
            OptionError: the generator has no exact statistics.
            OutputError: the disk is full.
            BundleError: there is no generator for this direction, or it is damaged.
        """
        source, generator = self.source(direction), self.generator(direction)
        if hasattr(data, "dims"):
            from geocyclegan.api.xarrays import scene_of

            scene = scene_of(cast("xr.DataArray", data), source)
        else:
            scene = ArrayScene(*pixels_of(data, source))
        height, width = scene.shape
        mode = self._mode(generator, norm_stats)
        levels = SceneLevels(scene, source, height, width)
        how = StatisticsOptions(mode=mode, memory=memory)
        cut = EngineOptions(statistics=how)
        windows = self._engine(generator, direction, cut, None).measured(levels)
        with rounded_products("32"):
            freeze_windows(generator, levels, windows, self.device, how)
        return generator.frozen()

    def generator(self, direction: Direction = "a2b") -> Generator:
        """Build the network of a direction with its weights, in eval mode, on the device.

        Raises:
            BundleError: there is none, or it is damaged.
        """
        return self.bundle.generator(direction, self.device)

    def frozen(self, direction: Direction, statistics: Statistics | None = None) -> Generator:
        """Build the network of a direction with frozen statistics.

        Args:
            direction: "a2b" or "b2a".
            statistics: the statistics; None: those of the training set.

        Raises:
            OptionError: there are none.
            BundleError: there is no generator for this direction, or it is damaged.
        """
        generator = self.generator(direction)
        if not generator.norm_layers():
            return generator
        found: Sequence[Moments] | None = statistics or self.bundle.statistics(direction)
        if found is None:
            raise OptionError(
                "the model records no statistics of its training set; give those of a scene:"
                " statistics=model.statistics(scene)"
            )
        generator.freeze(found)
        return generator

    @python_words("export")
    def export(self, out: str | Path | None = None, **given: Any) -> ExportResult:
        """Export one direction of the model.

        Args:
            out: the file; None: named after the run and the direction, in the working folder.
            **given: the options of `geocyclegan.exporting.files.ExportOptions`.

        Raises:
            GeoCycleGANError: see `geocyclegan.exporting.files.export_model`.
        """
        options = typed(ExportOptions, given | ({} if out is None else {"out": out}), "export")
        return export_model(self.bundle, ExportOptions(**options))

    def _mode(self, generator: Generator, asked: NormStats) -> NormStats:
        return resolve_mode(
            asked,
            generator,
            pool=str(self.bundle.normalization.get("pool", "crop")),
            has_statistics=self.bundle.has_statistics,
            model=str(self.bundle.folder),
        )

    def _engine(
        self,
        generator: Generator,
        direction: Direction,
        options: EngineOptions,
        trained: Sequence[Moments] | None,
    ) -> TileEngine:
        options = replace(options, window=self.bundle.tile)
        source, target = self.source(direction), self.target(direction)
        return TileEngine(generator, source, target, self.device, options, trained)

    def _run(
        self,
        scene: ArrayScene,
        direction: Direction,
        norm_stats: NormStats,
        statistics: Statistics | None,
        options: EngineOptions,
    ) -> Pixels:
        generator = self.generator(direction)
        if statistics is None:
            mode = self._mode(generator, norm_stats)
            trained: Any = self.bundle.statistics(direction) if mode == "frozen" else None
        elif norm_stats != "auto":
            raise OptionError(f"norm_stats={norm_stats!r} and statistics: give one of them")
        else:
            mode, trained = "frozen", statistics
        options = replace(options, statistics=StatisticsOptions(mode=mode))
        engine = self._engine(generator, direction, options, trained)
        height, width = scene.shape
        target = self.target(direction)
        made = np.empty((target.count, height, width), target.dtype)
        seen = False
        with rounded_products("32"):
            for piece, _ in engine.run(scene, height, width):
                rows, cols = piece.window.slices_in(Window(0, 0, height, width))
                made[:, rows, cols] = piece.pixels
                seen = seen or bool(piece.valid.any())
        if not seen:
            raise SceneError("no valid pixel in the array, so there is nothing to translate")
        return made
