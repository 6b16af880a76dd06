"""What the statistics passes go over."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geocyclegan.models.norm import Core


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of a scene on its way through a generator.

    Attributes:
        levels: (samples, bands, height, width) in [−1, 1], 0 where not valid.
        valid: mask (samples, 1, height, width); None: all are valid.
        core: rows and columns that enter the statistics, at multiples of the generator's stride;
            None: all. What lies outside is context, and belongs to other patches.
    """

    levels: Tensor
    valid: Tensor | None = None
    core: Core | None = None
