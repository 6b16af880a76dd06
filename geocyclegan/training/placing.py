"""How networks lie on their device: memory format, compilation, memory saving, repeatability."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from geocyclegan.errors import OptionError
from geocyclegan.models import Discriminator, Generator, winograd
from geocyclegan.models.dcgan import SceneJudge, SceneMaker
from geocyclegan.models.style import StyledGenerator
from geocyclegan.rounding import Tf32
from geocyclegan.training.graphs import Graphs
from geocyclegan.training.precision import PrecisionName

log = logging.getLogger(__name__)

_STEPS_THAT_PAY = 2000
"""Compiling takes a minute or more; shorter runs end sooner without."""

_VARIANTS = 64
"""Forms of the networks that may be compiled; PyTorch gives up after 8 unless told otherwise."""

_PARTS = (Generator, Discriminator, SceneMaker, SceneJudge)

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"

_MEMORY: Any = torch.utils.deterministic
"""A module whose property type checkers do not know."""

_CHANGED: list[tuple[Any, str, Any]] = []
"""Options of PyTorch's compiler that were set for a run: where, which, and what they were."""


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore afterwards what a run sets for all of the process, which may be a notebook's."""
    rounding, cudnn = Tf32.now(), torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    strict = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    filling, changed = _MEMORY.fill_uninitialized_memory, len(_CHANGED)
    try:
        yield
    finally:
        while len(_CHANGED) > changed:
            options, name, value = _CHANGED.pop()
            setattr(options, name, value)
        _MEMORY.fill_uninitialized_memory = filling
        rounding.restore()
        cudnn.deterministic, cudnn.benchmark = before
        torch.use_deterministic_algorithms(strict, warn_only=warns)


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
    # All memory that is taken is written before it is read; to fill it first is for finding faults.
    _MEMORY.fill_uninitialized_memory = False
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
        OptionError: there is no generator, or one has no plan by which it could.
    """
    generators = [part for part in _parts(networks) if isinstance(part, Generator)]
    if not generators:
        raise OptionError(
            "--memory-saving: it is for generators that translate, and the method has none; leave"
            " it out"
        )
    for network in generators:
        if isinstance(network, StyledGenerator):
            # Its norm layers hold the style of one pass, which the backward pass would not find.
            raise OptionError(
                "--memory-saving: munit's generators must keep their activations; leave it out, or"
                " give a smaller --crop"
            )
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


def require_graphs(device: torch.device) -> None:
    """Refuse recordings where there can be none.

    Raises:
        OptionError: says what is missing.
    """
    if device.type != "cuda":
        raise OptionError(
            "--cuda-graphs: this run is on a CPU, and it is for CUDA devices; leave it out, or give"
            " --no-cuda-graphs"
        )
    missing = _compiler_missing(device)
    if missing is not None:
        raise OptionError(f"--cuda-graphs: networks must be compiled for it, and {missing}")


def compile_networks(
    networks: Sequence[nn.Module],
    trial: Callable[[], object],
    device: torch.device,
    graphs: Graphs | None = None,
) -> bool:
    """Compile networks in place and try them; where that fails, say why and go on without.

    Args:
        networks: on their device.
        trial: runs them in all forms that training calls them in, and leaves no trace.
        device: where they are.
        graphs: whether networks run from recordings; put off where they cannot. None: they do not.

    Returns:
        Whether they are compiled.
    """
    graphs = graphs or Graphs()
    missing = _compiler_missing(device)
    if missing is not None:
        log.warning("networks are not compiled: %s", missing)
        graphs.on = False
        return False
    # All networks count against one limit, each with and without masks, frozen, in two batches.
    options, ways = _dynamo(), 2 if graphs.on else 1
    _set(options, "recompile_limit", max(options.recompile_limit, ways * _VARIANTS))
    _set(options, "suppress_errors", False)
    if torch.are_deterministic_algorithms_enabled():
        # It chooses kernels by timing them otherwise, and sums in another order with another one.
        _set(_inductor(), "deterministic", True)
    chosen = list(_parts(networks))
    if graphs.on and not _compiled(chosen, trial, graphs):
        graphs.on = False
    if not graphs.on and not _compiled(chosen, trial, graphs):
        return False
    # What was not tried (images with a mask, other batches) must not end a run either: PyTorch then
    # says why, and goes on without compiling that part.
    _set(options, "suppress_errors", True)
    return True


def _compiled(networks: Sequence[nn.Module], trial: Callable[[], object], graphs: Graphs) -> bool:
    """Compile and try networks in one way; whether it succeeded."""
    said = "compiled with CUDA graphs" if graphs.on else "compiled"
    skipped = _skipped() if graphs.on else 0
    try:
        for network in networks:
            _compile(network, graphs)
        # It runs, is recorded, and is run from the recording.
        for _ in range(3 if graphs.on else 1):
            graphs.begin()
            trial()
    # Whatever goes wrong in a compiler is no reason not to train.
    except Exception as error:
        for network in networks:
            network._compiled_call_impl = None
        if graphs.on:
            # What has been recorded gives its memory back.
            torch.compiler.reset()
        line = (str(error).strip().splitlines() or ["no message"])[0]
        log.warning("networks are not %s: %s: %s", said, type(error).__name__, line)
        return False
    if graphs.on and _skipped() > skipped:
        log.warning(
            "--cuda-graphs: PyTorch leaves %d parts of the networks out; TORCH_LOGS=perf_hints says"
            " why",
            _skipped() - skipped,
        )
    return True


def _skipped() -> int:
    """How many parts PyTorch's compiler has compiled so far that it would not record."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def _compile(network: nn.Module, graphs: Graphs) -> None:
    """Compile what a network does while it trains; a look at it now and then is not worth that."""
    # Nothing changes its shape in training but the number of samples, which has two values. Code
    # for any number is slower: the compiler chooses neither memory format nor tiles by it.
    network.compile(dynamic=False)
    plain, compiled = network._call_impl, network._compiled_call_impl
    recorded = compiled
    if graphs.on:
        network.compile(mode="reduce-overhead", dynamic=False)
        recorded = network._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        chosen: Callable[..., Any] | None = plain
        if network.training and torch.is_grad_enabled():
            chosen = recorded if graphs.on and graphs.replaying else compiled
        return cast(Callable[..., Any], chosen)(*args, **kwargs)

    network._compiled_call_impl = call


def _dynamo() -> Any:
    """The options of PyTorch's compiler, which takes seconds to import."""
    from torch._dynamo import config

    return config


def _inductor() -> Any:
    """The options of what it generates code with."""
    from torch._inductor import config

    return config


def _set(options: Any, name: str, value: Any) -> None:
    """Set an option of the compiler until `settings_kept` ends."""
    _CHANGED.append((options, name, getattr(options, name)))
    setattr(options, name, value)


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
    """Generators and discriminators, whoever owns them; those that one is made of belong to it."""
    within: set[nn.Module] = set()
    for network in networks:
        for part in network.modules():
            if isinstance(part, _PARTS) and part not in within:
                within.update(part.modules())
                yield part
