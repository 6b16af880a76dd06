"""What `chip` is asked to do, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from geocyclegan.chips.chipfile import DEFAULT_CODEC, Codec
from geocyclegan.chips.geometry import (
    EDGES,
    LARGEST_CHIP,
    SMALLEST_CHIP,
    Edge,
    Geometry,
    Length,
)
from geocyclegan.chips.layers import split_layer
from geocyclegan.chips.manifest import DomainName
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.files import refuse_as_folder
from geocyclegan.raster.align import RESAMPLINGS
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.radiometry import ScaleSpec
from geocyclegan.raster.target import parse_crs, parse_res


@dataclass(frozen=True)
class ChipOptions:
    """The options of a chip run.

    Attributes:
        domain: "a" or "b".
        out: the chip folder.
        size: side of a chip, in pixels or on the ground.
        stride: from one chip to the next; None means `size`, so that they do not overlap.
        edge: what becomes of the last window where a scene ends within it: "shift" moves it back,
            "pad" lets it reach beyond, "drop" leaves it out.
        random: windows at random places of each scene, instead of a grid of them.
        angles: degrees, clockwise, at which the scenes' grids are turned for cutting; chips are cut
            at each.
        balance: rasters of classes that the random windows are drawn evenly from: one for all
            scenes, or one for each.
        balance_values: the classes to draw; None for all.
        bands: numbers ("1", "2-4") or descriptions; None takes all but alpha.
        nodata: stored number that stands for no data where all chosen bands have it, though the
            files do not say so.
        unit: unit of the stored numbers (after scale and offset) where files do not state it.
        scale: how the radiometry is fitted.
        stack: put files together that differ in their band only.
        shared_scale: one scaling for all bands, so that their ratios stay what they are.
        like: a raster whose grid the scenes are put on.
        crs: a CRS that the scenes are put into.
        res: a pixel size that the scenes are put to, in units of the CRS: "10" or "10,20".
        resampling: how they are put there, one of `raster.align.RESAMPLINGS`.
        aoi: a vector file; chips are kept by how much of them its polygons cover.
        min_cover: least share of a chip that the AOI must cover. Some of it must be covered always.
        exclude: a vector file; chips that its polygons touch are left out.
        mask: rasters of classes that make pixels invalid: one for all scenes, or one for each.
        mask_values: the classes that do; None for all but 0.
        min_valid: least share of valid pixels. Some must be valid always. Both shares count the
            pixels inside the scene only, so that a scene smaller than a chip is not lost for its
            padding.
        min_std: chips are left out if no band of them has a standard deviation of this much, in
            stored units.
        drop_duplicates: leave chips out whose pixels an earlier chip of the domain has.
        labels: rasters to cut alongside: one for all scenes, or one for each.
        format: "tif" or "npy".
        compress: how GeoTIFF chips are compressed.
        layout: a layout of another program that the set is written in, too.
        gpkg: write the list of chips as a GeoPackage, too.
        virtual: write no chips, only the list of them; they are read from the scenes.
        val: share of the chips to set aside for validation, 0 for none.
        workers: processes; None chooses by the size of the job.
        cluster: a Dask cluster whose workers do it instead; see `crew.DaskCrew`.
        overwrite: replace the domain that the folder holds.
        seed: chooses the validation blocks and random places.
    """

    domain: DomainName = "a"
    out: Path = Path("chips")
    size: Length = 256
    stride: Length | None = None
    edge: Edge = "shift"
    random: int | None = None
    angles: tuple[float, ...] = (0.0,)
    balance: tuple[str, ...] = ()
    balance_values: tuple[int, ...] | None = None
    bands: tuple[str, ...] | None = None
    nodata: float | None = None
    unit: str | None = None
    scale: ScaleSpec = field(default_factory=lambda: ScaleSpec("auto"))
    stack: bool = False
    shared_scale: bool = False
    like: str | None = None
    crs: str | None = None
    res: str | None = None
    resampling: str = "auto"
    aoi: Path | None = None
    min_cover: float = 0.5
    exclude: Path | None = None
    mask: tuple[str, ...] = ()
    mask_values: tuple[int, ...] | None = None
    min_valid: float = 0.9
    min_std: float = 0.0
    drop_duplicates: bool = False
    labels: tuple[str, ...] = ()
    format: Literal["tif", "npy"] = "tif"
    compress: Codec = DEFAULT_CODEC
    layout: Literal["cyclegan", "arcgis"] | None = None
    gpkg: bool = False
    virtual: bool = False
    val: float = 0.1
    workers: int | None = None
    cluster: str | None = None
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.domain not in ("a", "b"):
            raise OptionError(f"--domain {self.domain}: expected a or b")
        self._check_geometry()
        self._check_alignment()
        for name, share in (("min-cover", self.min_cover), ("min-valid", self.min_valid)):
            if not 0.0 <= share <= 1.0:
                raise OptionError(f"--{name} {share:g}: expected a share from 0 to 1")
        if not 0.0 <= self.min_std < float("inf"):
            raise OptionError(f"--min-std {self.min_std:g}: expected a finite number, 0 or more")
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"--workers {self.workers}: expected 1 or more")
        if self.workers is not None and self.cluster is not None:
            raise OptionError("--workers: on a --cluster the workers are there; leave it out")
        if self.unit is not None and not self.unit.strip():
            raise OptionError("--unit: it is empty; leave it out, or name one such as dB")
        if self.bands is not None and not self.bands:
            raise OptionError("--bands: no band was named")
        if self.mask_values is not None and not self.mask:
            raise OptionError("--mask-values: they are values of a --mask, and none is named")
        if self.virtual and self.labels:
            raise OptionError(
                "--virtual with --labels: a virtual set has no chips to put labels beside; leave"
                " one of them out"
            )
        self.compress.check()
        if self.format == "npy" and self.compress != DEFAULT_CODEC:
            raise OptionError(f"--compress {self.compress}: npy files are not compressed")
        for name, file in (("aoi", self.aoi), ("exclude", self.exclude)):
            if file is not None and not split_layer(file, f"--{name}")[0].exists():
                raise NotFoundError(f"--{name} {file}: no such file")
        refuse_as_folder(self.out)

    def _check_geometry(self) -> None:
        if isinstance(self.size, int) and not SMALLEST_CHIP <= self.size <= LARGEST_CHIP:
            raise OptionError(f"--size {self.size}: expected {SMALLEST_CHIP} to {LARGEST_CHIP} px")
        if isinstance(self.stride, int) and self.stride < 1:
            raise OptionError(f"--stride {self.stride}: expected 1 px or more")
        if self.edge not in EDGES:
            raise OptionError(f"--edge {self.edge}: expected {', '.join(EDGES)}")
        if self.random is not None:
            if self.random < 1:
                raise OptionError(f"--random {self.random}: expected 1 or more")
            if self.stride is not None or self.edge != "shift":
                raise OptionError(
                    "--random: random windows follow no --stride and meet no --edge; leave those"
                    " out"
                )
        if not self.angles or not all(-360.0 < angle < 360.0 for angle in self.angles):
            raise OptionError(
                f"--angles {','.join(f'{angle:g}' for angle in self.angles)}: expected degrees"
                " between -360 and 360, such as 0,15,30"
            )
        if len({angle % 360.0 for angle in self.angles}) < len(self.angles):
            raise OptionError("--angles: an angle is named twice")
        if self.balance and self.random is None:
            raise OptionError("--balance: it draws random windows; say how many with --random N")
        if self.balance_values is not None and not self.balance:
            raise OptionError("--balance-values: they are values of a --balance, and none is named")
        if not 0.0 <= self.val < 1.0:
            raise OptionError(f"--val {self.val:g}: expected a share from 0 to below 1")

    def _check_alignment(self) -> None:
        if self.like is not None and (self.crs is not None or self.res is not None):
            raise OptionError("--like: it gives the whole grid; leave --crs and --res out")
        if self.resampling not in RESAMPLINGS:
            raise OptionError(f"--resampling {self.resampling}: expected {', '.join(RESAMPLINGS)}")
        if self.crs is not None:
            parse_crs(self.crs)
        if self.res is not None:
            parse_res(self.res)

    def partner(
        self,
        bands: tuple[str, ...] | None,
        scale: ScaleSpec | None,
        nodata: float | None = None,
        unit: str | None = None,
    ) -> ChipOptions:
        """Return the options of the partners in pairs of scenes: those of the other domain.

        Args:
            bands: of the partners; None takes all but alpha.
            scale: how their radiometry is fitted; None: "auto".
            nodata: stored number that stands for no data in them.
            unit: of their numbers, where their files do not state it.
        """
        return replace(
            self,
            domain="b" if self.domain == "a" else "a",
            bands=bands,
            nodata=nodata,
            unit=unit,
            scale=scale or ScaleSpec("auto"),
            shared_scale=False,
            mask=(),
            mask_values=None,
            labels=(),
        )

    @property
    def amplitude(self) -> bool:
        """True if complex pixels may be read as amplitude: `scale` is a scaling other than auto."""
        return self.scale.method != "auto"

    def geometry(self, grids: list[tuple[str, Grid]]) -> Geometry:
        """Return how windows are laid over scenes of these names and grids.

        Raises:
            OptionError: lengths on the ground make no pixels of them.
        """
        return Geometry.resolve(
            self.size,
            self.stride,
            grids,
            edge=self.edge,
            random=self.random,
            val=self.val,
            seed=self.seed,
        )

    def of_scene(self, geometry: Geometry) -> dict[str, Any]:
        """Return what may differ from scene to scene of one domain, as JSON."""
        return {
            "stride": geometry.step,
            "edge": self.edge,
            "random": self.random,
            "angles": list(self.angles),
            "balance_values": None if self.balance_values is None else list(self.balance_values),
            "bands": None if self.bands is None else list(self.bands),
            "like": self.like,
            "crs": self.crs,
            "res": self.res,
            "aoi": None if self.aoi is None else str(self.aoi.resolve()),
            "min_cover": self.min_cover,
            "exclude": None if self.exclude is None else str(self.exclude.resolve()),
            "min_valid": self.min_valid,
            "min_std": self.min_std,
            "drop_duplicates": self.drop_duplicates,
            "val": self.val,
            "seed": self.seed,
        }
