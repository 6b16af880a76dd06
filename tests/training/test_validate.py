"""Validation: crops go through networks together, and what is measured stays that of each crop."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from geocyclegan.catalogue import METHODS
from geocyclegan.methods import Batch, Method, NetworkSpec, build_method
from geocyclegan.models.norm import is_per_sample
from geocyclegan.models.padding import replace_padding
from geocyclegan.rounding import tf32
from geocyclegan.training import validate as module
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.distances import (
    PATCH,
    Reference,
    draw_places,
    kernel_distance,
    patches,
    sliced_wasserstein,
)
from geocyclegan.training.resolve import method_options
from geocyclegan.training.validate import RealSides, validate

SIDE = 64
CPU = torch.device("cpu")


@dataclass
class Crops:
    """Some with nodata in A, in B, in both, as one mask or two."""

    one_mask: bool = False
    count: int = 7
    loaded: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def spread(self, most: int) -> list[int]:
        return list(range(min(most, self.count)))

    def load(self, index: int) -> Batch:
        self.loaded.append(index)
        random = torch.Generator().manual_seed(index)
        a, b = (torch.rand(1, n, SIDE, SIDE, generator=random) * 2 - 1 for n in (2, 3))
        masks: list[Tensor | None] = [None, None]
        for place in (0, 1):
            if index % 3 > place:
                mask = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
                mask[..., : 4 * (index + 2)] = False
                masks[place] = mask
        if self.one_mask:
            masks[1] = masks[0]
        a = a if masks[0] is None else a * masks[0]
        b = b if masks[1] is None else b * masks[1]
        return Batch(a, b, masks[0], masks[1])


def make(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    own = METHODS[name].generators
    spec = NetworkSpec(
        bands_a=2,
        bands_b=3,
        shared_bands=((1, 0),),
        generator=own[0] if own else "resnet6",
        generator_args={"width": 4} | options,
        discriminator_args={"width": 4},
        crop=SIDE,
        classes=3,
    )
    method = build_method(name, spec, **method_options(TrainConfig(method=name).with_defaults()))
    method.joined = True
    return method


def joined(crops: Crops, *numbers: int) -> Batch:
    return module._joined([([number], crops.load(number)) for number in numbers])[1]


@pytest.mark.parametrize("numbers", [(0, 3), (1, 4), (2, 5)])
@pytest.mark.parametrize("name", METHODS)
def test_what_is_found_together_is_what_is_found_apart(name: str, numbers: tuple[int, ...]) -> None:
    method, crops = make(name), Crops(one_mask=METHODS[name].paired)
    batch = joined(crops, *numbers)
    assert (batch.valid_a is batch.valid_b) == (METHODS[name].paired or numbers == (0, 3))
    found = method.assess(batch, apart=True)
    assert method.training
    for number, errors in zip(numbers, found.errors, strict=True):
        alone = method.validate(crops.load(number))
        assert errors.keys() == alone.keys()
        for key, error in errors.items():
            assert float(error) == pytest.approx(float(alone[key]), rel=1e-4, abs=1e-6), key
            assert not error.requires_grad
    (whole,) = method.assess(batch, apart=False).errors
    assert whole.keys() == method.validate(batch).keys()
    assert found.translations.keys() == method.generators().keys()
    for direction, images in found.translations.items():
        home = batch.side("a" if direction[0] == "a" else "b")
        torch.testing.assert_close(images, method.translate(*home, direction))


def test_masks_that_differ_are_those_of_each_side() -> None:
    """As pairs without nodata in common would have them."""
    method, batch = make("pix2pix"), joined(Crops(), 2, 5)
    assert batch.valid_a is not batch.valid_b
    (direction,) = method.generators()
    made = method.assess(batch, apart=True).translations[direction]
    torch.testing.assert_close(made, method.translate(batch.a, batch.valid_a, direction))


@pytest.mark.parametrize("name", METHODS)
def test_the_batches_do_not_change_what_is_measured(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, crops = make(name), Crops(one_mask=METHODS[name].paired)
    found = []
    for pixels in (SIDE**2, 2 * SIDE**2, 100 * SIDE**2):
        monkeypatch.setattr(module, "_PIXELS_AT_ONCE_CPU", pixels)
        sizes: list[int] = []
        together = module._together

        def noted(*args: Any, sizes: list[int] = sizes, own: Any = together) -> Any:
            for numbers, batch in own(*args):
                sizes.append(len(batch.a))
                yield numbers, batch

        with monkeypatch.context() as patch:
            patch.setattr(module, "_together", noted)
            found.append(validate(method, crops, CPU))
        # A judge with batch norm sees one crop at a time.
        assert bool(sizes) == is_per_sample(method) == (name != "dcgan")
        if not sizes:
            continue
        assert sum(sizes) == 7
        assert max(sizes) <= pixels // SIDE**2
        assert (max(sizes) == 1) == (pixels == SIDE**2)
    first, *others = found
    assert first
    for other in others:
        assert other is not None
        assert other.keys() == first.keys()
        for key, value in first.items():
            assert other[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


def test_crops_that_share_their_statistics_stay_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE_CPU", 100 * SIDE**2)
    method = make("cyclegan", norm="scene")
    expected = [method.validate(Crops().load(number)) for number in range(7)]
    found = validate(method, Crops(), CPU)
    assert found is not None
    for key in expected[0]:
        mean = sum(float(errors[key]) for errors in expected) / 7
        assert found[key] == pytest.approx(mean, rel=1e-6)


def test_the_next_validation_takes_up_what_is_known_to_the_last_bit() -> None:
    method, crops, real = make("cyclegan"), Crops(), RealSides()
    first = validate(method, crops, CPU, real=real)
    known = dict(real._known)
    assert set(known) == {"swd of a", "swd of b"}
    assert validate(method, crops, CPU, real=real) == first
    assert all(real._known[name] is each for name, each in known.items())
    # As in a process that goes on with the run.
    assert validate(method, crops, CPU) == first


def test_other_real_images_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chip that can no longer be read gives way to another."""
    real, points = RealSides(), torch.rand(9, 4)
    kept = real.reference("x", points)
    assert real.reference("x", points.clone()) is kept
    other = real.reference("x", points + 1)
    assert torch.equal(other.points, points + 1)
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    mask[..., 12:] = False
    shape = (1, 20, 20)
    places = [real.places(each, shape, 3) for each in (None, mask, mask.clone())]
    assert places[1] is places[2]
    assert int(places[1][:, 2].max()) == 12 - PATCH < int(places[0][:, 2].max())
    monkeypatch.setattr(module, "_KEPT_BYTES", 100)
    assert real.reference("x", points) is not real.reference("x", points)


