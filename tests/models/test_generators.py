from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import (
    DenseNetGenerator,
    Generator,
    ResNetGenerator,
    UNetGenerator,
    build_generator,
    generators,
)

TINY: dict[str, Callable[..., Generator]] = {
    "resnet": lambda **args: ResNetGenerator(2, 3, width=4, blocks=2, **args),
    "unet": lambda **args: UNetGenerator(2, 3, width=4, depth=3, **args),
    "antialias": lambda **args: ResNetGenerator(2, 3, width=4, blocks=1, antialias=True, **args),
    "nearest": lambda **args: ResNetGenerator(2, 3, width=4, blocks=1, upsample="nearest", **args),
    "densenet": lambda **args: DenseNetGenerator(2, 3, width=4, blocks=2, layers=2, **args),
}

BANDS = [(1, 1), (3, 3), (2, 13), (13, 2)]

SAMPLINGS: list[dict[str, Any]] = [
    {"antialias": antialias, "upsample": upsample}
    for antialias in (False, True)
    for upsample in (None, "transpose", "nearest", "bilinear")
]


@pytest.fixture(params=list(TINY))
def tiny(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    return TINY[request.param]()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def unet_parameters(depth: int, width: int = 64, bands: int = 3) -> int:
    """Weights and biases, counted from the published table of layers."""
    wide = [width * min(2**level, 8) for level in range(depth)]
    down = [(bands, wide[0]), *pairwise(wide)]
    up = [(c * (1 if level == depth - 1 else 2), to) for level, (to, c) in enumerate(down)]
    return sum(16 * a * b + b for a, b in down + up)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet9", 11_378_179),
        ("resnet6", 7_837_699),
        ("unet256", unet_parameters(8)),
        ("unet128", unet_parameters(7)),
    ],
)
def test_published_sizes(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(build_generator(name, in_channels=3, out_channels=3)) == expected


@pytest.mark.parametrize("options", SAMPLINGS)
@pytest.mark.parametrize("name", ["resnet6", "densenet"])
def test_config_holds_the_sampling(name: str, options: dict[str, Any]) -> None:
    first = build_generator(name, in_channels=2, out_channels=13, width=2, **options)
    second = build_generator(name, **json.loads(json.dumps(first.config())))
    second.load_state_dict(first.state_dict())
    assert second.config() == first.config()
    assert second.halo == first.halo
    assert second.min_size == first.min_size


@pytest.mark.parametrize("name", [n for n in generators.names() if not n.startswith("smp-")])
def test_config_rebuilds_the_architecture(name: str) -> None:
    first = build_generator(name, in_channels=2, out_channels=13, width=2)
    second = build_generator(name, **json.loads(json.dumps(first.config())))
    second.load_state_dict(first.state_dict())
    assert second.config() == first.config()
    assert second.halo == first.halo


def test_a_bundle_of_an_earlier_version_has_the_canonical_sampling() -> None:
    args = {"in_channels": 2, "out_channels": 3, "width": 4, "blocks": 6, "norm": "instance"}
    old = build_generator("resnet6", **args)
    assert not old.config()["antialias"]
    assert old.config()["upsample"] == "transpose"


@pytest.mark.parametrize(("in_channels", "out_channels"), BANDS)
@pytest.mark.parametrize("options", SAMPLINGS)
@pytest.mark.parametrize("name", ["resnet6", "densenet"])
def test_any_bands_with_any_sampling(
    name: str, options: dict[str, Any], in_channels: int, out_channels: int
) -> None:
    generator = build_generator(
        name, in_channels=in_channels, out_channels=out_channels, width=2, blocks=1, **options
    )
    valid = torch.rand(1, 1, 24, 32) > 0.2
    x = (torch.rand(1, in_channels, 24, 32) * 2 - 1) * valid
    out = generator(x, valid)
    assert out.shape == (1, out_channels, 24, 32)
    assert out.isfinite().all()


def test_antialias_equals_its_textbook_form() -> None:
    """Binomial filters in both directions, as Zhang has them and CUT applies them."""
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=4, blocks=1, antialias=True)
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    stem, down1, down2, first, second, up2, up1, head = convs
    norm, relu, pad = F.instance_norm, nn.ReLU(), nn.ReflectionPad2d

    def binomial(*weights: float) -> torch.Tensor:
        line = torch.tensor(weights)
        return torch.outer(line, line) / line.sum() ** 2

    def halved(x: torch.Tensor) -> torch.Tensor:
        kernel = binomial(1, 2, 1).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(pad(1)(x), kernel, stride=2, groups=x.shape[1])

    def doubled(x: torch.Tensor) -> torch.Tensor:
        kernel = (binomial(1, 3, 3, 1) * 4).expand(x.shape[1], 1, 4, 4)
        wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(wide, kernel, stride=2, padding=3, groups=x.shape[1])

    x = torch.rand(2, 2, 16, 20) * 2 - 1
    y = relu(norm(stem(pad(3)(x))))
    y = halved(relu(norm(down2(halved(relu(norm(down1(y))))))))
    inner = relu(norm(first(pad(1)(y))))
    y = y + norm(second(pad(1)(inner)))
    y = relu(norm(up1(doubled(relu(norm(up2(doubled(y))))))))
    torch.testing.assert_close(generator(x), torch.tanh(head(pad(3)(y))))


