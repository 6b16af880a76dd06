"""Turning a batch where it arrives: the bits of crops that are turned while they are copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geocyclegan.chips.labels import LabelSet
from geocyclegan.chips.pairs import find_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.methods.base import Batch
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.training import feed, hints
from geocyclegan.training.augment import Augmentation, mirror_and_turn
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Batches, Chips
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.loop import train
from geocyclegan.training.pairs import HintedBatches, PairedBatches, PairSampler
from geocyclegan.training.radiometric import RadiometricOptions
from geocyclegan.training.sampler import Sampler
from geocyclegan.training.turning import Unturned, fill, origins, turn
from geocyclegan.training.warp import Geometry

MakeConfig = Callable[..., TrainConfig]

SIZE, COUNT = 40, 6
CPU = torch.device("cpu")
LINEAR = BandInfo(BandScaling("linear", (0.0, 2.0), (-1.0, 1.0)))
POWER = BandInfo(BandScaling("db", (-40.0, 10.0), (-1.0, 1.0)))
LOG = BandInfo(BandScaling("log1p", (0.0, 2.0), (-1.0, 1.0)))
JITTER = RadiometricOptions(jitter_db=2.0, jitter_gain=0.2, jitter_offset=0.1, band_dropout=0.2)

ways = st.tuples(st.booleans(), st.integers(0, 3))


@given(
    way=ways,
    bands=st.integers(0, 3),
    side=st.integers(1, 130),
    margin=st.integers(0, 9),
    kind=st.sampled_from([np.float32, np.bool_]),
)
@settings(max_examples=80, deadline=None)
def test_a_copied_view_is_all_there_and_nothing_else(
    way: tuple[bool, int], bands: int, side: int, margin: int, kind: Any
) -> None:
    chip = np.random.default_rng(side).integers(0, 2**24, (bands, side + margin, side + margin))
    view = mirror_and_turn(
        (chip % (2 if kind is np.bool_ else 2**24)).astype(kind)[..., :side, margin:], *way
    )
    around = np.full((bands + 2, side, side), 1, kind)
    fill(around[1:-1], view)
    assert np.array_equal(around[1:-1], view)
    assert around[0].all()
    assert around[-1].all()


@given(
    laid=st.lists(ways, min_size=1, max_size=9), bands=st.integers(1, 3), side=st.integers(1, 33)
)
@settings(max_examples=80, deadline=None)
def test_a_turned_batch_is_a_batch_of_turned_crops(
    laid: list[tuple[bool, int]], bands: int, side: int
) -> None:
    numbers = np.arange(len(laid) * bands * side * side, dtype=np.float32)
    images = numbers.reshape(len(laid), bands, side, side)
    lines = origins([Augmentation(0, 0, *way) for way in laid], side)
    pixels = lines[:, 0, :, None] + lines[:, 1, None, :]
    expected = np.stack(
        [mirror_and_turn(image, *way) for image, way in zip(images, laid, strict=True)]
    )
    turned = turn(torch.from_numpy(images), pixels)
    assert turned.is_contiguous()
    assert np.array_equal(turned.numpy(), expected)
    odd = turn(torch.from_numpy(images % 2 == 1), pixels)
    assert np.array_equal(odd.numpy(), expected % 2 == 1)


@dataclass(frozen=True)
class Data:
    """Chips of radar and of optical bands in pairs, some with nodata, and classes of A."""

    a: LevelReader
    b: LevelReader
    labels: LabelSet
    pairs: tuple[tuple[int, int], ...]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("turning")
    random = np.random.default_rng(3)
    for place in ("train_a", "train_b", "labels_a"):
        (root / place).mkdir()
    for i in range(COUNT):
        a = random.gamma(1.0, 0.3, (3, SIZE, SIZE)).astype(np.float32)
        b = random.uniform(0.1, 1.9, (2, SIZE, SIZE)).astype(np.float32)
        if i in (1, 4):
            a[:, 5:30, 7:] = np.nan
            b[:, :, 33:] = np.nan
        np.save(root / "train_a" / f"{i}.npy", a)
        np.save(root / "train_b" / f"{i}.npy", b)
        shape = {"count": 1, "height": SIZE, "width": SIZE, "dtype": "uint8"}
        with rasterio.open(
            root / "labels_a" / f"{i}.tif", "w", driver="GTiff", nodata=0, **shape
        ) as dataset:
            dataset.write(random.integers(0, 4, (1, SIZE, SIZE)).astype(np.uint8))
    a_set, b_set = ChipSet.open(root, "a"), ChipSet.open(root, "b")
    labels = LabelSet.open(root, a_set)
    assert labels is not None
    pairs = find_pairs(root, a_set, b_set)
    assert len(pairs) == COUNT
    a_set = replace(a_set, domain=Domain((POWER, LOG, LINEAR), "float32"))
    b_set = replace(b_set, domain=Domain((LINEAR, LINEAR), "float32"))
    budget = Budget()
    return Data(LevelReader(a_set, budget), LevelReader(b_set, budget), labels, tuple(pairs))


def both(make: Callable[..., Any], **options: Any) -> list[Any]:
    """The same batches, turned here and turned later."""
    return [make(**options, turn_later=later) for later in (False, True)]


def assert_same(one: Batch | None, two: Batch | None) -> None:
    """Compare batches to the last bit, with what hangs on them."""
    assert type(one) is type(two)
    if one is None or two is None:
        return
    for field in fields(Batch):
        x, y = getattr(one, field.name), getattr(two, field.name)
        if isinstance(x, Tensor):
            assert isinstance(y, Tensor), field.name
            assert (x.dtype, x.shape, x.stride()) == (y.dtype, y.shape, y.stride()), field.name
            # As bits: a zero has two.
            bits = [z.view(torch.int32) if z.is_floating_point() else z for z in (x, y)]
            assert torch.equal(*bits), field.name
        else:
            assert_same(x, y)
    assert (one.b is one.a, one.valid_b is one.valid_a) == (
        two.b is two.a,
        two.valid_b is two.valid_a,
    )


drawn = given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 5),
    crop=st.sampled_from([7, 16, 31, SIZE]),
    geometry=st.sampled_from([Geometry(), Geometry(1.5, 180.0)]),
    radiometric=st.sampled_from([None, JITTER]),
)


@drawn
@settings(max_examples=40, deadline=None)
def test_unpaired(data: Data, seed: int, batch: int, crop: int, **options: Any) -> None:
    sampler = Sampler(COUNT, COUNT, batch, seed)
    for labels in (None, data.labels):
        options |= {"crop": crop, "flip": True, "labels": labels}
        here, later = (
            each.load(2)
            for each in both(lambda **more: Batches(data.a, data.b, sampler, **more), **options)
        )
        assert isinstance(later, Unturned)
        assert_same(here, later.to(CPU))


@drawn
@settings(max_examples=40, deadline=None)
def test_paired(data: Data, seed: int, batch: int, radiometric: Any, **options: Any) -> None:
    sampler = PairSampler(data.pairs, batch, seed)
    options |= {"flip": True, "radiometric": (radiometric, None)}
    here, later = (
        each.load(1)
        for each in both(lambda **more: PairedBatches(data.a, data.b, sampler, **more), **options)
    )
    assert isinstance(later, Unturned)
    assert_same(here, later.to(CPU))


def test_masks_are_there_and_are_not(data: Data) -> None:
    """What the properties above are about does happen."""
    sampler = Sampler(COUNT, COUNT, 2, 0)
    here, later = both(
        lambda **more: Batches(data.a, data.b, sampler, crop=16, flip=True, **more),
        labels=data.labels,
    )
    seen, masked = [], 0
    for step in range(12):
        batch = later.load(step)
        assert_same(here.load(step), batch.to(CPU))
        masked += batch.valid_a is not None
        seen.append(not torch.equal(batch.a, batch.to(CPU).a))
    assert any(seen)
    assert 0 < masked < 12


def test_one_domain(data: Data) -> None:
    sampler = Sampler(COUNT, COUNT, 3, 1)
    here, later = both(
        lambda **more: Batches(data.a, data.a, sampler, crop=16, flip=True, **more),
        radiometric=JITTER,
    )
    for step in range(4):
        assert_same(here.load(step), later.load(step).to(CPU))


def test_pairs_beside_a_batch(data: Data) -> None:
    def hinted(**more: Any) -> HintedBatches:
        given = {"crop": 16, "flip": True} | more
        return HintedBatches(
            Batches(data.a, data.b, Sampler(COUNT, COUNT, 2, 5), **given),
            PairedBatches(data.a, data.b, PairSampler(data.pairs, 2, 6), **given),
            2,
            PairedBatches(data.a, data.b, PairSampler(data.pairs, 2, 7), **given),
        )

    here, later = both(hinted)
    paired = 0
    for step in range(4):
        batch = later.load(step)
        assert isinstance(batch.weak, Unturned)
        paired += isinstance(batch.pairs, Unturned)
        assert_same(here.load(step), batch.to(CPU))
    assert paired == 2


def test_speckle_and_what_is_not_turned_at_all_are_plain_batches(data: Data) -> None:
    sampler = Sampler(COUNT, COUNT, 2, 0)
    speckle = RadiometricOptions(speckle=3.0)
    for options in ({"flip": True, "radiometric": speckle}, {"flip": False}):
        here, later = (
            each.load(0)
            for each in both(
                lambda **more: Batches(data.a, data.b, sampler, crop=16, **more), **options
            )
        )
        assert type(later) is Batch
        assert_same(here, later)
    pairs = PairSampler(data.pairs, 2, 0)
    looks = {"radiometric": (speckle, None)}
    later = PairedBatches(data.a, data.b, pairs, crop=16, flip=True, turn_later=True, **looks)  # type: ignore[arg-type]
    assert type(later.load(0)) is Batch


def test_a_run_is_the_same_wherever_its_batches_are_turned(
    tiny: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    options = {"batch": 2, "accumulate": 2}
    plain = train(tiny(**options, name="plain")).run
    moved: list[Unturned] = []
    to = Unturned.to

    def spied(self: Unturned, *args: Any, **kwargs: Any) -> Batch:
        moved.append(self)
        return to(self, *args, **kwargs)

    def turning_later(*args: Any, **kwargs: Any) -> Batches:
        return Batches(*args, **kwargs | {"turn_later": True})

    monkeypatch.setattr(Unturned, "to", spied)
    monkeypatch.setattr(feed, "Batches", turning_later)
    later = train(tiny(**options, name="later")).run
    assert len(moved) == 16
    assert_same_run(plain, later)


@pytest.mark.parametrize("cuda", [False, True])
def test_the_device_decides(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, data: Data, cuda: bool
) -> None:
    """Batches for CUDA, and the pairs beside them, are pinned and turned later; others are not."""
    asked: list[tuple[bool, bool]] = []

    def spy(kind: type) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            asked.append((kwargs["pin"], kwargs["turn_later"]))
            return kind(*args, **kwargs)

        return make

    monkeypatch.setattr(feed, "Batches", spy(Batches))
    monkeypatch.setattr(hints, "PairedBatches", spy(PairedBatches))
    folder = data.labels.paths[0].parent.parent  # type: ignore[union-attr]
    config = tiny(chips=folder, batch=1, crop=16)
    chips = Chips.open(folder).with_hints(folder, folder)
    made = feed.make_feed(config, chips, Budget(), cuda=cuda)
    hints.hinted(made.batches, config, chips, Budget(), cuda=cuda)
    assert asked == [(cuda, cuda)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_turns_as_a_cpu_does_and_waits_for_nothing(data: Data) -> None:
    device = torch.device("cuda")
    options = {"crop": 31, "flip": True, "labels": data.labels, "radiometric": JITTER}
    sampler = Sampler(COUNT, COUNT, 4, 9)
    here = Batches(data.a, data.b, sampler, **options)  # type: ignore[arg-type]
    later = Batches(data.a, data.b, sampler, pin=True, turn_later=True, **options)  # type: ignore[arg-type]
    later.load(0).to(device)
    for step in range(8):
        batch = later.load(step)
        assert isinstance(batch, Unturned)
        assert batch.labels_a is not None
        assert batch.origins_a.is_pinned()
        assert batch.labels_a.is_pinned()
        torch.cuda.set_sync_debug_mode("error")
        try:
            moved = batch.to(device, non_blocking=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert moved.a.device.type == "cuda"
        assert_same(here.load(step), moved.to(CPU))
