"""Which numbers the networks compute in: what the device runs fast, or what was asked for.

Whatever the choice, weights and optimisers are in single precision, and so are the statistics of
norm layers and the losses, which the networks' and the methods' own code sees to.
"""

from __future__ import annotations

import logging
from typing import Literal, cast

import torch
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT

from geocyclegan.device import AMPERE, fast_bf16, fast_fp16, has_bf16
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
        chosen: PrecisionName = "bf16" if fast_bf16(device) else "32"
        log.info("%s", describe_choice(chosen, device))
        return chosen
    if device.type == "cpu" and asked in ("tf32", "fp16"):
        raise OptionError(
            f"--precision {asked}: a CPU trains in 32 or bf16; give --precision auto or 32"
        )
    if asked == "bf16" and not has_bf16(device):
        raise OptionError(
            f"--precision bf16: {_device_name(device)} has no bf16 instructions and would emulate"
            " them, many times slower than 32; give --precision 32"
        )
    if asked == "tf32" and torch.cuda.get_device_capability(device) < AMPERE:
        raise OptionError(
            f"--precision tf32: {_device_name(device)} has no TF32, which came with compute"
            " capability 8.0; give --precision 32 or fp16"
        )
    return cast(PrecisionName, asked)


def describe_choice(chosen: PrecisionName, device: torch.device) -> str:
    """Say what "auto" became, and what else could be."""
    said = f"precision: {chosen}, chosen for {_device_name(device)}"
    if chosen != "32":
        return f"{said}; --precision 32 computes in single precision"
    if fast_fp16(device):
        return f"{said}, which has no bf16; it is made to multiply fp16: try --precision fp16"
    return said


def is_worth_saying(chosen: PrecisionName, device: torch.device) -> bool:
    """Whether users should hear of a choice: where it costs digits, or could be a faster one."""
    return chosen != "32" or fast_fp16(device)


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


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