def test_antialias_blunts_what_lies_between_the_pixels() -> None:
    """A stripe of one pixel, moved by one pixel: the coarse features change less when blurred."""
    changes = []
    for antialias in (False, True):
        torch.manual_seed(0)
        generator = ResNetGenerator(1, 1, width=4, blocks=1, antialias=antialias).eval()
        x = torch.zeros(1, 1, 32, 32)
        x[..., ::2] = 1.0
        with torch.no_grad():
            one, two = generator(x)[..., 8:-8], generator(x.roll(1, dims=-1))[..., 8:-8]
        changes.append(float((one - two.roll(-1, dims=-1)).abs().mean() / one.std()))
    assert changes[1] < changes[0]


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_enlarging_leaves_no_checkerboard(upsample: str) -> None:
    """Flat features stay flat inside; a transposed convolution of kernel 3 cannot do that."""
    flats = {}
    for way in ("transpose", upsample):
        torch.manual_seed(1)
        generator = ResNetGenerator(1, 1, width=8, blocks=1, upsample=way, norm="none")
        for parameter in generator.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, 0.0, 2.0 / parameter[0].numel())
        inside = generator(torch.full((1, 1, 96, 96), 0.1)).detach()[..., 40:56, 40:56]
        flats[way] = float(inside.std() / inside.abs().mean())
    assert flats[upsample] < 1e-5 < 1e-3 < flats["transpose"]


def test_densenet_equals_its_textbook_form() -> None:
    torch.manual_seed(0)
    generator = DenseNetGenerator(2, 3, width=4, blocks=1, layers=2)
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    stem, down1, down2, narrow1, wide1, narrow2, wide2, end, up2, up1, head = convs
    norm, relu, pad = F.instance_norm, nn.ReLU(), nn.ReflectionPad2d
    assert [wide1.out_channels, narrow1.out_channels, narrow2.in_channels] == [2, 8, 18]
    x = torch.rand(2, 2, 16, 20) * 2 - 1
    y = relu(norm(stem(pad(3)(x))))
    y = relu(norm(down2(relu(norm(down1(y))))))
    for narrow, wide in ((narrow1, wide1), (narrow2, wide2)):
        grown = wide(pad(1)(relu(norm(narrow(relu(norm(y)))))))
        y = torch.cat([y, grown], dim=1)
    y = relu(norm(end(relu(norm(y)))))
    y = relu(norm(up1(relu(norm(up2(y))))))
    torch.testing.assert_close(generator(x), torch.tanh(head(pad(3)(y))))


