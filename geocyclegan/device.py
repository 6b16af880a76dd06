"""Where networks run, and what it can do."""

from __future__ import annotations

import torch

from geocyclegan.errors import OptionError


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device.

    Raises:
        OptionError: CUDA was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError("--device cuda: there is no CUDA device; use --device cpu")
    return torch.device(name)


AMPERE = (8, 0)
"""Compute capability of the first GPUs that have bf16 and TF32."""

_VOLTA = (7, 0)
"""That of the first ones whose matrix units take fp16."""

_SHORTAGES = (
    "DefaultCPUAllocator",
    "not enough memory",
    "could not create a memory",
    # CUDA's libraries, and page-locked memory, which have messages of their own.
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16; others emulate it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return any(_cpu_has(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 so fast that it pays to convert to it and back."""
    if device.type == "cuda":
        return has_bf16(device)
    # Matrix tiles were measured to make up for the conversions.
    return _cpu_has("amx_bf16")


def fast_fp16(device: torch.device) -> bool:
    """Whether a device multiplies halves on matrix units."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _VOLTA


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _SHORTAGES)


def _cpu_has(instructions: str) -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return bool(ask().get(instructions, False))
    # PyTorch 2.10 has no such list. CPUs that have matrix tiles at all have them for bf16.
    asking = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    ask = getattr(torch.cpu, asking.get(instructions, ""), None)
    return ask is not None and bool(ask())
