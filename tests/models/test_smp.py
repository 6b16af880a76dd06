"""Networks of segmentation-models-pytorch as generators: opaque, with norm layers of this package."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from geocyclegan.errors import BundleError, NotFoundError, OptionError
from geocyclegan.models import Generator, SceneNorm2d, SmpGenerator, build_generator
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.opaque_passes import opaque_statistics
from geocyclegan.models.passes import Patch, pooled_statistics

pytest.importorskip("segmentation_models_pytorch", reason='needs pip install "geocyclegan[smp]"')

# A ResNet of timm that is made for tests.
SMALL = "tu-test_resnet"
ARCHS = ("unet", "unetplusplus", "fpn", "segformer")


def network(arch: str = "unet", bands: tuple[int, int] = (2, 3), **args: Any) -> Generator:
    torch.manual_seed(0)
    options = {"width": 16, "encoder": SMALL} | args
    generator = build_generator(
        f"smp-{arch}", in_channels=bands[0], out_channels=bands[1], **options
    )
    return generator.eval()


@pytest.mark.parametrize("bands", [(1, 1), (3, 3), (2, 13), (13, 2)])
@pytest.mark.parametrize("arch", ARCHS)
def test_any_bands(arch: str, bands: tuple[int, int]) -> None:
    generator = network(arch, bands)
    valid = torch.rand(2, 1, 64, 96) > 0.2
    x = (torch.rand(2, bands[0], 64, 96) * 2 - 1) * valid
    for mask in (None, valid):
        out = generator(x, mask)
        assert out.shape == (2, bands[1], 64, 96)
        assert out.isfinite().all()
        assert out.abs().max() <= 1


@pytest.mark.parametrize("arch", ARCHS)
def test_config_rebuilds_the_architecture(arch: str) -> None:
    first = network(arch)
    second = build_generator(f"smp-{arch}", **json.loads(json.dumps(first.config()))).eval()
    second.load_state_dict(first.state_dict())
    assert second.config() == first.config()
    x = torch.rand(1, 2, 64, 64)
    assert torch.equal(second(x), first(x))


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "tu-regnetx_002", "mit_b0"])
def test_encoders_of_all_kinds(encoder: str) -> None:
    generator = network(encoder=encoder, bands=(2, 1))
    assert generator.norm_layers()
    out = generator(torch.rand(1, 2, 64, 64))
    assert out.shape == (1, 1, 64, 64)
    assert out.std() > 0


@pytest.mark.parametrize("encoder", [SMALL, "tu-regnetx_002"])
@pytest.mark.parametrize("arch", ["unet", "fpn"])
def test_no_foreign_statistics_are_left(arch: str, encoder: str) -> None:
    generator = network(arch, encoder=encoder)
    foreign = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.InstanceNorm2d)
    assert not [m for m in generator.modules() if isinstance(m, foreign)]
    assert not list(generator.buffers())
    assert all(norm.weight is not None for norm in generator.norm_layers())
    assert network(arch, encoder=encoder, norm="none").norm_layers() == []
    assert all(norm.pool == "scene" for norm in network(arch, norm="scene").norm_layers())


def test_a_norm_that_ends_with_an_activation_keeps_it() -> None:
    """timm's batch norms may have one; without it the network would be another."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    theirs = smp.Unet("tu-regnetx_002", encoder_weights=None, in_channels=2, classes=3)
    acts = [m.act for m in theirs.modules() if type(m).__name__ == "BatchNormAct2d"]
    ours = [getattr(m, "act", None) for m in network(encoder="tu-regnetx_002").norm_layers()]
    kinds = [type(act) for act in ours if act is not None]
    assert sorted(map(str, kinds)) == sorted(str(type(act)) for act in acts)
    assert nn.ReLU in kinds


def test_it_is_the_librarys_network_with_another_norm() -> None:
    """Batch norm over a batch of one, in training, is instance norm with weight and bias."""
    import segmentation_models_pytorch as smp

    channels = (64, 32, 16, 8, 4)
    theirs = smp.Unet(
        SMALL, encoder_weights=None, in_channels=2, classes=3, decoder_channels=channels
    ).train()
    ours = network()
    weights = {k: v for k, v in theirs.state_dict().items() if "running" not in k}
    weights = {f"network.{k}": v for k, v in weights.items() if "num_batches" not in k}
    ours.load_state_dict(weights)
    x = torch.rand(1, 2, 64, 64) * 2 - 1
    torch.testing.assert_close(ours(x), torch.tanh(theirs(x)), atol=1e-5, rtol=1e-4)


