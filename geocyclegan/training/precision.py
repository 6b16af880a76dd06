"""Which numbers the networks compute in: what the device runs fast, or what was asked for.

Whatever the choice, weights and optimisers are in single precision, and so are the statistics of
norm layers and the losses, which the networks' and the methods' own code sees to.
"""

from __future__ import annotations

import logging
from typing import Literal, cast

import torch
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT

from geocyclegan.errors import OptionError
from geocyclegan.rounding import allow_tf32

log = logging.getLogger(__name__)

PrecisionName = Literal["32", "tf32", "bf16", "fp16"]
_FABRIC: dict[str, str] = {
    "32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
_AMPERE = (8, 0)


def choose_precision(asked: str, device: torch.device) -> PrecisionName:
    """Turn "auto" into what the device runs fast, and refuse what it cannot run.

    Args:
        asked: "auto", or a precision by name.
        device: where the networks will be.

    Returns:
        What will happen; never "auto".

    Raises:
        OptionError: the device has no such arithmetic, or only emulates it.
    """
    if asked == "auto":
        chosen: PrecisionName = "bf16" if _fast_bf16(device) else "32"
        log.info("%s", describe_choice(chosen, device))
        return chosen
    if device.type == "cpu" and asked in ("tf32", "fp16"):
        raise OptionError(
            f"--precision {asked}: a CPU trains in 32 or bf16; give --precision auto or 32"
        )
    if asked == "bf16" and not _has_bf16(device):
        raise OptionError(
            f"--precision bf16: {_device_name(device)} has no bf16 instructions and would emulate"
            " them, many times slower than 32; give --precision 32"
        )
    if asked == "tf32" and torch.cuda.get_device_capability(device) < _AMPERE:
        raise OptionError(
            f"--precision tf32: {_device_name(device)} has no TF32, which came with compute"
            " capability 8.0; give --precision 32 or fp16"
        )
    return cast(PrecisionName, asked)


def describe_choice(chosen: PrecisionName, device: torch.device) -> str:
    """Say what "auto" became."""
    said = f"precision: {chosen}, chosen for {_device_name(device)}"
    return said if chosen == "32" else f"{said}; --precision 32 computes in single precision"


def fabric_precision(name: PrecisionName) -> _PRECISION_INPUT:
    """Return Fabric's name of a precision."""
    return cast(_PRECISION_INPUT, _FABRIC[name])


def set_float32(name: PrecisionName) -> None:
    """Let CUDA round products of single precision to TF32, or keep it from that.

    It does so in convolutions by default, so single precision must be asked for.
    """
    # Half precision has nothing to lose by it in what is left in single precision.
    allowed = name != "32"
    allow_tf32(allowed, allowed)


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    # Matrix tiles were measured to make up for the conversions.
    return _cpu_has("amx_bf16")


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return _cpu_has("amx_bf16") or _cpu_has("avx512_bf16") or _cpu_has("bf16")


def _cpu_has(instructions: str) -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return bool(ask().get(instructions, False))
    # PyTorch 2.10 has no such list. CPUs that have matrix tiles at all have them for bf16.
    asking = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    ask = getattr(torch.cpu, asking.get(instructions, ""), None)
    return ask is not None and bool(ask())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