def test_places_are_those_that_a_seed_has_always_meant() -> None:
    random = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 1, 30, 24, generator=random) < 0.995
    mask[1] = False
    images = torch.rand(3, 2, 30, 24, generator=random)
    for valid in (None, mask):
        random, found = torch.Generator().manual_seed(5), []
        for i in range(3):
            corners = [
                (row, column)
                for row in range(30 - PATCH + 1)
                for column in range(24 - PATCH + 1)
                if valid is None or valid[i, 0, row : row + PATCH, column : column + PATCH].all()
            ]
            if corners:
                drawn = torch.randperm(len(corners), generator=random)[:64].tolist()
                found += [(i, *corners[place]) for place in drawn]
        places = draw_places((3, 30, 24), valid, 5)
        assert places.tolist() == [list(each) for each in found]
        expected = [images[i, :, r : r + PATCH, c : c + PATCH].flatten() for i, r, c in found]
        assert torch.equal(patches(images, valid, 5), torch.stack(expected))


@pytest.mark.parametrize("count", [2, 255, 256, 257, 700])
def test_a_reference_of_any_size(count: int) -> None:
    """In rows, as against all at once."""
    random = torch.Generator().manual_seed(count)
    x, y = torch.rand(count, 6, generator=random), torch.rand(300, 6, generator=random)
    both = [each.double() for each in (x, y)]
    kernels = [[(a @ b.T / 6 + 1) ** 3 for b in both] for a in both]
    within = [
        float((k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)))
        for k in (kernels[0][0], kernels[1][1])
    ]
    expected = sum(within) - 2 * float(kernels[0][1].mean())
    reference = Reference(y)
    for _ in range(2):
        assert reference.kernel_distance(x) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_signal_ends_it_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE_CPU", SIDE**2)
    crops, asked = Crops(), [0]

    def stop() -> bool:
        asked[0] += 1
        return asked[0] > 2

    assert validate(make("cyclegan"), crops, CPU, stop) is None
    assert len(crops.loaded) < 7


def test_crops_that_are_read_ahead_come_in_order() -> None:
    """As for a GPU; that end comes before all are read, too."""
    crops, chosen = Crops(count=40), [3, 1, *range(10, 40)]
    with closing(module._loaded(crops, chosen, torch.device("cuda"))) as loaded:
        for number in chosen:
            numbers, batch = next(loaded)
            assert numbers == [number]
            assert torch.equal(batch.a, Crops().load(number).a)
        assert next(loaded, None) is None
    crops.loaded.clear()
    with closing(module._loaded(crops, chosen, torch.device("cuda"))) as loaded:
        next(loaded)
    assert len(crops.loaded) < 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", METHODS)
def test_on_cuda_it_measures_what_a_cpu_does(name: str) -> None:
    """Distances are not rounded to TF32, even where networks are; and the same bits come again."""
    method, crops = make(name), Crops(one_mask=METHODS[name].paired)
    x, y = (torch.rand(400, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    with tf32(convolutions=True, matrices=True):
        for distance in (sliced_wasserstein, kernel_distance):
            found = distance(x.cuda(), y.cuda())
            assert found == pytest.approx(distance(x, y), rel=1e-9, abs=1e-12)
    expected = validate(method, crops, CPU)
    assert expected
    cuda = torch.device("cuda")
    replace_padding([method.cuda()], repeatable=True)
    real = RealSides()
    with tf32(convolutions=False):
        torch.use_deterministic_algorithms(True)
        try:
            first, again = (validate(method, crops, cuda, real=real) for _ in range(2))
        finally:
            torch.use_deterministic_algorithms(False)
    assert first is not None
    assert first == again
    for key, value in expected.items():
        assert first[key] == pytest.approx(value, rel=1e-2, abs=1e-3), key
