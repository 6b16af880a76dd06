"""Labels stay where they are: what the segmenters are asked, and which may change."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import save_file
from torch import Tensor, nn

from geocyclegan.chips.labels import UNKNOWN, LabelSet
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import BundleError, ChipsError, NotFoundError, OptionError
from geocyclegan.methods import Batch, NetworkSpec, build_method
from geocyclegan.methods.semantic import Semantic
from geocyclegan.models.segmenter import SmallSegmenter, load_segmenter
from geocyclegan.training.data import Batches
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.sampler import Sampler
from geocyclegan.training.warp import Geometry

SPEC = NetworkSpec(
    bands_a=2,
    bands_b=2,
    generator_args={"width": 2, "blocks": 1},
    discriminator_args={"width": 2, "layers": 1},
    classes=3,
)


def make(spec: NetworkSpec = SPEC, **options: object) -> Semantic:
    torch.manual_seed(0)
    method = build_method("semantic", spec, **options)
    assert isinstance(method, Semantic)
    return method


def batch_of(bands_b: int = 2, labels: bool = True) -> Batch:
    random = torch.Generator().manual_seed(0)
    a = torch.rand(2, 2, 16, 16, generator=random) * 2 - 1
    b = torch.rand(2, bands_b, 16, 16, generator=random) * 2 - 1
    classes = (a[:, 0] > -0.3).long() + (a[:, 0] > 0.3).long()
    return Batch(a, b, labels_a=classes if labels else None)


class Threshold(nn.Module):
    """Classes by the first band, without weights: sure of itself, and right on A."""

    def forward(self, x: Tensor) -> Tensor:
        level = x[:, 0]
        return torch.stack([-level - 0.3, 0.3 - level.abs(), level - 0.3], dim=1) * 20


class Same(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 2
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return x * self.sign


def test_a_flipped_meaning_costs_and_a_kept_one_does_not() -> None:
    found = []
    for sign in (1.0, -1.0):
        method = make()
        method.generator_ab, method.generator_ba = Same(sign), Same(sign)
        method.segmenter_a, method.learns = Threshold(), False
        batch = batch_of()
        losses = method._semantic_losses(
            batch, method.generator_ba(batch.b), method.generator_ab(batch.a)
        )
        found.append({name: loss.item() for name, loss in losses.items()})
    kept, flipped = found
    for name in ("semantic_a", "semantic_b"):
        assert flipped[name] > 5 * kept[name]


def test_gradients_reach_the_generators_and_not_the_segmenters() -> None:
    method, batch = make(), batch_of()
    for _ in range(30):
        method.step(batch, {**method.optimizers()}, torch.autograd.backward)
    for network in (method.generator_ab, method.generator_ba, method.segmenter_a):
        network.zero_grad(set_to_none=True)
    fake_a, fake_b = method.generator_ba(batch.b), method.generator_ab(batch.a)
    losses = method._semantic_losses(batch, fake_a, fake_b)
    torch.autograd.backward(losses["semantic_a"] + losses["semantic_b"])
    assert any(w.grad is not None and w.grad.any() for w in method.generator_ab.parameters())
    assert all(w.grad is None for w in method.segmenter_a.parameters())
    assert all(w.requires_grad for w in method.segmenter_a.parameters())


def test_a_network_that_guesses_is_not_believed() -> None:
    method = make()
    labels = batch_of().labels_a
    assert labels is not None
    guess = torch.zeros(2, 3, 16, 16)
    assert float(method._trust(guess, labels, True)) < 1e-5
    sure = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2) * 20.0
    assert float(method._trust(sure, labels, True)) > 0.99
    assert float(method._trust(guess, labels, False)) == 1.0


def test_bands_that_differ_have_a_segmenter_of_their_own() -> None:
    assert make().segmenter_b is None
    method = make(dataclasses.replace(SPEC, bands_b=5))
    losses = method.step(batch_of(5), method.optimizers(), torch.autograd.backward)
    assert {"segment_a", "segment_b", "segmenters", "semantic_a", "semantic_b"} <= losses.keys()


def test_without_labels_or_a_network_there_is_nothing_to_keep() -> None:
    with pytest.raises(OptionError, match=r"--labels CLASSES\), or give --segmenter FILE"):
        make(dataclasses.replace(SPEC, classes=0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(1)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=2, classes=3)
    path = tmp_path / "segmenter.safetensors"
    save_file(network.state_dict(), path, metadata={"arch": "unet", "encoder": "resnet18"})
    return path


def test_a_network_from_a_file_stays_as_it_is(file: Path) -> None:
    method = make(dataclasses.replace(SPEC, classes=0), segmenter=file)
    assert "segmenters" not in method.optimizers()
    before = copy.deepcopy(method.segmenter_a.state_dict())
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 2, 32, 32, generator=random) for _ in "ab")
    batch = Batch(a, b)
    method.train()
    losses = method.step(batch, method.optimizers(), torch.autograd.backward)
    assert losses["semantic_a"] > 0
    assert not any(weight.requires_grad for weight in method.segmenter_a.parameters())
    for name, value in method.segmenter_a.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_files_that_are_no_segmenter(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_segmenter(tmp_path / "none.safetensors", 2)
    with pytest.raises(BundleError, match="for 5 bands"):
        load_segmenter(file, 5)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(BundleError, match="no network of segmentation-models-pytorch"):
        load_segmenter(other, 2)
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"x": torch.zeros(1)}, pickled)
    with pytest.raises(BundleError, match="cannot be read as safetensors"):
        load_segmenter(pickled, 2)


def test_the_small_segmenter_takes_any_size() -> None:
    assert SmallSegmenter(2, 4)(torch.rand(1, 2, 30, 17)).shape == (1, 4, 30, 17)


def write(path: Path, pixels: np.ndarray, nodata: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=pixels.shape[0],
        width=pixels.shape[1],
        dtype=pixels.dtype.name,
        nodata=nodata,
        crs="EPSG:32630",
        transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6),
    ) as dataset:
        dataset.write(pixels, 1)


def test_labels_are_laid_down_as_their_chips_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(3):
        codes = random.choice([10, 20, 70], (24, 24)).astype(np.uint8)
        codes[:4, :4] = 0
        write(tmp_path / "train_a" / f"{i}.tif", codes.astype(np.float32))
        write(tmp_path / "train_b" / f"{i}.tif", codes.astype(np.float32))
        if i < 2:
            write(tmp_path / "labels_a" / f"{i}.tif", codes, nodata=0)
    a, b = ChipSet.open(tmp_path, "a"), ChipSet.open(tmp_path, "b")
    labels = LabelSet.open(tmp_path, a)
    assert labels is not None
    assert labels.codes == (10, 20, 70)
    readers = LevelReader(a, Budget()), LevelReader(b, Budget())
    batches = Batches(*readers, Sampler(3, 3, 2, 0), crop=16, flip=True, labels=labels)
    seen: set[int] = set()
    for step in range(6):
        batch = batches.load(step)
        assert batch.labels_a is not None
        for levels, classes in zip(batch.a[:, 0], batch.labels_a, strict=True):
            for number in classes.unique().tolist():
                seen.add(number)
                if number != UNKNOWN:
                    # One code, one level: the label goes with its pixel through crop and turns.
                    assert len(levels[classes == number].unique()) == 1
    assert seen == {UNKNOWN, 0, 1, 2}
    turned = Batches(
        *readers, Sampler(3, 3, 2, 0), crop=16, flip=True, labels=labels, geometry=Geometry(1.5, 45)
    ).load(0)
    assert turned.labels_a is not None
    assert turned.labels_a.shape == (2, 16, 16)
    assert set(turned.labels_a.flatten().tolist()) <= {UNKNOWN, 0, 1, 2}
    write(tmp_path / "labels_a" / "0.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(ChipsError, match="8 x 8 px, its chip has 24"):
        LabelSet.open(tmp_path, a)
    write(tmp_path / "labels_a" / "0.tif", random.random((24, 24)).astype(np.float32))
    with pytest.raises(ChipsError, match="labels are classes"):
        LabelSet.open(tmp_path, a)
