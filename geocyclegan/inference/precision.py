"""The number format that a generator computes in.

In half precision the convolutions of the body take and give 16 bits, which is what fast matrix
units want. Statistics of norm layers stay in single precision (they see to that themselves), and so
does the last convolution: it costs little, and a product rounded to the eight bits of a bfloat16
mantissa would show bands.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.generator import Generator

log = logging.getLogger(__name__)

Precision = Literal["auto", "32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(asked: str, device: torch.device) -> Precision:
    """Resolve "auto": bfloat16 on a GPU that computes in it, single precision elsewhere.

    Raises:
        OptionError: the device cannot compute in what was asked for.
    """
    if asked not in PRECISIONS:
        raise OptionError(f"--precision {asked}: expected {', '.join(PRECISIONS)}")
    is_cuda = device.type == "cuda"
    if asked == "auto":
        return "bf16" if is_cuda and _cuda_has_bf16(device) else "32"
    if asked == "bf16" and is_cuda and not _cuda_has_bf16(device):
        raise OptionError(
            "--precision bf16: this GPU does not compute in bfloat16; choose fp16 or 32"
        )
    if asked == "fp16" and not is_cuda:
        raise OptionError("--precision fp16: it is for GPUs; choose bf16 or 32 on a CPU")
    if asked == "bf16" and not is_cuda and not cpu_has_bf16():
        log.warning(
            "--precision bf16: this processor has no bfloat16 instructions, so it is slower than 32"
        )
    return asked


def lower(generator: nn.Module, precision: Precision) -> None:
    """Have a generator compute in a precision; its inputs and outputs stay in single precision.

    Raises:
        ValueError: the precision is "auto", which `choose_precision` resolves.
    """
    if precision == "auto":
        raise ValueError("resolve the precision first")
    dtype = _DTYPES[precision]
    if dtype == torch.float32 or not isinstance(generator, Generator):
        return
    convolutions = [
        step.module
        for step in generator.plan
        if isinstance(step.module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    generator.to(dtype)
    if next(generator.parameters()).is_cuda:
        # Tensor cores take channels last; other layouts are turned around at each convolution.
        generator.to(memory_format=torch.channels_last)
    convolutions[-1].to(torch.float32)
    for convolution in (convolutions[0], convolutions[-1]):
        convolution.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Bring what a convolution takes into the type of its weights."""
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise TypeError("a convolution without weights")
    return tuple(value.to(weight.dtype) for value in args)


def cpu_has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16."""
    try:
        found = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return False
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"))


def _cuda_has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        # False: what is only emulated does not count.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
