"""The number format that a generator computes in.

In half precision the convolutions of the body take and give 16 bits, which is what fast matrix
units want. Statistics of norm layers stay in single precision (they see to that themselves), and so
does the last convolution: it costs little, and a product rounded to the eight bits of a bfloat16
mantissa would show bands.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geocyclegan.device import has_bf16
from geocyclegan.errors import OptionError
from geocyclegan.models.generator import Generator
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.padding import replace_padding
from geocyclegan.rounding import tf32

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
        return "bf16" if is_cuda and has_bf16(device) else "32"
    if asked == "bf16" and is_cuda and not has_bf16(device):
        raise OptionError(
            "--precision bf16: this GPU does not compute in bfloat16; choose fp16 or 32"
        )
    if asked == "fp16" and not is_cuda:
        raise OptionError("--precision fp16: it is for GPUs; choose bf16 or 32 on a CPU")
    if asked == "bf16" and not is_cuda and not has_bf16(device):
        log.warning(
            "--precision bf16: this processor has no bfloat16 instructions, so it is slower than 32"
        )
    return asked


def lower(generator: Generator, precision: Precision) -> None:
    """Have a generator compute in a precision; its inputs and outputs stay in single precision.

    Raises:
        ValueError: the precision is "auto", which `choose_precision` resolves.
    """
    if precision == "auto":
        raise ValueError("resolve the precision first")
    dtype = _DTYPES[precision]
    if dtype == torch.float32:
        return
    # What makes a style of an image is no part of the body, and small.
    body = [step.module for step in generator.plan if step.module is not None]
    if isinstance(generator, OpaqueGenerator):
        body = list(generator.network.modules())
    convolutions = [m for m in body if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    last = convolutions[-1]
    exact = {name: tensor.clone() for name, tensor in last.state_dict().items()}
    for module in body:
        module.to(dtype)
    last.to(torch.float32).load_state_dict(exact)
    if last.weight.is_cuda:
        # Tensor cores take channels last; other layouts are turned around at each convolution.
        generator.to(memory_format=torch.channels_last)
        replace_padding([generator])
    first = generator.network if isinstance(generator, OpaqueGenerator) else convolutions[0]
    first.register_forward_pre_hook(partial(_cast, dtype))
    last.register_forward_pre_hook(partial(_cast, torch.float32))


def rounded_products(precision: Precision) -> AbstractContextManager[None]:
    """Say whether CUDA may round what convolutions multiply to TF32, while a block runs.

    It does by default. In half precision that is what the last convolution can afford; otherwise
    single precision is meant, and so it is in the products of matrices, which statistics are made
    with.
    """
    return tf32(convolutions=precision != "32")


def _cast(dtype: torch.dtype, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Bring what a module takes into a type."""
    return tuple(value.to(dtype) for value in args)
