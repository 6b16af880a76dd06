"""Every generator and discriminator is trained, resumed and used, at any numbers of bands."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch

from geocyclegan.bundle import Direction, load_bundle
from geocyclegan.errors import BundleError, NotFoundError, OptionError
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.translate import translate_scene
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.loop import train
from geocyclegan.training.resolve import resolve

MakeConfig = Callable[..., TrainConfig]
MakeChips = Callable[..., Path]

needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None,
    reason='needs pip install "geocyclegan[smp]"',
)
MUNIT = {"method": "munit", "generator": None, "pool": None, "discriminator": "patch70"}
SMP = {"generator": "smp-unet", "encoder": "tu-test_resnet", "width": 16}
NETWORKS: list[Any] = [
    pytest.param({"antialias": True, "discriminator": "pixel"}, id="antialias"),
    pytest.param(
        {"upsample": "nearest", "discriminator": "multiscale", "d_layers": 1, "d_scales": 2},
        id="nearest",
    ),
    pytest.param(
        {"generator": "densenet", "discriminator": "patch", "d_layers": 2, "spectral_norm": True},
        id="densenet",
    ),
    pytest.param(SMP | {"d_width": 4, "spectral_norm": True}, id="smp", marks=needs_smp),
]


SOME = [(2, 13), (13, 2), *(pytest.param((n, n), marks=pytest.mark.slow) for n in (1, 3))]


@pytest.mark.parametrize("bands", SOME)
@pytest.mark.parametrize("options", NETWORKS)
def test_any_networks_at_any_bands(
    tiny: MakeConfig,
    make_chips: MakeChips,
    tmp_path: Path,
    bands: tuple[int, int],
    options: dict[str, Any],
) -> None:
    chips = make_chips(*bands, 64)
    crop = 64 if options.get("generator") == "smp-unet" else 32
    config = tiny(chips=chips, crop=crop, steps=2, panel_every=2, val_every=0, **options)
    train(config)
    result = train(config.updated({"steps": 3}), resume=True)
    assert all(value == value for value in result.losses.values())
    bundle = load_bundle(result.run)
    assert bundle.has_statistics
    ways: tuple[tuple[Direction, str, int], ...] = (("a2b", "a", bands[1]), ("b2a", "b", bands[0]))
    for direction, side, target in ways:
        scene, out = chips / f"train_{side}" / f"{side}1.tif", tmp_path / f"{direction}.tif"
        how = TranslateOptions(direction=direction, engine=EngineOptions(window=bundle.tile))
        translate_scene(str(scene), out, bundle, how)
        with rasterio.open(scene) as before, rasterio.open(out) as after:
            assert after.count == target
            assert after.shape == before.shape
            assert after.transform == before.transform
            assert (after.dataset_mask() == before.dataset_mask()).all()
            assert after.tags()["SYNTHETIC"] == "YES"


@needs_smp
@pytest.mark.parametrize(
    ("norm", "mode"), [("instance", "tile"), ("scene", "frozen"), ("scene", "sample")]
)
def test_a_network_without_a_plan_is_translated_in_a_mode_that_works(
    tiny: MakeConfig, make_chips: MakeChips, tmp_path: Path, norm: str, mode: str
) -> None:
    chips = make_chips(2, 3, 64)
    config = tiny(chips=chips, crop=64, steps=1, norm=norm, scene_crops=None, **SMP)
    bundle = load_bundle(train(config).run)
    scene = str(chips / "train_a" / "a0.tif")
    # "auto" finds one; whatever cannot be is refused with the reason.
    asked: Any = mode if mode == "sample" else "auto"
    how = TranslateOptions(norm_stats=asked, engine=EngineOptions(window=bundle.tile))
    out = translate_scene(scene, tmp_path / "p.tif", bundle, how)
    with rasterio.open(out) as product:
        assert product.tags()["GEOCYCLEGAN_NORM_STATS"] == mode
    for refused in ("exact", "dense"):
        how = TranslateOptions(norm_stats=refused, engine=EngineOptions(window=bundle.tile))
        with pytest.raises(OptionError, match=f"--norm-stats {refused}: the receptive field"):
            translate_scene(scene, tmp_path / "q.tif", bundle, how)
    assert not (tmp_path / "q.tif").exists()


@needs_smp
def test_weights_of_an_encoder_are_for_the_start_only(
    tiny: MakeConfig, make_chips: MakeChips, tmp_path: Path
) -> None:
    import timm

    file = tmp_path / "encoder.pth"
    model = timm.create_model("test_resnet", pretrained=False)
    torch.save(model.state_dict(), file)
    chips = make_chips(3, 3, 64)
    # A rate so low that the weights stay what they were.
    config = tiny(chips=chips, crop=64, steps=1, encoder_weights=file, lr=1e-12, **SMP)
    run = train(config).run
    state = load_bundle(run).generator("a2b").state_dict()
    key = "layer1.0.conv1.weight"
    expected = model.state_dict()[key]
    torch.testing.assert_close(state[f"network.encoder.model.{key}"], expected)
    file.unlink()
    stored = TrainConfig.load(run / "config.yaml")
    assert stored.encoder_weights == file
    assert train(stored.updated({"steps": 2}), resume=True).steps == 2
    with pytest.raises(NotFoundError, match="no such file"):
        train(config.updated({"name": "other"}))
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(BundleError, match="not the weights of this --encoder"):
        train(config.updated({"name": "other"}))
    assert not (config.out / "other").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generator": "unet256", "antialias": True}, "--antialias: --generator unet256 does not"),
        ({"generator": "smp-unet", "upsample": "nearest"}, "choose one of: resnet9, resnet6, dens"),
        ({"encoder": "resnet18"}, "--encoder resnet18: --generator resnet6 does not take it;"),
        ({"encoder_weights": Path("w.pth")}, "--encoder-weights w.pth: --generator resnet6"),
        ({"d_layers": 2}, "--d-layers 2: --discriminator patch70 does not take it"),
        ({"d_scales": 2, "discriminator": "patch"}, "choose one of: multiscale"),
        ({"discriminator": "pixel", "d_layers": 2}, "choose one of: patch, multiscale"),
        ({"discriminator": "patch71"}, "--discriminator patch71: discriminator 'patch71' is not"),
        ({"discriminator": "multiscale"}, r"at least 96 px \(--discriminator multiscale\)"),
        (MUNIT | {"memory_saving": True}, "--memory-saving: munit's generators must keep"),
        (
            {"memory_saving": True, "method": "dcgan", "generator": None, "pool": None, "crop": 16},
            "--memory-saving: it is for generators that translate",
        ),
        ({"discriminator": "patch", "d_layers": 5}, r"at least 96 px \(--discriminator patch\)"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tiny: MakeConfig, options: dict[str, Any], said: str
) -> None:
    config = tiny(**options)
    with pytest.raises(OptionError, match=said) as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not config.out.exists()


def test_small_crops_suit_a_small_discriminator(tiny: MakeConfig) -> None:
    """The least crop is that of the chosen networks, not of the default ones."""
    config = tiny(crop=8, discriminator="pixel")
    chips = Chips.open(config.chips)
    assert resolve(config, chips).crop == 8
    with pytest.raises(OptionError, match=r"at least 12 px \(--discriminator patch\)"):
        resolve(config.updated({"discriminator": "patch", "d_layers": 2}), chips)
    assert resolve(tiny(crop=12, discriminator="patch", d_layers=2), chips).crop == 12


def test_options_of_networks_survive_a_file(tmp_path: Path) -> None:
    config = TrainConfig(
        antialias=True,
        upsample="nearest",
        discriminator="multiscale",
        d_layers=2,
        d_scales=2,
        spectral_norm=True,
        encoder="resnet18",
        encoder_weights=Path("w.pth"),
    )
    config.save(tmp_path / "c.yaml")
    assert TrainConfig.load(tmp_path / "c.yaml") == config
    with pytest.raises(OptionError, match="--upsample cubic: choose one of: transpose"):
        TrainConfig(upsample="cubic")
    with pytest.raises(OptionError, match="--d-layers 0: expected 1 or more"):
        TrainConfig(d_layers=0)


def test_a_resume_equals_one_run(
    tiny: MakeConfig, tmp_path: Path, assert_same_run: Callable[[Path, Path], None]
) -> None:
    """The vectors of spectral norm are part of the state."""
    options: dict[str, Any] = {"discriminator": "multiscale", "d_layers": 1, "d_scales": 2}
    options |= {"spectral_norm": True, "decay": 0.0, "val_every": 2, "panel_every": 2}
    whole = train(tiny(steps=4, out=tmp_path / "whole", **options)).run
    parted = tiny(steps=2, out=tmp_path / "parted", **options)
    train(parted)
    assert_same_run(train(parted.updated({"steps": 4}), resume=True).run, whole)
