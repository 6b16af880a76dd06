"""Networks of segmentation-models-pytorch as generators, with any of its encoders."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from geocyclegan.errors import BundleError, OptionError
from geocyclegan.models.layers import require_positive
from geocyclegan.models.norm import NORMS
from geocyclegan.models.opaque import InnerNorm2d, OpaqueGenerator, Surroundings
from geocyclegan.models.weightfile import read_weights

if TYPE_CHECKING:
    from types import ModuleType

# Their normalisations, all of which act on windows otherwise than on scenes: by what they keep.
_BATCH, _GROUP = nn.modules.batchnorm._BatchNorm, nn.GroupNorm

# What a checkpoint of a classifier or a segmenter holds beside its encoder.
_HEADS = ("fc.", "classifier.", "head.", "last_linear.", "decoder.", "segmentation_head.")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class SmpGenerator(OpaqueGenerator):
    """An encoder and a decoder of segmentation-models-pytorch, with norm layers of this package.

    Batch and group norm give way to an instance norm with weight and bias, whose statistics see
    valid pixels only and can be a scene's. Layer norms of transformers act on each place by itself
    and stay. Source: Iakubovskii, "Segmentation Models Pytorch", 2019, and the papers named there.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        arch: "unet", "unetplusplus", "fpn" or "segformer".
        encoder: a name that segmentation-models-pytorch knows, "tu-" and a name of timm included.
        width: of the decoder; at 64 it has the channels that are its library's default.
        norm: "instance", "scene" or "none".
        encoder_weights: file with weights of the encoder, safetensors or of PyTorch; it is read
            now, and not part of `config`. None: weights are drawn at random.

    Raises:
        OptionError: segmentation-models-pytorch is not there, or an argument is out of range.
        NotFoundError: there is no file `encoder_weights`.
        BundleError: `encoder_weights` does not fit the encoder.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        arch: str,
        encoder: str = "resnet34",
        width: int = 64,
        norm: str = "instance",
        encoder_weights: str | None = None,
    ) -> None:
        require_positive(in_channels=in_channels, out_channels=out_channels, width=width)
        if norm not in NORMS:
            raise OptionError(f"norm {norm!r} is not known; choose one of: {', '.join(NORMS)}")
        network = _network(arch, encoder, in_channels, out_channels, width)
        if encoder_weights is not None:
            load_encoder(network.encoder, Path(encoder_weights), in_channels)
        around = Surroundings()
        _replace_norms(network, norm, around)
        stride = int(network.encoder.output_stride)
        # One pixel at the coarsest scale would have no variance.
        super().__init__(
            in_channels, out_channels, network, around, stride=stride, min_size=2 * stride
        )
        self.arch = arch
        self.encoder = encoder
        self.width = width
        self.norm = norm

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "arch": self.arch,
            "encoder": self.encoder,
            "width": self.width,
            "norm": self.norm,
        }


def load_encoder(encoder: Any, path: Path, in_channels: int) -> None:
    """Load weights of a file into an encoder; its first layer may be of other bands.

    The file's first convolution, made for other bands, is repeated over the bands there are and
    scaled by their ratio, so that its sums keep their size.

    Args:
        encoder: of segmentation-models-pytorch, still with its own norm layers.
        path: safetensors or of PyTorch.
        in_channels: bands of the encoder's input.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it holds no weights, or those of another encoder.
    """
    wanted = nn.Module.state_dict(encoder)
    found = _encoder_part(read_weights(path), wanted)
    for name, tensor in found.items():
        if name in wanted and tensor.ndim == 4 and tensor.shape[1] != wanted[name].shape[1]:
            repeated = tensor[:, [i % tensor.shape[1] for i in range(wanted[name].shape[1])]]
            if wanted[name].shape[1] == in_channels:
                found[name] = repeated * (tensor.shape[1] / in_channels)
    needed = [name for name in wanted if not name.endswith(_BUFFERS)]
    missing = [name for name in needed if name not in found]
    shapes = [name for name in needed if name in found and found[name].shape != wanted[name].shape]
    surplus = [
        n for n in found if n not in wanted and not n.removeprefix("model.").startswith(_HEADS)
    ]
    if missing or shapes or surplus:
        what = (
            f"{missing[0]} is missing"
            if missing
            else f"{shapes[0]} is of shape {tuple(found[shapes[0]].shape)}"
            if shapes
            else f"{surplus[0]} has no place in it"
        )
        raise BundleError(
            f"--encoder-weights {path}: not the weights of this --encoder ({what}); expected the"
            f" names of segmentation-models-pytorch, such as {needed[0]}"
        )
    with torch.no_grad():
        for name in needed:
            wanted[name].copy_(found[name])


