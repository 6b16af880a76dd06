"""Compilation: what a step of training runs is traced whole, once, and in the engine's numbers.

Seen with back ends that take the traced graph as it is, for which no compiler is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partialmethod
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from geocyclegan.models import (
    Discriminator,
    Generator,
    PatchDiscriminator,
    ResNetGenerator,
    build_generator,
)
from geocyclegan.models.dcgan import SceneJudge, SceneMaker
from geocyclegan.models.multiscale import MultiscaleDiscriminator
from geocyclegan.training import placing
from geocyclegan.training.placing import compile_networks


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A compiler that has seen nothing, and its options as they were."""
    from torch._dynamo import config

    monkeypatch.setattr(placing, "_compiler_missing", lambda device: None)
    torch._dynamo.reset()
    with config.patch(recompile_limit=8, suppress_errors=False):
        yield
    torch._dynamo.reset()


def compiled(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))


class Graphs:
    """A back end that counts."""

    def __init__(self) -> None:
        self.inputs: list[set[torch.dtype]] = []

    def __call__(self, graph: Any, examples: list[Any]) -> Any:
        self.inputs.append({each.dtype for each in examples if isinstance(each, Tensor)})
        return graph.forward

    def __len__(self) -> int:
        return len(self.inputs)


def images(samples: int, bands: int, masked: bool) -> tuple[Tensor, Tensor | None]:
    x = torch.rand(samples, bands, 32, 32) * 2 - 1
    if not masked:
        return x, None
    mask = torch.rand(samples, 1, 32, 32) > 0.3
    return x * mask, mask


def generator(bands_in: int = 2, bands_out: int = 3) -> Generator:
    return ResNetGenerator(bands_in, bands_out, width=2, blocks=1)


def judge(bands: int = 2, **options: Any) -> Discriminator:
    return PatchDiscriminator(bands, width=2, layers=1, **options)


