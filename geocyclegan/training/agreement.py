"""Whether translations agree with the truth, where pairs tell it: the check for a flipped meaning.

No unpaired loss notices a model that draws fields as water and water as fields. A pair does: there
the correlation between translation and truth is negative, or less than with another place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geocyclegan.methods.base import Direction, Method, ends
from geocyclegan.raster.domain import Domain
from geocyclegan.training.evidence import (
    Finding,
    block_sums,
    is_clearly_negative,
    jackknife_variance,
    leave_out,
    way_of,
)
from geocyclegan.training.pairs import FixedPairs
from geocyclegan.training.validate import MOST_PAIRS


class Correlation:
    """Pearson's correlation of each band, over all valid pixels that it was given."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

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
        sums = [block_sums(term * weight) for term in terms]
        self._sums.append(torch.stack(sums).permute(1, 3, 0, 2))

    @property
    def sums(self) -> Tensor:
        """Sums over blocks of n, x, y, x², y² and xy: (images, blocks, 6, bands)."""
        return torch.cat(self._sums)

    def bands(self) -> list[float]:
        """Return the correlation of each band; 0 where one side is constant, which says nothing."""
        return _correlations(self.sums.sum((0, 1))).tolist() if self._sums else []

    def mean(self) -> float:
        """Return the mean over the bands."""
        bands = self.bands()
        return sum(bands) / max(len(bands), 1)

    def without(self, weights: Tensor | None = None) -> Tensor:
        """Return the mean over the bands with each part left out, see `evidence.leave_out`."""
        sums = self.sums
        weights = sums[:, :, 0, 0] if weights is None else weights
        return _correlations(leave_out(sums, weights)).mean(-1)


def _correlations(sums: Tensor) -> Tensor:
    """Turn sums (..., 6, bands) into correlations (..., bands)."""
    n, x, y, xx, yy, xy = sums.unbind(-2)
    n = n.clamp_min(1.0)
    spread = (xx - x * x / n).clamp_min(0.0) * (yy - y * y / n).clamp_min(0.0)
    # What is left of the rounding of a constant is no spread.
    known = spread > (1e-9 * n) ** 2
    values = torch.where(known, (xy - x * y / n) / spread.clamp_min(1e-30).sqrt(), 0.0)
    return values.clamp(-1.0, 1.0)


def agreement(
    method: Method,
    pairs: FixedPairs,
    domains: tuple[Domain, Domain],
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
) -> Finding | None:
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
        where there are two or more. A sign of a flip is a correlation that is clearly below 0,
        worse than that of a constant, or clearly below that with the truth of other places.

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
            # The others of the batch are there for its statistics; their own turns come.
            translation = method.translate(images, valid, direction)[:1]
            truth, known = batch.side(target)
            true[direction].update(translation, truth[:1], _first(known))
            if other != index:
                truth, mask = elsewhere.side(target)
                swapped[direction].update(translation, truth[:1], _joint(valid, mask))
    columns: dict[str, float] = {}
    signs: list[str] = []
    for direction in directions:
        found = true[direction], swapped[direction] if len(chosen) > 1 else None
        columns |= _columns(direction, *found, domains)
        sign = _sign_of_a_flip(direction, *found)
        if sign is not None:
            signs.append(f"{sign}, on {len(chosen)} pair{'s' * (len(chosen) != 1)}")
    return Finding(columns, tuple(signs))


def _first(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:1]


def _joint(valid: Tensor | None, other: Tensor | None) -> Tensor | None:
    masks = [mask[:1].bool() for mask in (valid, other) if mask is not None]
    return torch.stack(masks).all(dim=0) if masks else None


def _columns(
    direction: Direction,
    true: Correlation,
    swapped: Correlation | None,
    domains: tuple[Domain, Domain],
) -> dict[str, float]:
    columns = {f"r_{direction}": true.mean()}
    if swapped is not None:
        columns[f"r_{direction}_swapped"] = swapped.mean()
    labels = domains["ab".index(ends(direction)[1])].labels
    if len(labels) > 1:
        columns |= {
            f"r_{direction}_{label}": value
            for label, value in zip(labels, true.bands(), strict=True)
        }
    return columns


def _sign_of_a_flip(
    direction: Direction, true: Correlation, swapped: Correlation | None
) -> str | None:
    """Say what is clearly wrong with the correlations of a direction, or None."""
    way, found, without = way_of(direction), true.mean(), true.without()
    if is_clearly_negative(found, jackknife_variance(without)):
        return f"translations {way} correlate negatively with the truth ({found:.2f})"
    if swapped is None:
        return None
    elsewhere = swapped.mean()
    # The same parts of a translation are left out on both sides.
    apart = without - swapped.without(true.sums[:, :, 0, 0])
    if is_clearly_negative(found - elsewhere, jackknife_variance(apart)):
        return (
            f"translations {way} correlate less with the truth ({found:.2f}) than with that of"
            f" other places ({elsewhere:.2f})"
        )
    return None
