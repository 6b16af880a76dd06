"""How networks lie on their device: memory format, compilation, memory saving, repeatability."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch
from lightning.fabric import Fabric
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import Discriminator, Generator, winograd
from geocyclegan.training.precision import PrecisionName

log = logging.getLogger(__name__)

_STEPS_THAT_PAY = 2000
"""Compiling takes a minute or more; shorter runs end sooner without."""

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def repeatable(deterministic: bool, device: torch.device) -> None:
    """Choose between the fastest algorithms and those that give the same bits every time.

    To be called before CUDA is used.

    Raises:
        OptionError: the environment forbids repeatable products.
    """
    if deterministic and device.type == "cuda":
        found = os.environ.setdefault(_CUBLAS, ":4096:8")
        if found not in (":4096:8", ":16:8"):
            raise OptionError(
                f"--deterministic: the environment has {_CUBLAS}={found}; unset it or use :4096:8"
            )
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    # Timing each algorithm first, which one is fastest differs from run to run.
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic


def lay(network: nn.Module, device: torch.device, precision: PrecisionName) -> None:
    """Choose how a network convolves, and lay its weights as that is fastest.

    Matrix units of both CUDA devices and CPUs take channels together. For a CPU in fp32 there are
    convolutions with fewer multiplications (`models.winograd`), which take channels together, too;
    networks that have no use for them were faster with pixels together (measured on a CPU).

    Args:
        network: on its device.
        device: where that is.
        precision: what its convolutions run in.
    """
    together = precision != "32"
    if device.type == "cpu" and precision == "32":
        together = _convolve_fast(network)
    network.to(memory_format=torch.channels_last if together else torch.contiguous_format)


def _convolve_fast(network: nn.Module) -> bool:
    """Let generators convolve with fewer multiplications where that is faster; whether any does."""
    chosen = [
        module
        for part in _parts([network])
        if isinstance(part, Generator)
        for module in part.modules()
        if isinstance(module, nn.Conv2d) and winograd.pays(module)
    ]
    for module in chosen:
        module.forward = partial(winograd.forward, module)  # type: ignore[method-assign]
    return bool(chosen)


def save_memory(networks: Sequence[nn.Module]) -> None:
    """Let generators compute activations again in the backward pass.

    Raises:
        OptionError: a generator has no plan by which it could.
    """
    for network in _parts(networks):
        if isinstance(network, Generator):
            if not network.plan:
                raise OptionError(
                    f"--memory-saving: {type(network).__name__} runs in one piece; choose another"
                    " --generator, or a smaller --crop"
                )
            network.memory_saving = True


def wants_compile(asked: bool | None, device: torch.device, steps: int) -> bool:
    """Decide about compilation where nobody has."""
    if asked is not None:
        return asked
    return device.type == "cuda" and steps >= _STEPS_THAT_PAY and _compiler_missing(device) is None


def compile_networks(networks: Sequence[nn.Module], shape: tuple[int, int], fabric: Fabric) -> bool:
    """Compile networks in place and try them; where that fails, say why and go on without.

    Args:
        networks: on their device.
        shape: (samples, side) of the images they will see.
        fabric: names the device and the precision.

    Returns:
        Whether they are compiled.
    """
    missing = _compiler_missing(fabric.device)
    if missing is not None:
        log.warning("networks are not compiled: %s", missing)
        return False
    chosen = list(_parts(networks))
    try:
        for network in chosen:
            network.compile()
            _try(network, shape, fabric)
    # Whatever goes wrong in a compiler is no reason not to train.
    except Exception as error:
        for network in chosen:
            network._compiled_call_impl = None
        line = (str(error).strip().splitlines() or ["no message"])[0]
        log.warning("networks are not compiled: %s: %s", type(error).__name__, line)
        return False
    return True


def _try(network: nn.Module, shape: tuple[int, int], fabric: Fabric) -> None:
    samples, side = shape
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    bands = cast(int, network.in_channels)
    with torch.random.fork_rng(devices), fabric.autocast():
        images = torch.zeros(samples, bands, side, side, device=fabric.device)
        network(images).float().sum().backward()
    network.zero_grad(set_to_none=True)


def _compiler_missing(device: torch.device) -> str | None:
    if device.type == "cuda":
        try:
            found = importlib.util.find_spec("triton")
        except (ImportError, ValueError):
            found = None
        if found is None:
            return "there is no Triton for this installation of PyTorch"
        return None
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        return f"there is no C++ compiler ({compiler}); install one, or name it in CXX"
    return None


def _parts(networks: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Generators and discriminators, whoever owns them."""
    for network in networks:
        for part in network.modules():
            if isinstance(part, Generator | Discriminator) and hasattr(part, "in_channels"):
                yield part