def saving() -> Generator:
    network = generator()
    network.memory_saving = True
    return network


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("make", [generator, saving, judge])
def test_networks_are_traced_whole_and_compute_alike(
    make: Callable[[], nn.Module], masked: bool
) -> None:
    """With a mask, too, where activations overwrite what comes out of a norm."""
    torch.manual_seed(0)
    network = make()
    x, mask = images(2, 2, masked)
    whole = torch.compile(network, backend="aot_eager", fullgraph=True)
    found = []
    for forward in (network, whole):
        network.zero_grad()
        made = forward(x, mask)
        made.square().sum().backward()
        found.append([made, *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(found[0]) > 4
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_a_look_at_a_network_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    network = generator()
    assert compile_networks([network], (2, 32), Fabric(accelerator="cpu", devices=1))
    network.eval()
    with torch.no_grad():
        network(*images(1, 2, True))
    assert len(graphs) == 1
    network.train()(*images(2, 2, True))
    assert len(graphs) == 2


@pytest.mark.parametrize(
    ("network", "inputs", "moving"),
    [
        (generator(), images(2, 2, True), 0),
        (saving(), images(2, 2, False)[:1], 0),
        (judge(spectral_norm=True), images(2, 2, True), 6),
        (SceneJudge(2, size=16, width=2), (torch.rand(2, 2, 16, 16),), 3),
        (SceneMaker(2, size=16, width=2, noise=5), (torch.rand(2, 5),), 6),
        (build_generator("munit", in_channels=2, out_channels=3, width=2), images(2, 2, True), 0),
    ],
    ids=["resnet", "memory-saving", "spectral", "judge", "maker", "munit"],
)
def test_weights_and_buffers_are_read_where_they_lie(
    network: nn.Module, inputs: tuple[Tensor, ...], moving: int
) -> None:
    """Which is what CUDA graphs ask for: others are copied, or not recorded if they change."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.schemas import MutationType
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch._guards import TracingContext

    seen: list[Any] = []

    def look(graph: Any, examples: list[Any]) -> Any:
        context = TracingContext.try_get()
        assert context is not None
        seen.append((len(examples), context.fw_metadata))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=look, keep_inference_input_mutations=True)
    torch.compile(network, backend=backend, dynamic=False)(*inputs)
    ((count, found),) = seen
    assert count - len(found.static_input_indices) == len(inputs)
    moved = [
        number
        for number, info in enumerate(found.input_info)
        if info.mutation_type != MutationType.NOT_MUTATED
    ]
    assert len(moved) == moving
    assert set(moved) <= set(found.static_input_indices)


def test_networks_from_noise_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    maker, judge_ = SceneMaker(2, size=16, width=2, noise=5), SceneJudge(2, size=16, width=2)
    before = {name: value.clone() for name, value in maker.state_dict().items()}
    assert compile_networks([maker, judge_], (3, 16), Fabric(accelerator="cpu", devices=1))
    assert len(graphs) == 2
    assert all(torch.equal(value, before[name]) for name, value in maker.state_dict().items())
    judge_(maker(torch.rand(3, 5))).sum().backward()
    # Once more for the judge, whose images have gradients now.
    assert len(graphs) == 3


def test_what_a_network_is_made_of_is_compiled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    network = MultiscaleDiscriminator(2, width=2, layers=1, scales=2)
    assert compile_networks([network], (1, 32), Fabric(accelerator="cpu", devices=1))
    network(torch.rand(1, 2, 32, 32))
    assert len(graphs) == 1


@pytest.mark.slow
def test_all_forms_of_a_step_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch gives up after eight forms, of all networks together, unless told otherwise."""
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    generators, judges = [generator(2, 3), generator(3, 2)], [judge(2), judge(3)]
    networks: list[nn.Module] = [*generators, *judges]
    assert compile_networks(networks, (2, 32), Fabric(accelerator="cpu", devices=1))

    def step() -> None:
        for masked in (False, True):
            for network, bands in zip(networks, (2, 3, 2, 3), strict=True):
                for samples in (2, 4):
                    for frozen in (False, True) if network in judges else (False,):
                        network.requires_grad_(not frozen)
                        x, mask = images(samples, bands, masked)
                        network(x.requires_grad_(), mask).sum().backward()

    step()
    after = len(graphs)
    assert after > 8
    step()
    assert len(graphs) == after
    assert not torch._dynamo.utils.counters["unimplemented"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_tried_is_what_will_be_run(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    network = generator()
    placed = fabric.setup_module(network)
    assert compile_networks([network], (2, 32), fabric)
    assert len(graphs) == 1
    fabric.backward(placed(images(2, 2, False)[0]).sum())
    assert len(graphs) == 1
    assert (torch.bfloat16 in graphs.inputs[0]) == (precision == "bf16-mixed")


def test_trying_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(monkeypatch, "eager")
    network = judge(spectral_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    assert compile_networks([network], (1, 32), Fabric(accelerator="cpu", devices=1))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_a_trial_that_fails_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: nn.Module) -> None:
        def call(x: Tensor) -> Tensor:
            network._call_impl(x).sum().backward()  # type: ignore[no-untyped-call]
            raise RuntimeError("too late")

        network._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", broken)
    network = judge(spectral_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert not compile_networks([network], (1, 32), Fabric(accelerator="cpu", devices=1))
    assert network._compiled_call_impl is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_a_form_that_does_not_compile_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fussy(graph: Any, examples: list[Any]) -> Any:
        if any(isinstance(each, Tensor) and each.dtype == torch.bool for each in examples):
            raise RuntimeError("masks are beyond me")
        return graph.forward

    compiled(monkeypatch, fussy)
    network = generator()
    plain = network(*images(1, 2, False)).shape
    assert compile_networks([network], (1, 32), Fabric(accelerator="cpu", devices=1))
    assert network(*images(1, 2, True)).shape == plain