def _encoder_part(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix that a training script or a segmenter gave them."""
    variants = [
        {f"{added}{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}
        for prefix in ("", "module.", "encoder.", "model.", "backbone.", "model.encoder.")
        # What timm calls by plain names lies in a "model" of its own in a "tu-" encoder.
        for added in ("", "model.")
    ]
    return max(variants, key=lambda variant: len(variant.keys() & wanted.keys()))


def _network(arch: str, encoder: str, in_channels: int, out_channels: int, width: int) -> Any:
    smp = _library()
    makers: dict[str, tuple[Any, dict[str, Any]]] = {
        "unet": (smp.Unet, {"decoder_channels": _channels(width)}),
        "unetplusplus": (smp.UnetPlusPlus, {"decoder_channels": _channels(width)}),
        "fpn": (
            smp.FPN,
            {
                "decoder_pyramid_channels": width * 4,
                "decoder_segmentation_channels": width * 2,
                "decoder_dropout": 0.0,
            },
        ),
        "segformer": (smp.Segformer, {"decoder_segmentation_channels": width * 4}),
    }
    if arch not in makers:
        raise OptionError(f"arch {arch!r} is not known; choose one of: {', '.join(makers)}")
    if arch == "fpn" and width % 16:
        raise OptionError(f"width is {width}; the FPN decoder expects a multiple of 16")
    make, arguments = makers[arch]
    try:
        # Some encoders compute with numbers as they are built, which the meta device has not.
        with torch.device("cpu"):
            return make(
                encoder_name=encoder,
                encoder_weights=None,
                in_channels=in_channels,
                classes=out_channels,
                activation=None,
                **arguments,
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        _check_encoder(smp, encoder)
        line = " ".join(str(error).split())
        raise OptionError(
            f"encoder {encoder!r} does not go with {in_channels} bands and smp-{arch} ({line});"
            " choose another, such as resnet34"
        ) from error


def _channels(width: int) -> tuple[int, ...]:
    """Channels of the decoder from coarse to fine."""
    return tuple(max(width * 4 // 2**level, 1) for level in range(5))


def _check_encoder(smp: ModuleType, encoder: str) -> None:
    """Tell an encoder that there is not from one that cannot do what was asked for."""
    known = list(smp.encoders.get_encoder_names())
    if encoder in known:
        return
    if encoder.startswith("tu-"):
        import timm

        if timm.is_model(encoder.removeprefix("tu-")):
            return
    near = difflib.get_close_matches(encoder, known, n=4, cutoff=0.5) or known[:4]
    raise OptionError(
        f"encoder {encoder!r} is not known to segmentation-models-pytorch; it has {len(known)},"
        f" such as {', '.join(near)}, and tu-NAME for those of timm"
    )


def _library() -> ModuleType:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise OptionError(
            "generators smp-* need segmentation-models-pytorch, which is not installed; run"
            ' pip install "geocyclegan[smp]"'
        ) from error
    library: ModuleType = segmentation_models_pytorch
    return library


def _replace_norms(module: nn.Module, norm: str, around: Surroundings) -> None:
    """Put this package's norm in the place of each batch and group norm, weight and bias kept."""
    for name, child in list(module.named_children()):
        if not isinstance(child, _BATCH | _GROUP):
            _replace_norms(child, norm, around)
            continue
        # timm has batch norms that end with an activation of their own.
        act = getattr(child, "act", None)
        if norm == "none":
            setattr(module, name, nn.Identity() if act is None else act)
            continue
        channels = child.num_channels if isinstance(child, nn.GroupNorm) else child.num_features
        pool = "scene" if norm == "scene" else "crop"
        # On the CPU with the rest, see above.
        with torch.device("cpu"):
            ours = InnerNorm2d(channels, around, eps=child.eps, pool=pool, act=act)
        for own, theirs in ((ours.weight, child.weight), (ours.bias, child.bias)):
            if own is not None and theirs is not None:
                own.data.copy_(theirs.data)
        setattr(module, name, ours)
