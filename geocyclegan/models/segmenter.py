"""Networks that say what is where: a small one to be trained in a run, or one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from geocyclegan.errors import BundleError, NotFoundError, OptionError

_ARCHES = {"unet": "Unet", "unetplusplus": "UnetPlusPlus", "fpn": "FPN"}


class SmallSegmenter(nn.Module):
    """Two halvings, dilated convolutions at a quarter of the resolution, and back with skips.

    Group norm, since it only ever sees training crops.

    Args:
        in_channels: bands.
        classes: how many classes.
        width: channels of the first layer; a multiple of 8.
    """

    def __init__(self, in_channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.first = _conv(in_channels, width)
        self.second = _conv(width, width * 2, stride=2)
        self.third = nn.Sequential(
            _conv(width * 2, width * 4, stride=2),
            _conv(width * 4, width * 4, dilation=2),
            _conv(width * 4, width * 4, dilation=4),
        )
        self.back_second = _conv(width * 6, width * 2)
        self.back_first = _conv(width * 3, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (samples, classes, height, width).

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1].
        """
        fine = self.first(x)
        half = self.second(fine)
        up = _joined(self.third(half), half)
        up = _joined(self.back_second(up), fine)
        logits: Tensor = self.head(self.back_first(up))
        return logits


def load_segmenter(path: Path, in_channels: int) -> tuple[nn.Module, int]:
    """Load a network of segmentation-models-pytorch, frozen.

    The file is its `state_dict()` as safetensors, and nothing in it is run. The file's metadata may
    say "arch" (unet, unetplusplus or fpn) and "encoder"; they are unet and resnet34 otherwise.
    Bands and classes follow from the tensors. It must have been trained on levels in [−1, 1].

    Args:
        path: the file.
        in_channels: bands that it must take.

    Returns:
        The network, in evaluation mode, and its number of classes.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it is no such network, or one for other bands.
        OptionError: segmentation-models-pytorch is not installed.
    """
    if not path.is_file():
        raise NotFoundError(f"--segmenter {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        line = str(error).strip().splitlines()[0]
        raise BundleError(
            f"--segmenter {path}: cannot be read as safetensors ({line}); save its state_dict()"
            " with safetensors.torch.save_file"
        ) from error
    head = state.get("segmentation_head.0.weight")
    arch, encoder = facts.get("arch", "unet"), facts.get("encoder", "resnet34")
    if head is None or arch not in _ARCHES:
        raise BundleError(
            f"--segmenter {path}: no network of segmentation-models-pytorch (arch {arch}); expected"
            f" one of: {', '.join(_ARCHES)}"
        )
    smp = _library(path)
    classes = int(head.shape[0])
    try:
        network: nn.Module = getattr(smp, _ARCHES[arch])(
            encoder, encoder_weights=None, in_channels=in_channels, classes=classes
        )
        if not next(network.parameters()).is_meta:
            network.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise BundleError(
            f"--segmenter {path}: not the weights of a {arch} with encoder {encoder} for"
            f" {in_channels} bands ({line})"
        ) from error
    return network.eval().requires_grad_(False), classes


def _library(path: Path) -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise OptionError(
            f"--segmenter {path}: it needs segmentation-models-pytorch; pip install"
            ' "geocyclegan[smp]"'
        ) from error
    return segmentation_models_pytorch


def _conv(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, stride, dilation, dilation)
    return nn.Sequential(conv, nn.GroupNorm(min(8, after), after), nn.ReLU(inplace=True))


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    size = (fine.shape[2], fine.shape[3])
    up = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.cat([up, fine], dim=1)
