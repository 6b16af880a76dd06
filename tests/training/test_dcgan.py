"""Chips from noise: training on one domain, files in its units, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.document import write_document
from geocyclegan.errors import BundleError, OptionError, OutputError
from geocyclegan.inference.sample import sample_scenes
from geocyclegan.models import build_generator
from geocyclegan.models.dcgan import SceneJudge, SceneMaker
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train

CPU = torch.device("cpu")
BANDS = tuple(
    BandInfo(BandScaling("linear", limits, (-1.0, 1.0)), name)
    for name, limits in (("red", (100.0, 900.0)), ("nir", (2000.0, 4000.0)))
)
DOMAIN = Domain(BANDS, "uint16", 0.0, 10.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    made = SceneMaker(2, size=32, width=4, noise=7)
    with torch.no_grad():
        # As training does: the batch norms' running statistics, and weights that show something.
        for _ in range(50):
            made(torch.randn(32, 7))
        list(made.parameters())[-2].mul_(20)
    return load_bundle(
        save_bundle(
            tmp_path / "model",
            method="dcgan",
            generators={},
            domains={"a": DOMAIN, "b": DOMAIN},
            tile=32,
            training={},
            makers={"a": made},
        )
    )


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes(size: int) -> None:
    images = SceneMaker(3, size=size, width=2)(torch.randn(2, 100))
    assert images.shape == (2, 3, size, size)
    assert SceneJudge(3, size=size, width=2)(images).shape == (2, 1, 1, 1)
    with pytest.raises(OptionError, match="power of two of 16 or more"):
        SceneMaker(3, size=size + 8)


def test_files_have_the_units_of_the_domain(bundle: Bundle, tmp_path: Path) -> None:
    paths = sample_scenes(bundle, tmp_path / "made", count=3, seed=5, device=CPU)
    assert [path.name for path in paths] == [f"sample_5_0000{i}.tif" for i in range(3)]
    for number, path in enumerate(paths):
        with rasterio.open(path) as dataset:
            assert (dataset.count, dataset.shape, dataset.dtypes[0]) == (2, (32, 32), "uint16")
            assert dataset.descriptions == ("red", "nir")
            assert dataset.crs is None
            tags = dataset.tags()
            pixels = dataset.read()
        assert tags["SYNTHETIC"] == "YES"
        assert tags["GEOCYCLEGAN_MODEL_SHA256"] == bundle.sha256
        assert (tags["GEOCYCLEGAN_SEED"], tags["GEOCYCLEGAN_SAMPLE"]) == ("5", str(number))
        assert 100 <= pixels[0].min() <= pixels[0].max() <= 900
        assert 2000 <= pixels[1].min() <= pixels[1].max() <= 4000


def test_an_image_depends_on_seed_and_number_alone(bundle: Bundle, tmp_path: Path) -> None:
    def pixels(path: Path) -> np.ndarray:
        with rasterio.open(path) as dataset:
            return np.asarray(dataset.read())

    few = sample_scenes(bundle, tmp_path / "few", count=2, seed=1, device=CPU)
    many = sample_scenes(bundle, tmp_path / "many", count=20, seed=1, device=CPU)
    for one, two in zip(few, many, strict=False):
        assert np.abs(pixels(one).astype(int) - pixels(two)).max() <= 1
    assert not np.array_equal(pixels(many[0]), pixels(many[1]))
    other = sample_scenes(bundle, tmp_path / "few", count=1, seed=2, device=CPU)
    assert not np.array_equal(pixels(few[0]), pixels(other[0]))


def test_what_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "made"
    sample_scenes(bundle, out, count=2, seed=0, device=CPU)
    with pytest.raises(OutputError, match="it exists; give --overwrite"):
        sample_scenes(bundle, out, count=1, seed=0, device=CPU)
    sample_scenes(bundle, out, count=1, seed=0, device=CPU, overwrite=True)
    with pytest.raises(OptionError, match="a file, where a folder was expected"):
        sample_scenes(bundle, bundle.folder / "model.json", count=1, seed=0, device=CPU)
    with pytest.raises(OptionError, match="--n 0"):
        sample_scenes(bundle, out, count=0, seed=0, device=CPU)
    plain = save_bundle(
        tmp_path / "plain",
        method="cyclegan",
        generators={
            "a2b": ("resnet6", build_generator("resnet6", in_channels=2, out_channels=2, width=2))
        },
        domains={"a": DOMAIN, "b": DOMAIN},
        tile=32,
        training={},
    )
    with pytest.raises(BundleError, match="makes nothing from noise"):
        sample_scenes(load_bundle(plain), out, count=1, seed=1, device=CPU)


def test_damage_is_found(bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.folder / "model.json"
    document = json.loads(path.read_text())
    document["makers"]["a"]["width"] = 5
    write_document(bundle.folder, document)
    with pytest.raises(BundleError, match="the model cannot be loaded"):
        sample_scenes(load_bundle(bundle.folder), tmp_path / "x", count=1, seed=1, device=CPU)


@pytest.fixture
def one_domain(tmp_path: Path) -> Path:
    """Chips of A only: a bright disc somewhere on a dark ground; some pixels are nodata."""
    random = np.random.default_rng(0)
    rows, cols = np.mgrid[:40, :40]
    for split, count in (("train", 32), ("val", 4)):
        folder = tmp_path / "chips" / f"{split}_a"
        folder.mkdir(parents=True)
        for i in range(count):
            row, col = random.uniform(10, 30, 2)
            disc = (rows - row) ** 2 + (cols - col) ** 2 < 100
            image = np.where(disc, 0.8, 0.2) + random.uniform(-0.05, 0.05, disc.shape)
            if i % 8 == 3:
                image[:10] = np.nan
            np.save(folder / f"{i}.npy", image[None].astype(np.float32))
    return tmp_path / "chips"


def _config(chips: Path, **options: object) -> TrainConfig:
    return TrainConfig(
        chips=chips,
        out=chips.parent / "runs",
        method="dcgan",
        width=4,
        d_width=4,
        device="cpu",
        **options,  # type: ignore[arg-type]
    )


def test_train_save_resume_sample(
    one_domain: Path, tmp_path: Path, assert_same_run: Callable[[Path, Path], None]
) -> None:
    config = _config(
        one_domain, name="run", batch=4, steps=4, save_every=2, panel_every=4, val_every=4, ema=0.9
    )
    whole = train(config.updated({"name": "whole"}))
    assert load_bundle(whole.run).tile == 32
    state = torch.load(whole.run / "checkpoints" / "step_0000004.pt", weights_only=True)
    for name, weight in load_bundle(whole.run).maker("a").state_dict().items():
        assert torch.equal(weight, state["mean"][f"a.{name}"])
    live = state["networks"]["maker.layers.0.weight"]
    assert not torch.equal(live, state["mean"]["a.layers.0.weight"])
    run = train(config).run
    (run / "checkpoints" / "step_0000004.pt").unlink()
    assert_same_run(train(config, resume=True).run, whole.run)
    result = CliRunner().invoke(
        cli, ["sample", "--model", str(run), "--n", "2", "--out", str(tmp_path / "made")]
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "made").glob("*.tif"))) == 2
    result = CliRunner().invoke(cli, ["infer", "x.tif", "--model", str(run)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "geocyclegan sample --model" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 40}, "--crop 40: .* give --crop 32"),
        ({"crop": 64}, "give --crop 32"),
        ({"norm": "scene"}, "has batch norm"),
        ({"antialias": True}, "--antialias: --generator dcgan does not take it"),
        ({"spectral_norm": True}, "has discriminators of its own"),
        ({"generator": "resnet6"}, "has its own, dcgan"),
        ({"lambda_a": 1.0}, "does not take it"),
    ],
)
def test_options_that_make_no_sense(
    one_domain: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        train(_config(one_domain, steps=1, **options))
    assert not (one_domain.parent / "runs").exists()


@pytest.mark.slow
def test_it_learns(one_domain: Path) -> None:
    """Its levels come to be distributed as those of the chips: the mean distance of quantiles."""
    levels = np.linspace(0.02, 0.98, 49)
    chips = [np.load(path) for path in sorted((one_domain / "train_a").iterdir())]
    wanted = np.nanquantile(np.stack(chips), levels)

    def distance(steps: int) -> float:
        config = _config(one_domain, steps=steps, batch=16, name=f"s{steps}", crop=32, val_every=0)
        bundle = load_bundle(train(config.updated({"panel_every": 0, "lr": 5e-4})).run)
        out = one_domain.parent / f"made{steps}"
        made = []
        for path in sample_scenes(bundle, out, count=32, seed=0, device=CPU):
            with rasterio.open(path) as dataset:
                made.append(dataset.read())
        return float(np.abs(np.quantile(np.stack(made), levels) - wanted).mean())

    untrained, trained = distance(1), distance(300)
    assert trained < 0.4 * untrained, (trained, untrained)