def test_resnet_equals_its_textbook_form() -> None:
    """The plan against plain modules, sharing the weights."""
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=4, blocks=1)
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    stem, down1, down2, first, second, up2, up1, head = convs
    norm, relu = F.instance_norm, nn.ReLU()
    x = torch.rand(2, 2, 16, 20) * 2 - 1
    y = relu(norm(stem(nn.ReflectionPad2d(3)(x))))
    y = relu(norm(down2(relu(norm(down1(y))))))
    inner = relu(norm(first(nn.ReflectionPad2d(1)(y))))
    y = y + norm(second(nn.ReflectionPad2d(1)(inner)))
    y = relu(norm(up1(relu(norm(up2(y))))))
    torch.testing.assert_close(generator(x), torch.tanh(head(nn.ReflectionPad2d(3)(y))))


def test_unet_equals_its_textbook_form() -> None:
    torch.manual_seed(0)
    generator = UNetGenerator(2, 3, width=4, depth=3)
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    down1, down2, down3, up3, up2, up1 = convs
    norm, relu, leaky = F.instance_norm, nn.ReLU(), nn.LeakyReLU(0.2)
    x = torch.rand(2, 2, 16, 24) * 2 - 1
    one = down1(x)
    two = norm(down2(leaky(one)))
    y = norm(up3(relu(down3(leaky(two)))))
    y = norm(up2(relu(torch.cat([two, y], 1))))
    torch.testing.assert_close(generator(x), torch.tanh(up1(relu(torch.cat([one, y], 1)))))


def test_output_has_the_size_of_the_input(tiny: Generator) -> None:
    for height, width in ((tiny.min_size, tiny.min_size), (tiny.stride * 5, tiny.stride * 3)):
        out = tiny(torch.zeros(2, 2, height, width))
        assert out.shape == (2, 3, height, width)
        assert out.isfinite().all()


def test_smallest_size_is_the_smallest_that_works() -> None:
    generator = ResNetGenerator(1, 1, width=1, blocks=1)
    assert generator.min_size == 8
    with pytest.raises(ValueError, match="at least 8"):
        generator(torch.zeros(1, 1, 4, 8))


def test_wrong_shapes_are_named(tiny: Generator) -> None:
    side = tiny.stride * 2
    with pytest.raises(ValueError, match=f"multiples of the stride {tiny.stride}"):
        tiny(torch.zeros(1, 2, side, side + 2))
    with pytest.raises(ValueError, match=r"expected \(samples, 2, height, width\)"):
        tiny(torch.zeros(1, 3, side, side))
    with pytest.raises(ValueError, match="valid mask of shape"):
        tiny(torch.zeros(1, 2, side, side), torch.ones(1, 1, side, side + 4))


def test_full_mask_equals_no_mask(tiny: Generator) -> None:
    x = torch.rand(2, 2, 32, 24) * 2 - 1
    full = torch.ones(2, 1, 32, 24, dtype=torch.bool)
    torch.testing.assert_close(tiny(x, full), tiny(x), atol=1e-5, rtol=1e-4)


