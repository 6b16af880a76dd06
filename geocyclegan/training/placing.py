"""How networks lie on their device: memory format, compilation, memory saving, repeatability."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import Discriminator, Generator, winograd
from geocyclegan.training.precision import PrecisionName

log = logging.getLogger(__name__)

_STEPS_THAT_PAY = 2000
"""Compiling takes a minute or more; shorter runs end sooner without."""

_VARIANTS = 64
"""Forms of the networks that may be compiled; PyTorch gives up after 8 unless told otherwise."""

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
        module.forward = partial(  # type: ignore[method-assign]
            winograd.forward, module, winograd.Kernels()
        )
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
    """Whether to compile: as asked for or, if None, where it pays: on CUDA, in long runs."""
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
            _compile(network)
            _try(network, shape, fabric)
    # Whatever goes wrong in a compiler is no reason not to train.
    except Exception as error:
        for network in chosen:
            network._compiled_call_impl = None
        line = (str(error).strip().splitlines() or ["no message"])[0]
        log.warning("networks are not compiled: %s: %s", type(error).__name__, line)
        return False
    # What was not tried (images with a mask, other batches) must not end a run either: PyTorch then
    # says why, and goes on without compiling that part.
    _dynamo().suppress_errors = True
    return True


def _compile(network: nn.Module) -> None:
    """Compile what a network does while it trains; a look at it now and then is not worth that."""
    # All networks count against one limit, each with and without masks, frozen, in two batches.
    options = _dynamo()
    options.recompile_limit = max(options.recompile_limit, _VARIANTS)
    network.compile()
    plain, compiled = network._call_impl, network._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = compiled if network.training and torch.is_grad_enabled() else plain
        return cast(Callable[..., Any], chosen)(*args, **kwargs)

    network._compiled_call_impl = call


def _dynamo() -> Any:
    """The options of PyTorch's compiler, which takes seconds to import."""
    from torch._dynamo import config

    return config


def _try(network: nn.Module, shape: tuple[int, int], fabric: Fabric) -> None:
    samples, side = shape
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    bands = cast(int, network.in_channels)
    # Spectral norms move with each pass.
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with torch.random.fork_rng(devices), fabric.autocast():
        images = torch.zeros(samples, bands, side, side, device=fabric.device)
        # In the numbers that the engine hands to a network, or it would compile once more.
        images = fabric.strategy.precision.convert_input(images)
        network(images).float().sum().backward()
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


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