def test_nodata_has_no_say_in_any_statistic() -> None:
    generator = network()
    valid = torch.ones(1, 1, 64, 128)
    valid[..., 64:] = 0
    seen: list[tuple[Tensor, Tensor]] = []
    for norm in generator.norm_layers():
        norm.register_forward_pre_hook(
            lambda module, args: seen.append(
                (args[0], module.around.share(args[0]))  # type: ignore[union-attr,operator]
            )
        )
    generator((torch.rand(1, 2, 64, 128) * 2 - 1) * valid, valid)
    assert seen
    for features, share in seen:
        half = features.shape[-1] // 2
        assert share.shape == (1, 1, *features.shape[-2:])
        assert (share[..., :half] == 1).all()
        assert not share[..., half:].any()
    generator.thaw()
    full = torch.ones(2, 1, 64, 64)
    x = torch.rand(2, 2, 64, 64)
    torch.testing.assert_close(generator(x, full), generator(x), atol=1e-4, rtol=1e-3)


def test_flat_and_masked_tiles_stay_finite() -> None:
    generator = network().train()
    for share in (0.0, 0.02):
        valid = torch.rand(1, 1, 64, 64) < share
        x = torch.where(valid, 0.7, 0.0).expand(1, 2, 64, 64).clone().requires_grad_()
        out = generator(x, valid)
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def patches_of(count: int, masked: bool, cores: bool) -> list[Patch]:
    torch.manual_seed(3)
    found = []
    for index in range(count):
        valid = torch.rand(1, 1, 64, 64) > 0.2 if masked else None
        x = torch.rand(1, 2, 64, 64) * (index + 1) / count
        core = (slice(0, 64), slice(32 * (index % 2), 64)) if cores else None
        found.append(Patch(x if valid is None else x * valid, valid, core))
    return found


@pytest.mark.parametrize("cores", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_one_batch_and_many_sweeps_find_the_same(masked: bool, cores: bool) -> None:
    generator, patches = network(), patches_of(3, masked, cores)
    assert isinstance(generator, OpaqueGenerator)
    count = len(generator.norm_layers())
    calls = 0

    def done() -> None:
        nonlocal calls
        calls += 1

    together = opaque_statistics(generator, lambda: patches, 10**12, done)
    assert calls == 3 * count
    frozen = generator(patches[0].levels, patches[0].valid)
    generator.thaw()
    assert not torch.allclose(generator(patches[0].levels, patches[0].valid), frozen, atol=1e-3)
    alone = opaque_statistics(generator, lambda: patches, 0, done)
    assert calls == 6 * count
    again = generator(patches[0].levels, patches[0].valid)
    torch.testing.assert_close(again, frozen, atol=1e-4, rtol=1e-3)
    assert len(together) == len(alone) == count
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one.count, two.count)
        torch.testing.assert_close(one.mean, two.mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.m2, two.m2, atol=1e-3, rtol=1e-3)


def test_a_pooled_batch_is_what_training_sees() -> None:
    generator = network(norm="scene")
    patches = patches_of(4, True, False)
    masks = [patch.valid for patch in patches if patch.valid is not None]
    x, mask = torch.cat([patch.levels for patch in patches]), torch.cat(masks)
    expected = generator(x, mask)
    pooled_statistics(generator, lambda: patches, pixels=4 * 64 * 64, memory=10**12)
    torch.testing.assert_close(generator(x, mask), expected, atol=1e-3, rtol=0)


def test_cores_leave_out_what_is_not_theirs() -> None:
    """At the first norm layer, which has seen nothing of its surroundings' statistics."""
    generator = network()
    x = torch.rand(1, 2, 64, 64)
    noisy = x.clone()
    noisy[..., 32:] = torch.rand(1, 2, 64, 32) * 9
    core = (slice(0, 64), slice(0, 16))
    first = [
        pooled_statistics(
            generator, lambda y=y: [Patch(y, None, core)], pixels=64 * 64, memory=10**12
        )[0]
        for y in (x, noisy)
    ]
    torch.testing.assert_close(first[0].mean, first[1].mean)
    assert float(first[0].count) < 64 * 64 / 4


def test_statistics_travel(tmp_path: Path) -> None:
    generator = network()
    found = pooled_statistics(
        generator, lambda: patches_of(2, False, False), pixels=2 * 64 * 64, memory=10**12
    )
    x = torch.rand(1, 2, 64, 64)
    expected = generator(x)
    other = network()
    other.freeze(found)
    torch.testing.assert_close(other(x), expected)
    # Frozen, a sample does not depend on those beside it, nor on what is left of it.
    torch.testing.assert_close(other(torch.cat([x, x * 3]))[:1], expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="no patch to measure"):
        pooled_statistics(other, list, pixels=1, memory=1)


