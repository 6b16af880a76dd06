"""Weights with the names of pytorch-CycleGAN-and-pix2pix, from networks built here in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from geocyclegan.errors import BundleError, NotFoundError
from geocyclegan.models import ResNetGenerator, UNetGenerator, build_discriminator
from geocyclegan.models.published import read_published


class Block(nn.Module):
    """A residual block as one sequence that is called `conv_block`."""

    def __init__(self, channels: int, dropout: bool, tracked: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)),
            *(norm(channels, tracked), nn.ReLU(True)),
            *([nn.Dropout(0.5)] if dropout else []),
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)),
            norm(channels, tracked),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class Blur(nn.Module):
    """A fixed filter that is kept among the weights as `filt`."""

    filt: Tensor

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        kernel = torch.outer(line, line) / line.sum() ** 2 * (4 if up else 1)
        self.up = up
        self.register_buffer("filt", kernel.repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
            return F.conv_transpose2d(wide, self.filt, stride=2, padding=3, groups=x.shape[1])
        wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(wide, self.filt, stride=2, groups=x.shape[1])


def norm(channels: int, tracked: bool) -> nn.Module:
    return nn.InstanceNorm2d(channels, track_running_stats=tracked)


def resnet(
    bands: tuple[int, int] = (3, 3),
    width: int = 4,
    blocks: int = 6,
    *,
    dropout: bool = False,
    tracked: bool = False,
    blurs: int = 0,
) -> nn.Module:
    w = width
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for fine in (w, 2 * w):
        stride = 1 if blurs else 2
        down += [nn.Conv2d(fine, fine * 2, 3, stride, 1), norm(fine * 2, tracked), nn.ReLU(True)]
        down += [Blur(fine * 2, False)] if blurs else []
    for coarse in (4 * w, 2 * w):
        if blurs == 4:
            up += [Blur(coarse, True), nn.Conv2d(coarse, coarse // 2, 3, padding=1)]
        else:
            up += [nn.ConvTranspose2d(coarse, coarse // 2, 3, 2, 1, output_padding=1)]
        up += [norm(coarse // 2, tracked), nn.ReLU(True)]
    torch.manual_seed(0)
    network = nn.Module()
    network.model = nn.Sequential(
        *(nn.ReflectionPad2d(3), nn.Conv2d(bands[0], w, 7), norm(w, tracked), nn.ReLU(True)),
        *down,
        *(Block(4 * w, dropout, tracked) for _ in range(blocks)),
        *up,
        *(nn.ReflectionPad2d(3), nn.Conv2d(w, bands[1], 7), nn.Tanh()),
    )
    return network.eval()


class Skip(nn.Module):
    """A level of the U-Net around the next one."""

    def __init__(self, channels: list[int], bands: tuple[int, int] | None, batch: bool) -> None:
        super().__init__()
        fine, coarse, *deeper = channels
        innermost = not deeper
        self.outermost = bands is not None
        ends = bands or (fine, fine)
        make: Any = nn.BatchNorm2d if batch else nn.InstanceNorm2d
        down: list[nn.Module] = [nn.Conv2d(ends[0], coarse, 4, 2, 1)]
        inside = coarse if innermost else 2 * coarse
        up: list[nn.Module] = [nn.ReLU(True), nn.ConvTranspose2d(inside, ends[1], 4, 2, 1)]
        if self.outermost:
            up.append(nn.Tanh())
        else:
            down.insert(0, nn.LeakyReLU(0.2, True))
            up.append(make(ends[1]))
            if not innermost:
                down.append(make(coarse))
        inner = [] if innermost else [Skip([coarse, *deeper], None, batch)]
        self.model = nn.Sequential(*down, *inner, *up)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out if self.outermost else torch.cat([x, out], 1)


def unet(
    bands: tuple[int, int] = (3, 3), width: int = 2, depth: int = 7, batch: bool = False
) -> nn.Module:
    torch.manual_seed(0)
    channels = [width] + [width * min(2**level, 8) for level in range(depth)]
    network = nn.Module()
    network.model = Skip(channels, bands, batch)
    return network.eval()


def run(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = network.model(x)  # type: ignore[operator]
    return out


@pytest.mark.parametrize(
    ("options", "name", "args"),
    [
        ({}, "resnet6", {"blocks": 6, "width": 4}),
        ({"blocks": 9}, "resnet9", {"blocks": 9}),
        ({"blocks": 4, "width": 2}, "resnet9", {"blocks": 4, "width": 2}),
        ({"bands": (2, 13)}, "resnet6", {"in_channels": 2, "out_channels": 13}),
        ({"dropout": True}, "resnet6", {}),
        ({"tracked": True}, "resnet6", {"norm": "instance"}),
        ({"blurs": 4}, "resnet6", {"antialias": True, "upsample": "bilinear"}),
        ({"blurs": 2}, "resnet6", {"antialias": True, "upsample": "transpose"}),
    ],
)
def test_a_resnet_gives_what_it_gave(
    tmp_path: Path, options: dict[str, Any], name: str, args: dict[str, Any]
) -> None:
    theirs = resnet(**options)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    read = read_published(tmp_path / "net.pth")
    assert isinstance(read.network, ResNetGenerator)
    assert read.name == name
    assert args.items() <= read.network.config().items()
    x = torch.rand(1, read.network.in_channels, 32, 40) * 2 - 1
    if options.get("tracked"):
        # Recorded and never used, as the programs that read such files have it.
        for module in theirs.modules():
            if isinstance(module, nn.InstanceNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = (
                    *(False, None),
                    None,
                )
    torch.testing.assert_close(read.network.eval()(x), run(theirs, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("depth", "name"), [(7, "unet128"), (8, "unet256"), (3, "unet256")])
def test_a_unet_gives_what_it_gave(tmp_path: Path, depth: int, name: str) -> None:
    theirs = unet((2, 3), depth=depth)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    read = read_published(tmp_path / "net.pth")
    assert isinstance(read.network, UNetGenerator)
    assert read.name == name
    assert read.network.depth == depth
    # Twice the smallest, so that the innermost norm has something to measure.
    side = 2 ** (depth + 1)
    x = torch.rand(1, 2, side, side) * 2 - 1
    torch.testing.assert_close(read.network.eval()(x), run(theirs, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_all_kinds(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{k}": v for k, v in resnet().state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "d.safetensors")
    networks = [read_published(path).network for path in sorted(tmp_path.iterdir())]
    assert len(networks) == 4
    for network in networks[1:]:
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, networks[0].state_dict()[key])


def test_what_is_no_such_generator_is_refused_in_one_line(tmp_path: Path) -> None:
    good = resnet().state_dict()
    discriminator = {
        f"model.{2 * i}.{part}": tensor
        for i, (key, tensor) in enumerate(
            build_discriminator("patch70", in_channels=3, width=2).state_dict().items()
        )
        for part in [key.rpartition(".")[2]]
    }
    batch = dict(good) | {"model.2.weight": torch.ones(4), "model.2.bias": torch.ones(4)}
    unbiased = {k: v for k, v in good.items() if k != "model.4.bias"}
    one_less = {k: v for k, v in good.items() if not k.startswith("model.23.")}
    other_shape = dict(good) | {"model.7.weight": torch.zeros(16, 9, 3, 3)}
    cases: list[tuple[Any, str]] = [
        (discriminator, "tensors without residual blocks, as of a discriminator"),
        (batch, "batch norms; only generators with instance norm"),
        (unbiased, "have no bias, so its norm layers are batch norms"),
        (unet(batch=True).state_dict(), "batch norms"),
        (one_less, "17 convolutions; a ResNet generator has 6 and two for each"),
        (other_shape, r"in the place of .* is of shape \(16, 9, 3, 3\)"),
        (dict(good) | {"model.99.weird": torch.zeros(1)}, "model.99.weird is no tensor of such"),
        (nn.Linear(2, 2).state_dict(), "2 tensors, the first named weight; expected a generator"),
        ({"epoch": 3}, "no tensor in it"),
        (torch.zeros(3), "holds a tensor; expected a state dict"),
        (resnet(), "holds more than tensors"),
    ]
    for number, (content, said) in enumerate(cases):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(BundleError, match=said) as error:
            read_published(path)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(str(path))
    (tmp_path / "zip.pth").write_bytes((tmp_path / "0.pth").read_bytes()[:200])
    with pytest.raises(BundleError, match=r"zip\.pth"):
        read_published(tmp_path / "zip.pth")
    (tmp_path / "x.safetensors").write_bytes(b"0123456789")
    with pytest.raises(BundleError, match="cannot be read as weights"):
        read_published(tmp_path / "x.safetensors")
    with pytest.raises(NotFoundError, match="no such file"):
        read_published(tmp_path / "gone.pth")


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    # An environment variable that would undo a default, but not what the call itself says.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model.1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(BundleError):
        read_published(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
