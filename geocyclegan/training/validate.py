"""A look at chips that training does not see: the same few crops every time."""

from __future__ import annotations

import hashlib
from collections.abc import (
    Callable,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from geocyclegan.chips.reader import evenly
from geocyclegan.methods.base import Batch, Direction, Method, Side
from geocyclegan.models.norm import is_per_sample
from geocyclegan.threads import prefetched
from geocyclegan.training.augment import centred
from geocyclegan.training.data import stack
from geocyclegan.training.distances import Reference, draw_places, patches_at
from geocyclegan.training.features import Features
from geocyclegan.training.levels import LevelReader

MOST_PAIRS = 64
"""Validation takes so many crops at most, spread evenly over the chips."""

SIDES: tuple[Side, Side] = ("a", "b")

_PIXELS_AT_ONCE, _PIXELS_AT_ONCE_CPU = 8 * 256**2, 256**2
"""Pixels of one domain that go through the networks together. Without gradients, what eight crops
of 256 px take is less than what a step keeps of one."""

_KEPT_BYTES = 64 * 2**20
_THREADS = 4


class FixedBatches(Protocol):
    """Batches by number, the same every time."""

    def __len__(self) -> int: ...

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of batches, evenly spread."""
        ...

    def load(self, index: int) -> Batch:
        """Read a batch, on the CPU; shapes are those of `Batch`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        ...


@dataclass(frozen=True)
class FixedCrops:
    """The middle of each chip; a chip of A and one of B make a batch, unpaired as in training.

    Attributes:
        a: chips of A.
        b: chips of B.
        crop: side of the crops in pixels.
        together: crops of one scene in a batch, for networks that pool their statistics.
    """

    a: LevelReader
    b: LevelReader
    crop: int
    together: int = 1

    def __len__(self) -> int:
        return max(len(self.a), len(self.b)) if len(self.a) and len(self.b) else 0

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of pairs, evenly spread."""
        return evenly(len(self), most)

    def load(self, index: int) -> Batch:
        """Read a chip of each domain, with others of its scene; the shorter domain starts over.

        One that is skipped gives way to the next one that can be read.

        Returns:
            Images (samples, bands, crop, crop) of both domains and their masks, see `Batch`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        a, valid_a = self._read(self.a, index % len(self.a))
        b, valid_b = self._read(self.b, index % len(self.b))
        return Batch(a, b, valid_a, valid_b)

    def _read(self, reader: LevelReader, index: int) -> tuple[Tensor, Tensor | None]:
        crops = []
        among = None if self.together == 1 else reader.others(index, same_scene=True)
        for companion in self._companions(reader, index):
            levels, valid = reader.read_from(companion, among)
            crops.append((levels, valid, centred(reader.chips.size, self.crop, valid)))
        return stack(crops, self.crop)

    def _companions(self, reader: LevelReader, index: int) -> list[int]:
        """The chip and the next ones of its scene, each once."""
        if self.together == 1:
            return [index]
        scene = reader.others(index, same_scene=True)
        first = scene.index(index)
        return [scene[(first + i) % len(scene)] for i in range(min(self.together, len(scene)))]


class RealSides:
    """What all validations of a run have in common: where to look, and the real images' part.

    It is found by the first of them; a run that goes on finds it anew, the same to the last bit.
    """

    def __init__(self) -> None:
        self._known: dict[str, Reference] = {}
        self._places: dict[Hashable, Tensor] = {}

    def places(self, valid: Tensor | None, shape: tuple[int, int, int], seed: int) -> Tensor:
        """Return the places of patches, see `distances.draw_places`."""
        mask = None if valid is None else hashlib.sha256(valid.numpy().tobytes()).digest()
        key = (seed, shape, mask)
        if key not in self._places:
            self._places[key] = draw_places(shape, valid, seed)
        return self._places[key]

    def reference(self, name: str, points: Tensor) -> Reference:
        """Return what to compare with points of real images, all of those of a name.

        It is kept up to 64 MiB, and taken again for the same points only.
        """
        known = self._known.get(name)
        if known is not None and torch.equal(known.points, points):
            return known
        found = Reference(points)
        self._known.pop(name, None)
        if found.nbytes <= _KEPT_BYTES:
            self._known[name] = found
        return found


def validate(
    method: Method,
    crops: FixedBatches,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    features: Features | None = None,
    real: RealSides | None = None,
) -> dict[str, float] | None:
    """Return the mean of the method's errors over the crops, and distances from real images.

    Crops go through networks that look at each image by itself several at a time; the errors are
    those of each crop nevertheless.

    Args:
        method: what is judged.
        crops: where to look.
        device: where the method is.
        stop: says when to give up.
        features: what to compare images by, beside patches.
        real: what earlier validations have found, and later ones will take up.

    Returns:
        The errors by the method's own names; `swd_<direction>` and `kernel_<direction>`, distances
        of translated crops from the real ones of their target domain, where there is something to
        compare; the same of features, as `features_swd_<direction>` and `kid_<direction>`. None if
        `stop` came true.

    Raises:
        ChipsError: a chip cannot be read.
    """
    sums: dict[str, Tensor] = {}
    seen = _Seen(method, features, RealSides() if real is None else real)
    chosen = crops.spread(MOST_PAIRS)
    apart = is_per_sample(method)
    pixels = _PIXELS_AT_ONCE_CPU if device.type == "cpu" else _PIXELS_AT_ONCE
    with closing(_loaded(crops, chosen, device)) as loaded:
        for numbers, batch in _together(loaded, pixels) if apart else loaded:
            if stop():
                return None
            there = batch.to(device)
            found = method.assess(there, apart=apart)
            for errors in found.errors:
                for name, error in errors.items():
                    sums[name] = error.double() + sums.get(name, 0.0)
            seen.add(numbers, batch, there, found.translations)
    return {name: float(total) / len(chosen) for name, total in sums.items()} | seen.distances()


Numbered = tuple[list[int], Batch]


def _loaded(
    crops: FixedBatches, chosen: Sequence[int], device: torch.device
) -> Generator[Numbered, None, None]:
    """Each of the crops that were chosen; read ahead while a device computes."""
    if device.type == "cpu":
        for index in chosen:
            yield [index], crops.load(index)
        return
    with closing(prefetched(crops.load, chosen, threads=_THREADS)) as loaded:
        for index, batch in loaded:
            yield [index], batch


def _together(loaded: Iterable[Numbered], pixels: int) -> Iterator[Numbered]:
    """Put single crops together that are of one kind: with nodata in A, in B, in both, or in none.

    Args:
        loaded: each with its number.
        pixels: how many there may be in a batch of several crops.
    """
    waiting: dict[Hashable, list[Numbered]] = {}
    for numbers, batch in loaded:
        if len(batch.a) != 1 or len(batch.b) != 1:
            yield numbers, batch
            continue
        masks = batch.valid_a is None, batch.valid_b is None, batch.valid_a is batch.valid_b
        kind = masks, batch.a.shape, batch.b.shape
        group = waiting.setdefault(kind, [])
        group.append((numbers, batch))
        if (len(group) + 1) * batch.a[0, 0].numel() > pixels:
            yield _joined(waiting.pop(kind))
    for group in waiting.values():
        yield _joined(group)


def _joined(group: Sequence[Numbered]) -> Numbered:
    batches = [batch for _, batch in group]
    a, b = torch.cat([batch.a for batch in batches]), torch.cat([batch.b for batch in batches])
    valid_a, valid_b = (
        None if masks[0] is None else torch.cat([mask for mask in masks if mask is not None])
        for masks in ([each.valid_a for each in batches], [each.valid_b for each in batches])
    )
    if batches[0].valid_a is batches[0].valid_b:
        valid_b = valid_a
    return [number for numbers, _ in group for number in numbers], Batch(a, b, valid_a, valid_b)


class _Seen:
    """Patches and features of real and translated crops."""

    def __init__(self, method: Method, features: Features | None, real: RealSides) -> None:
        self._network, self._real = features, real
        self._directions = [
            direction
            for direction, network in method.generators().items()
            if direction in ("a2b", "b2a") and isinstance(network, nn.Module)
        ]
        self._patches: dict[str, list[Tensor]] = {}
        self._features: dict[str, list[Tensor]] = {}

    def add(
        self,
        numbers: Sequence[int],
        batch: Batch,
        there: Batch,
        translations: Mapping[Direction, Tensor],
    ) -> None:
        """Take in crops and their translations.

        Args:
            numbers: of the crops; one, if `batch` is all of it.
            batch: on the CPU.
            there: the same on the device.
            translations: by direction.
        """
        for side in SIDES:
            images, valid = there.side(side)
            places = self._places(numbers, *batch.side(side))
            self._keep(side, images, valid, places, tuple(numbers))
            for direction in self._directions:
                if direction[0] == side:
                    self._keep(direction, translations[direction], valid, places)

    def _places(self, numbers: Sequence[int], images: Tensor, valid: Tensor | None) -> Tensor:
        """Where patches lie, of each crop by its own number."""
        _, _, height, width = images.shape
        each = len(images) // len(numbers)
        found = []
        for place, number in enumerate(numbers):
            first = place * each
            mask = None if valid is None else valid[first : first + each]
            places = self._real.places(mask, (each, height, width), number)
            found.append(places + places.new_tensor([first, 0, 0]))
        return torch.cat(found)

    def _keep(
        self,
        name: str,
        images: Tensor,
        valid: Tensor | None,
        places: Tensor,
        known: Hashable | None = None,
    ) -> None:
        self._patches.setdefault(name, []).append(patches_at(images, places))
        side = name[-1]
        if self._network is not None and side in self._network.domains:
            found = self._network.see(side, images, valid, known)
            self._features.setdefault(name, []).append(found)

    def distances(self) -> dict[str, float]:
        return self._compare(self._patches, "swd", "kernel") | self._compare(
            self._features, "features_swd", "kid"
        )

    def _compare(
        self, points: Mapping[str, list[Tensor]], wasserstein: str, kernel: str
    ) -> dict[str, float]:
        sets = {name: torch.cat(found) for name, found in points.items()}
        told: dict[str, float] = {}
        for direction in self._directions:
            if direction not in sets:
                continue
            side = direction[-1]
            fake, real = sets[direction], sets[side]
            if min(len(fake), len(real)) >= 2:
                reference = self._real.reference(f"{wasserstein} of {side}", real)
                told[f"{wasserstein}_{direction}"] = reference.sliced_wasserstein(fake)
                told[f"{kernel}_{direction}"] = reference.kernel_distance(fake)
        return told
