"""Every method with every generator at any band counts: train, resume, infer; and it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine

from geocyclegan.bundle import load_bundle
from geocyclegan.catalogue import METHODS
from geocyclegan.errors import ChipsError, OptionError
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train

BANDS = [(1, 1), (3, 3), (2, 13), (13, 2)]
# The smallest crop that each generator takes.
GENERATORS = {"resnet9": 32, "resnet6": 32, "densenet": 32, "unet128": 128, "unet256": 256}
TRANSLATING = [name for name, info in METHODS.items() if info.directions]
SIDE = 72

SameRun = Callable[[Path, Path], None]


def write(path: Path, pixels: npt.NDArray[Any], row: int = 0, prefix: str = "band") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype.name,
        nodata=0,
        crs="EPSG:32630",
        transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6 - 10.0 * row),
    ) as dataset:
        dataset.write(pixels)
        dataset.descriptions = [f"{prefix}{i}" for i in range(pixels.shape[0])]


def write_set(root: Path, bands: tuple[int, int], size: int) -> Path:
    """Write chips of both domains, a pair for each place, one pair with nodata."""
    random = np.random.default_rng(3)
    for domain, count in zip("ab", bands, strict=True):
        for split, chips in (("train", 3), ("val", 1)):
            for i in range(chips):
                rough = random.uniform(1, 4000, (count, size // 4, size // 4))
                pixels = rough.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint16)
                if i == 1:
                    pixels[:, :, : size // 3] = 0
                row = size * (i + (0 if split == "train" else 9))
                write(root / f"{split}_{domain}" / f"{i}.tif", pixels, row, domain)
                if (domain, split) == ("a", "train"):
                    # Classes 10 and 30; nodata where the chip has some.
                    classes = np.where(pixels[:1] > 2000, 30, 10) * (pixels[:1] > 0)
                    write(root / "labels_a" / f"{i}.tif", classes.astype(np.uint8), row, "class")
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, int], int], Path]:
    made: dict[tuple[tuple[int, int], int], Path] = {}

    def make(bands: tuple[int, int], size: int) -> Path:
        if (bands, size) not in made:
            root = tmp_path_factory.mktemp("data") / "chips"
            made[bands, size] = write_set(root, bands, size)
        return made[bands, size]

    return make


def cases() -> Iterator[Any]:
    """All of them; without --slow each method at most band counts."""
    for method in TRANSLATING:
        fixed = method_generators(method)
        for generator, crop in (fixed or GENERATORS).items():
            for bands in BANDS:
                quick = (generator == "resnet6" or bool(fixed)) and bands != (1, 1)
                marks = () if quick else (pytest.mark.slow,)
                name = f"{method}-{generator}-{bands[0]}to{bands[1]}"
                yield pytest.param(method, generator, crop, bands, id=name, marks=marks)


def method_generators(method: str) -> dict[str, int]:
    """The generators of a method that has its own, with their crop."""
    own = METHODS[method].generators
    return dict.fromkeys(own, 32)


@pytest.mark.parametrize(("method", "generator", "crop", "bands"), list(cases()))
def test_train_save_resume_infer(
    sets: Callable[[tuple[int, int], int], Path],
    tmp_path: Path,
    assert_same_run: SameRun,
    method: str,
    generator: str,
    crop: int,
    bands: tuple[int, int],
) -> None:
    chips = sets(bands, max(crop, 48))
    config = TrainConfig(
        chips=chips,
        out=tmp_path / "runs",
        name="run",
        method=method,
        generator=generator,
        discriminator="patch70",
        width=2,
        d_width=2,
        crop=crop,
        steps=3,
        device="cpu",
        save_every=2,
        panel_every=3,
        val_every=3,
        log_every=1,
    )
    whole = train(config.updated({"name": "whole"}))
    # A run that goes on from a checkpoint in its middle is one that was never stopped.
    run = train(config).run
    (run / "checkpoints" / "step_0000003.pt").unlink()
    assert_same_run(train(config, resume=True).run, whole.run)
    assert all(np.isfinite(value) for value in whole.losses.values())

    bundle = load_bundle(whole.run)
    assert bundle.method == method
    assert tuple(bundle.generators)
    for direction in bundle.generators:
        source, target = (bands["ab".index(side)] for side in (direction[0], direction[-1]))
        random = np.random.default_rng(1)
        pixels = random.integers(1, 4000, (source, SIDE, SIDE)).astype(np.uint16)
        pixels[:, :9, 5:20] = 0
        scene, product = tmp_path / "scene.tif", tmp_path / f"{direction}.tif"
        write(scene, pixels, prefix=direction[0])
        options = TranslateOptions(
            direction=direction, engine=EngineOptions(tile=64, window=bundle.tile), overwrite=True
        )
        translate_scene(str(scene), product, bundle, options)
        check_product(scene, product, target, direction)


def check_product(scene: Path, product: Path, bands: int, direction: str) -> None:
    with rasterio.open(scene) as one, rasterio.open(product) as two:
        assert (two.transform, two.crs, two.shape) == (one.transform, one.crs, one.shape)
        assert (two.count, two.dtypes[0], two.nodata) == (bands, "uint16", 0)
        assert two.descriptions == tuple(f"{direction[-1]}{i}" for i in range(bands))
        assert two.tags()["SYNTHETIC"] == "YES"
        assert two.tags()["GEOCYCLEGAN_DIRECTION"] == direction
        valid = two.dataset_mask() > 0
        assert np.array_equal(valid, one.dataset_mask() > 0)
        # Nothing wrapped or clipped to a constant, and no nodata where the scene has data.
        assert (two.read()[:, valid] > 0).all()


def test_pairs_are_needed_where_a_method_needs_them(tmp_path: Path) -> None:
    for domain, row in (("a", 0), ("b", 5000)):
        pixels = np.random.default_rng(0).integers(1, 99, (1, 32, 32)).astype(np.uint16)
        write(tmp_path / "chips" / f"train_{domain}" / f"{domain}.tif", pixels, row)
    config = TrainConfig(
        chips=tmp_path / "chips", out=tmp_path / "runs", method="pix2pix", generator="resnet6"
    )
    with pytest.raises(ChipsError, match="geocyclegan chip A --pair B") as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not config.out.exists()


def textures(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Bright fields of several sizes on a dark ground, (height, width) from 0 to 1."""
    field = np.full((size, size), 0.1)
    for _ in range(size // 3):
        row, col = random.integers(0, size, 2)
        height, width = random.integers(3, size // 3, 2)
        field[row : row + height, col : col + width] = random.choice([0.25, 0.6, 0.95])
    return field + random.uniform(-0.03, 0.03, field.shape)


def known_mapping(a: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Three bands of B from one of A: as it is, its square, and its square root."""
    return np.stack([a, a * a, np.sqrt(np.clip(a, 0.0, None))])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of domains with a known mapping; the chips of A and B are of the same places."""
    root = tmp_path_factory.mktemp("known") / "chips"
    random = np.random.default_rng(11)
    for split, count in (("train", 24), ("val", 4)):
        for i in range(count):
            a = textures(random, 40)
            row = 40 * i + (0 if split == "train" else 100_000)
            for domain, image in (("a", a[None]), ("b", known_mapping(a))):
                scaled = np.rint(100 + image * 4000).astype(np.uint16)
                # Band 0 means the same in both domains, as a shared band would.
                write(root / f"{split}_{domain}" / f"{i:02d}.tif", scaled, row, "band")
            if split == "train":
                classes = 1 + np.digitize(a, [0.18, 0.42, 0.78])
                write(root / "labels_a" / f"{i:02d}.tif", classes[None].astype(np.uint8), row)
    return root


# Steps, and the error on unseen pairs that is allowed, as a share of an untrained model's.
LEARNING: dict[str, tuple[int, float, dict[str, Any]]] = {
    "cyclegan": (300, 0.5, {"generator": "resnet6"}),
    "pix2pix": (150, 0.3, {"generator": "resnet6"}),
    "cut": (300, 0.6, {"generator": "resnet6", "batch": 4, "lr": 5e-4}),
    "fastcut": (300, 0.6, {"generator": "resnet6", "batch": 4}),
    "munit": (300, 0.6, {}),
    "semantic": (300, 0.5, {"generator": "resnet6"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNING)
def test_it_learns(known: Path, tmp_path: Path, method: str) -> None:
    steps, share, options = LEARNING[method]
    config = TrainConfig(
        chips=known,
        out=tmp_path / "runs",
        method=method,
        width=8,
        crop=32,
        device="cpu",
        save_every=10_000,
        panel_every=0,
        val_every=0,
        discriminator="patch70",
        **({"lr": 1e-3} | options),
    )
    untrained = error_of(train(config.updated({"steps": 1, "name": "one"})).run, known)
    trained = error_of(train(config.updated({"steps": steps, "name": "all"})).run, known)
    assert trained < share * untrained, (trained, untrained)


def error_of(run: Path, chips: Path) -> float:
    """Mean absolute error of levels, A to B, on the validation pairs."""
    bundle = load_bundle(run)
    generator = bundle.generator("a2b")
    errors = []
    for path in sorted((chips / "val_a").iterdir()):
        with rasterio.open(path) as a, rasterio.open(chips / "val_b" / path.name) as b:
            valid = np.ones(a.shape, np.bool_)
            levels = bundle.domains["a"].to_levels(a.read(), valid)
            truth = bundle.domains["b"].to_levels(b.read(), valid)
        with torch.inference_mode():
            made = generator(torch.from_numpy(levels)[None])[0].numpy()
        errors.append(np.abs(made - truth).mean())
    return float(np.mean(errors))


def test_a_generator_that_cannot_be_looked_into_is_refused(
    sets: Callable[[tuple[int, int], int], Path], tmp_path: Path
) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    config = TrainConfig(
        chips=sets((1, 1), 64),
        out=tmp_path / "runs",
        method="cut",
        generator="smp-unet",
        encoder="resnet18",
        discriminator="patch70",
        width=8,
        steps=1,
        device="cpu",
    )
    with pytest.raises(OptionError, match="--generator smp-unet with --method cut: its layers"):
        train(config)
    assert not config.out.exists()
