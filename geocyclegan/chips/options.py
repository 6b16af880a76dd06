"""What `chip` is asked to do, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geocyclegan.chips.manifest import DomainName
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.raster.radiometry import ScaleSpec

SMALLEST_CHIP, LARGEST_CHIP = 8, 8192


@dataclass(frozen=True)
class ChipOptions:
    """The options of a chip run.

    Attributes:
        domain: "a" or "b".
        out: the chip folder.
        size: side of a chip in pixels.
        stride: pixels from one chip to the next; None means `size`, so that they do not overlap.
        bands: numbers ("1", "2-4") or descriptions; None takes all but alpha.
        scale: how the radiometry is fitted.
        aoi: a vector file; chips are kept by how much of them its polygons cover.
        min_cover: least share of a chip that the AOI must cover. Some of it must be covered always.
        min_valid: least share of valid pixels. Some must be valid always. Both shares count the
            pixels inside the scene only, so that a scene smaller than a chip is not lost for its
            padding.
        val: share of the chips to set aside for validation, 0 for none.
        workers: processes; None chooses by the size of the job.
        overwrite: replace the domain that the folder holds.
        seed: chooses the validation blocks.
    """

    domain: DomainName = "a"
    out: Path = Path("chips")
    size: int = 256
    stride: int | None = None
    bands: tuple[str, ...] | None = None
    scale: ScaleSpec = field(default_factory=lambda: ScaleSpec("auto"))
    aoi: Path | None = None
    min_cover: float = 0.5
    min_valid: float = 0.9
    val: float = 0.1
    workers: int | None = None
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.domain not in ("a", "b"):
            raise OptionError(f"--domain {self.domain}: expected a or b")
        if not SMALLEST_CHIP <= self.size <= LARGEST_CHIP:
            raise OptionError(f"--size {self.size}: expected {SMALLEST_CHIP} to {LARGEST_CHIP} px")
        if self.stride is not None and self.stride < 1:
            raise OptionError(f"--stride {self.stride}: expected 1 px or more")
        for name, share in (("min-cover", self.min_cover), ("min-valid", self.min_valid)):
            if not 0.0 <= share <= 1.0:
                raise OptionError(f"--{name} {share:g}: expected a share from 0 to 1")
        if not 0.0 <= self.val < 1.0:
            raise OptionError(f"--val {self.val:g}: expected a share from 0 to below 1")
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"--workers {self.workers}: expected 1 or more")
        if self.bands is not None and not self.bands:
            raise OptionError("--bands: no band was named")
        if self.aoi is not None and not self.aoi.exists():
            raise NotFoundError(f"--aoi {self.aoi}: no such file")
        if self.out.exists() and not self.out.is_dir():
            raise OptionError(f"--out {self.out}: a file, where a folder was expected")

    @property
    def step(self) -> int:
        """The stride in pixels."""
        return self.size if self.stride is None else self.stride

    @property
    def amplitude(self) -> bool:
        """True if complex pixels may be read as amplitude: whoever names a scaling wants that."""
        return self.scale.method != "auto"

    def of_scene(self) -> dict[str, Any]:
        """Return what may differ from scene to scene of one domain, as JSON."""
        return {
            "stride": self.step,
            "bands": None if self.bands is None else list(self.bands),
            "aoi": None if self.aoi is None else str(self.aoi.resolve()),
            "min_cover": self.min_cover,
            "min_valid": self.min_valid,
            "val": self.val,
            "seed": self.seed,
        }