def test_copies_run_on_their_own() -> None:
    generator = network()
    x = torch.rand(1, 2, 64, 64)
    before = generator(x)
    other = copy.deepcopy(generator)
    for norm in other.norm_layers():
        assert norm.weight is not None
        nn.init.zeros_(norm.weight)
    other(x, torch.zeros(1, 1, 64, 64))
    assert torch.equal(generator(x), before)


def test_it_is_known_to_have_no_bound() -> None:
    generator = network()
    assert generator.halo is None
    assert generator.plan == ()
    assert generator.stride == 32
    assert generator.min_size == 64
    with pytest.raises(ValueError, match="multiples of the stride 32 and at least 64"):
        generator(torch.zeros(1, 2, 32, 64))


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Those of an encoder for three bands, as a training of a classifier leaves them."""
    import timm

    torch.manual_seed(5)
    model = timm.create_model("resnet18", pretrained=False)
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_an_encoder_from_a_file(
    tmp_path: Path, weights: dict[str, Tensor], suffix: str, prefix: str
) -> None:
    path = tmp_path / f"encoder.{suffix}"
    named = {f"{prefix}{k}": v for k, v in weights.items()}
    save_file(named, path) if suffix == "safetensors" else torch.save({"state_dict": named}, path)
    generator = network(encoder="resnet18", bands=(3, 1), encoder_weights=str(path))
    state = generator.state_dict()
    assert torch.equal(state["network.encoder.conv1.weight"], weights["conv1.weight"])
    key = "layer3.0.bn1.weight"
    assert torch.equal(state[f"network.encoder.{key}"], weights[key])
    assert "encoder_weights" not in generator.config()
    # Another number of bands: what three equal bands would give is what all of them give.
    wide = network(encoder="resnet18", bands=(13, 1), encoder_weights=str(path))
    first = wide.state_dict()["network.encoder.conv1.weight"]
    assert first.shape[1] == 13
    torch.testing.assert_close(first[:, 3], weights["conv1.weight"][:, 0] * 3 / 13)


def test_weights_of_timm_for_an_encoder_of_timm(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save(state, tmp_path / "t.pth")
    generator = network(bands=(3, 1), encoder_weights=str(tmp_path / "t.pth"))
    key = "layer1.0.conv1.weight"
    assert torch.equal(generator.state_dict()[f"network.encoder.model.{key}"], state[key])


def test_wrong_files_of_weights_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "r18.pth")
    torch.save({"a": 3}, tmp_path / "none.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("hello")
    cases: list[tuple[str, str, type[Exception], str]] = [
        ("r18.pth", "resnet34", BundleError, "not the weights of this --encoder .* is missing"),
        ("none.pth", "resnet18", BundleError, "no tensor in it"),
        ("pickle.pth", "resnet18", BundleError, "refused, it holds more than tensors"),
        ("text.pth", "resnet18", BundleError, "text.pth"),
        ("gone.pth", "resnet18", NotFoundError, "no such file"),
    ]
    for name, encoder, error, said in cases:
        with pytest.raises(error, match=said) as raised:
            network(encoder=encoder, bands=(3, 1), encoder_weights=str(tmp_path / name))
        assert "\n" not in str(raised.value)


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(OptionError, match="encoder 'resnet43' is not known .* resnet34"):
        network(encoder="resnet43")
    with pytest.raises(OptionError, match="encoder 'tu-nothing' is not known"):
        network(encoder="tu-nothing")
    with pytest.raises(OptionError, match="'mit_b0' does not go with 2 bands and smp-unetplusplus"):
        network("unetplusplus", encoder="mit_b0")
    with pytest.raises(OptionError, match="multiple of 16"):
        network("fpn", width=24)
    with pytest.raises(OptionError, match="arch 'vgg' is not known"):
        SmpGenerator(1, 1, arch="vgg")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(OptionError, match=r'pip install "geocyclegan\[smp\]"'):
        network()


def test_other_generators_do_not_need_it() -> None:
    assert isinstance(build_generator("resnet6", in_channels=1, out_channels=1, width=2), Generator)
    assert all(
        type(norm) is SceneNorm2d
        for norm in build_generator("resnet6", in_channels=1, out_channels=1, width=2).norm_layers()
    )
