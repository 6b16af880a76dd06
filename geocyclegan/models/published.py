"""Generators from the weights of other programs, recognised by the names and shapes of the tensors.

The names are those that pytorch-CycleGAN-and-pix2pix gives its networks, and with them most of the
CycleGANs that were published: a ResNet is one `nn.Sequential`, so its tensors are
`model.N.weight` and `model.N.conv_block.M.weight`; a U-Net is nested, so there is a
`model.model.1.model.3.weight`. CUT's ResNets have the kernels of their blurs beside them,
`model.N.filt`. All that a file says is in these names and in the shapes; what it cannot say is how
the training images were scaled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from geocyclegan.errors import BundleError
from geocyclegan.models.generator import Generator
from geocyclegan.models.registry import build_generator
from geocyclegan.models.weightfile import read_weights

_RESNET = re.compile(r"model\.(\d+)\.(?:conv_block\.(\d+)\.)?(weight|bias)")
_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.")
_BLUR = re.compile(r"model\.\d+\.filt")
_UNET = re.compile(r"model((?:\.model\.\d+)+)\.(weight|bias)")
# Old versions of PyTorch kept statistics in instance norms and never used them.
_UNUSED = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)")


@dataclass(frozen=True, eq=False)
class Published:
    """A generator that was read from a file.

    Attributes:
        name: of its kind in the registry.
        network: with the weights of the file.
    """

    name: str
    network: Generator


def read_published(path: Path) -> Published:
    """Read a generator that another program trained.

    Args:
        path: its state dict: .pth or .safetensors.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it is no file of weights, or not of a generator that is known here; says what
            was found.
    """
    state = {k.removeprefix("module."): v for k, v in read_weights(path).items()}
    learnt = {k: v for k, v in state.items() if not _UNUSED.fullmatch(k) and not _BLUR.fullmatch(k)}
    blurs = sum(1 for key in state if _BLUR.fullmatch(key))
    if any(_BLOCK.match(key) for key in learnt):
        convolutions = _ordered(path, learnt, _RESNET, _resnet_place)
        name, args = _resnet(path, convolutions, blurs)
    elif learnt and all(_UNET.fullmatch(key) for key in learnt):
        convolutions = _ordered(path, learnt, _UNET, _unet_place)
        name, args = _unet(path, convolutions)
    else:
        raise BundleError(
            f"{path}: {_what(learnt)}; expected a generator with the names of"
            " pytorch-CycleGAN-and-pix2pix, such as model.1.weight and model.10.conv_block.1.weight"
        )
    network = build_generator(name, **args)
    wanted = network.state_dict()
    ours = [key.removesuffix(".weight") for key in wanted if key.endswith(".weight")]
    found: dict[str, Tensor] = {}
    for key, tensors in zip(ours, convolutions, strict=False):
        found |= {f"{key}.{part}": tensor for part, tensor in tensors.items()}
    _require_same_shapes(path, f"{name} {args}", found, wanted)
    network.load_state_dict(found)
    return Published(name, network)


Convolution = Mapping[str, Tensor]
"""Weight and bias of a convolution."""


def _ordered(
    path: Path, learnt: Mapping[str, Tensor], pattern: re.Pattern[str], place: Any
) -> Sequence[Convolution]:
    """The convolutions in the order in which an image meets them."""
    if any(tensor.ndim == 1 and key.endswith(".weight") for key, tensor in learnt.items()):
        raise BundleError(
            f"{path}: its norm layers have weights of their own, so they are batch norms; only"
            " generators with instance norm can be imported"
        )
    found: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for key, tensor in learnt.items():
        match = pattern.fullmatch(key)
        if match is None:
            raise BundleError(f"{path}: {key} is no tensor of such a generator; {_what(learnt)}")
        found.setdefault(place(match), {})[match[match.lastindex or 0]] = tensor
    convolutions = [found[key] for key in sorted(found)]
    if any("bias" not in each for each in convolutions):
        raise BundleError(
            f"{path}: some of its convolutions have no bias, so its norm layers are batch norms;"
            " only generators with instance norm can be imported"
        )
    if any("weight" not in each or each["weight"].ndim != 4 for each in convolutions):
        raise BundleError(f"{path}: not all of its layers are convolutions; {_what(learnt)}")
    return convolutions


def _resnet_place(match: re.Match[str]) -> tuple[int, ...]:
    return int(match[1]), int(match[2] or 0)


def _unet_place(match: re.Match[str]) -> tuple[int, ...]:
    """Down the levels and up again; at each, the lower number is that of the way down."""
    *outer, number = (int(digits) for digits in re.findall(r"\.model\.(\d+)", match[1]))
    depth = len(outer)
    # The way down has its convolution before the inner block, at 0 outermost and at 1 elsewhere.
    return (0, depth) if number <= 1 else (1, -depth)


def _resnet(
    path: Path, convolutions: Sequence[Convolution], blurs: int
) -> tuple[str, dict[str, Any]]:
    blocks, odd = divmod(len(convolutions) - 6, 2)
    if odd or blocks < 1:
        raise BundleError(
            f"{path}: {len(convolutions)} convolutions; a ResNet generator has 6 and two for each"
            " of its blocks"
        )
    name = "resnet6" if blocks == 6 else "resnet9"
    args = {**_ends(convolutions), "blocks": blocks}
    if blurs:
        if blurs not in (2, 4):
            raise BundleError(f"{path}: {blurs} blurs; expected 2 (on the way down) or 4")
        args |= {"antialias": True, "upsample": "bilinear" if blurs == 4 else "transpose"}
    return name, args


def _unet(path: Path, convolutions: Sequence[Convolution]) -> tuple[str, dict[str, Any]]:
    depth, odd = divmod(len(convolutions), 2)
    if odd or depth < 2:
        raise BundleError(
            f"{path}: {len(convolutions)} convolutions; a U-Net generator has two for each level"
        )
    last = convolutions[-1]["weight"]
    ends = _ends(convolutions) | {"out_channels": last.shape[1]}
    return ("unet128" if depth == 7 else "unet256"), {**ends, "depth": depth}


def _ends(convolutions: Sequence[Convolution]) -> dict[str, Any]:
    first, last = convolutions[0]["weight"], convolutions[-1]["weight"]
    return {
        "in_channels": first.shape[1],
        "out_channels": last.shape[0],
        "width": first.shape[0],
        "norm": "instance",
    }


def _require_same_shapes(
    path: Path, what: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    for key, tensor in wanted.items():
        there = tuple(found[key].shape) if key in found else None
        if there != tuple(tensor.shape):
            raise BundleError(
                f"{path}: looks like {what}, but its convolution in the place of {key} is"
                f" {'missing' if there is None else f'of shape {there}'}, expected"
                f" {tuple(tensor.shape)}"
            )


def _what(state: Mapping[str, Tensor]) -> str:
    """Say what a file holds that is no generator."""
    if not state:
        return "no weights in it"
    names = list(state)
    if all(re.fullmatch(r"model\.\d+\.(weight|bias)", name) for name in names):
        return f"{len(names)} tensors without residual blocks, as of a discriminator (net_D)"
    return f"{len(names)} tensors, the first named {names[0]}"
