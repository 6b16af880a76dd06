"""Whether translations agree with the truth, where pairs tell it: the check for a flipped meaning.

No unpaired loss notices a model that draws fields as water and water as fields. A pair does: there
the correlation between translation and truth is negative, or no better than with another place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geocyclegan.methods.base import Direction, Method, ends
from geocyclegan.raster.domain import Domain
from geocyclegan.training.pairs import FixedPairs
from geocyclegan.training.validate import MOST_PAIRS


class Correlation:
    """Pearson's correlation of each band, over all valid pixels that it was given."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def update(self, x: Tensor, y: Tensor, valid: Tensor | None) -> None:
        """Count images in.

        Args:
            x: images (samples, bands, height, width), in any unit.
            y: images of the same shape.
            valid: mask (samples, 1, height, width); None: all are valid.
        """
        x, y = x.double(), y.double()
        weight = torch.ones_like(x[:, :1]) if valid is None else valid.double()
        terms = (torch.ones_like(x), x, y, x * x, y * y, x * y)
        sums = torch.stack([(term * weight).sum(dim=(0, 2, 3)) for term in terms])
        self._sums = sums if self._sums is None else self._sums + sums

    def bands(self) -> list[float]:
        """Return the correlation of each band; 0 where one side is constant, which says nothing."""
        if self._sums is None:
            return []
        n, x, y, xx, yy, xy = self._sums
        n = n.clamp_min(1.0)
        spread = (xx - x * x / n).clamp_min(0.0) * (yy - y * y / n).clamp_min(0.0)
        # What is left of the rounding of a constant is no spread.
        known = spread > (1e-9 * n) ** 2
        values = torch.where(known, (xy - x * y / n) / spread.clamp_min(1e-30).sqrt(), 0.0)
        return [float(value) for value in values.clamp(-1.0, 1.0)]

    def mean(self) -> float:
        """Return the mean over the bands."""
        bands = self.bands()
        return sum(bands) / max(len(bands), 1)


def agreement(
    method: Method,
    pairs: FixedPairs,
    domains: tuple[Domain, Domain],
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Correlate the translations of pairs with their truth; None if `stop` came true.

    Args:
        method: the networks.
        pairs: what to look at, up to `MOST_PAIRS` of them, evenly spread.
        domains: A and B.
        device: where the networks are.
        stop: ends it early.

    Returns:
        For each direction, such as a2b: `r_a2b`, the mean over the bands; `r_a2b_swapped`, the same
        with the truth of the next pair, where there are two or more; and `r_a2b_NAME` of each band,
        where there are two or more.

    Raises:
        ChipsError: a chip cannot be read.
    """
    chosen = pairs.spread(MOST_PAIRS)
    directions = list(method.generators())
    true = {direction: Correlation() for direction in directions}
    swapped = {direction: Correlation() for direction in directions}
    for index, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        if stop():
            return None
        batch, elsewhere = pairs.load(index).to(device), pairs.load(other).to(device)
        for direction in directions:
            source, target, _ = ends(direction)
            images, valid = batch.side(source)
            translation = method.translate(images, valid, direction)
            truth, known = batch.side(target)
            true[direction].update(translation, truth, known)
            if other != index:
                elsewhere_truth, mask = elsewhere.side(target)
                # Statistics that several crops share come in sets, the last of a scene is smaller.
                count = min(len(translation), len(elsewhere_truth))
                swapped[direction].update(
                    translation[:count],
                    elsewhere_truth[:count],
                    _joint(valid, mask, count),
                )
    return {
        name: value
        for direction in directions
        for name, value in _columns(
            direction, true[direction], swapped[direction], domains, len(chosen)
        ).items()
    }


def _joint(valid: Tensor | None, other: Tensor | None, count: int) -> Tensor | None:
    masks = [mask[:count].bool() for mask in (valid, other) if mask is not None]
    return torch.stack(masks).all(dim=0) if masks else None


def _columns(
    direction: Direction,
    true: Correlation,
    swapped: Correlation,
    domains: tuple[Domain, Domain],
    count: int,
) -> dict[str, float]:
    columns = {f"r_{direction}": true.mean()}
    if count > 1:
        columns[f"r_{direction}_swapped"] = swapped.mean()
    labels = domains["ab".index(ends(direction)[1])].labels
    if len(labels) > 1:
        columns |= {
            f"r_{direction}_{label}": value
            for label, value in zip(labels, true.bands(), strict=True)
        }
    return columns


def signs_of_a_flip(columns: dict[str, float]) -> str | None:
    """Say what is wrong with what `agreement` found, or None.

    A correlation below 0 is worse than that of a constant; one that is not above that with the
    truth of other places owes nothing to what the image shows.
    """
    for direction in ("a2b", "b2a"):
        found, swapped = columns.get(f"r_{direction}"), columns.get(f"r_{direction}_swapped")
        if found is None:
            continue
        way = " to ".join(direction.upper().split("2"))
        if found < 0.0:
            return f"translations {way} correlate negatively with the truth ({found:.2f})"
        if swapped is not None and found <= swapped:
            return (
                f"translations {way} correlate no better with the truth ({found:.2f}) than with"
                f" that of other places ({swapped:.2f})"
            )
    return None