def test_weights_are_the_valid_share(tiny: Generator) -> None:
    valid = torch.rand(2, 1, 32, 24) > 0.5
    weights = tiny.weights(valid)
    assert weights is not None
    assert set(weights) == {norm.scale for norm in tiny.norm_layers()}
    for scale, weight in weights.items():
        assert weight.shape == (2, 1, 32 // scale, 24 // scale)
        assert weight.sum() * scale**2 == valid.sum()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_flat_and_masked_tiles_stay_finite(tiny: Generator, share: float) -> None:
    """Water beside nodata: no variance where valid, a step where not."""
    valid = torch.rand(1, 1, 32, 32) < share
    x = torch.where(valid, 0.7, 0.0).expand(1, 2, 32, 32).clone().requires_grad_()
    out = tiny(x, valid)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_mixed_precision_channels_last(tiny: Generator, masked: bool, flat: bool) -> None:
    statistics: list[torch.dtype] = []
    x = torch.full((2, 2, 32, 32), 0.3) if flat else torch.rand(2, 2, 32, 32) * 2 - 1
    valid = torch.rand(2, 1, 32, 32) > 0.3 if masked else None
    model = copy.deepcopy(tiny).to(memory_format=torch.channels_last)
    for layer in model.norm_layers():
        layer.register_forward_hook(lambda _, inputs, out: statistics.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x.to(memory_format=torch.channels_last), valid)
    out.float().square().mean().backward()
    assert out.isfinite().all()
    assert set(statistics) == {torch.bfloat16}  # so the fp32 inside is the layer's own doing
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if not flat:
        assert (out.float() - tiny(x, valid)).abs().max() < 0.05


def test_copies_run_on_their_own_weights(tiny: Generator) -> None:
    x = torch.rand(1, 2, 16, 16)
    before = tiny(x)
    other = copy.deepcopy(tiny)
    nn.init.zeros_(next(other.parameters()))
    assert torch.equal(tiny(x), before)
    assert not torch.equal(other(x), before)


def test_plan_names_are_the_state_dict(tiny: Generator) -> None:
    modules = {step.name for step in tiny.plan if any(True for _ in _parameters_of(step.module))}
    assert {key.split(".")[1] for key in tiny.state_dict()} == modules


def _parameters_of(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())


def test_no_norm_means_no_norm_layers() -> None:
    assert TINY["resnet"](norm="none").norm_layers() == []
    assert TINY["unet"](norm="none").norm_layers() == []
    assert TINY["densenet"](norm="none").norm_layers() == []


def test_nothing_that_is_kept_is_overwritten_where_there_is_no_norm() -> None:
    """Activations in place would change what a concatenation needs later."""
    generator = TINY["densenet"](norm="none")
    x = torch.rand(1, 2, 16, 16, requires_grad=True)
    generator(x).sum().backward()
    fresh = copy.deepcopy(generator)
    for module in fresh.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(generator(x), fresh(x))


def test_dropout_acts_in_inner_levels_and_only_while_training() -> None:
    with torch.device("meta"):
        drops = [
            m.p
            for m in UNetGenerator(1, 1, width=1, depth=8, dropout=True).modules()
            if isinstance(m, nn.Dropout)
        ]
    assert drops == [0.5] * 3


def test_initial_weights() -> None:
    torch.manual_seed(0)
    generator = ResNetGenerator(3, 3, width=16, blocks=2)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 2000:
            assert abs(parameter.std().item() - 0.02) < 0.002
            assert abs(parameter.mean().item()) < 0.002


@pytest.mark.parametrize("masked", [False, True])
def test_compiles_without_graph_breaks(tiny: Generator, masked: bool) -> None:
    torch.compiler.reset()
    x = torch.rand(1, 2, 16, 16)
    valid = torch.rand(1, 1, 16, 16) > 0.2 if masked else None
    compiled = torch.compile(tiny, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, valid), tiny(x, valid))


def test_unknown_names_and_arguments_are_listed() -> None:
    with pytest.raises(OptionError, match="'resnet7' is not known; choose one of: resnet9"):
        build_generator("resnet7", in_channels=1, out_channels=1)
    with pytest.raises(OptionError, match="'depth'"):
        build_generator("resnet9", in_channels=1, out_channels=1, depth=3)
    with pytest.raises(OptionError, match="width is 0"):
        build_generator("resnet9", in_channels=1, out_channels=1, width=0)
    with pytest.raises(OptionError, match="depth is 1"):
        build_generator("unet256", in_channels=1, out_channels=1, depth=1)


def test_the_room_knows_no_rasters() -> None:
    code = (
        "import sys, geocyclegan.models, geocyclegan.methods; "
        "sys.exit('rasterio' in sys.modules or 'geocyclegan.raster' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
