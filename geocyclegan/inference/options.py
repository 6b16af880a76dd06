"""How a scene is translated, as one frozen value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from geocyclegan.bundle import Direction
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.precision import Precision
from geocyclegan.inference.statistics import NormStats


@dataclass(frozen=True)
class TranslateOptions:
    """How to translate.

    Attributes:
        direction: "a2b" or "b2a".
        bands: bands of the scene to take, in the model's order; None chooses by name.
        nodata: stored number that stands for no data where all bands have it, though the scene does
            not say so; "none": there is none; None: that of the source domain.
        overwrite: replace a product that exists.
        device: where to run.
        norm_stats: whose statistics to normalise with; "auto": as the model was trained.
        style: "seed:N" or a scene of the target domain, for models with styles; None: the mean.
        engine: how to cut; its `statistics.mode` follows from `norm_stats`. A tile or batch of None
            is chosen from the memory.
        precision: number format of the generator; "auto" chooses by device.
        memory: bytes that tiles may take; None: a share of what is free.
    """

    direction: Direction = "a2b"
    bands: Sequence[str] | None = None
    nodata: float | Literal["none"] | None = None
    overwrite: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    norm_stats: NormStats = "auto"
    style: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    precision: Precision = "auto"
    memory: int | None = None
