"""Compilation: what a step of training runs is traced whole, once, for its own sizes and numbers.

Seen with back ends that take the traced graph as it is, for which no compiler is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from geocyclegan.catalogue import METHODS
from geocyclegan.methods import Batch, NetworkSpec, build_method
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
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.engine import Engine
from geocyclegan.training.placing import compile_networks, settings_kept
from geocyclegan.training.ranks import Layout, launch
from geocyclegan.training.resolve import method_options


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
        self.for_any_size = 0

    def __call__(self, graph: Any, examples: list[Any]) -> Any:
        self.inputs.append({each.dtype for each in examples if isinstance(each, Tensor)})
        self.for_any_size += any(isinstance(each, torch.SymInt) for each in examples)
        return graph.forward

    def __len__(self) -> int:
        return len(self.inputs)


def images(samples: int, bands: int, masked: bool) -> tuple[Tensor, Tensor | None]:
    x = torch.rand(samples, bands, 32, 32) * 2 - 1
    if not masked:
        return x, None
    mask = torch.rand(samples, 1, 32, 32) > 0.3
    return x * mask, mask


CPU = torch.device("cpu")


def trial(*networks: nn.Module, side: int = 32) -> Callable[[], None]:
    """Run networks in one form."""

    def run() -> None:
        for network in networks:
            bands = network.noise if isinstance(network, SceneMaker) else network.in_channels
            shape = (2, bands) if isinstance(network, SceneMaker) else (2, bands, side, side)
            network(torch.rand(*shape)).sum().backward()
            network.zero_grad()

    return run


def engine_of(name: str, precision: Any = "32", **options: Any) -> Engine:
    torch.manual_seed(0)
    own = METHODS[name].generators
    spec = NetworkSpec(
        bands_a=2,
        bands_b=3,
        shared_bands=((1, 0),),
        generator=own[0] if own else "resnet6",
        generator_args={"width": 2},
        discriminator_args={"width": 2, "spectral_norm": True},
        crop=32,
        classes=3,
    )
    defaults = method_options(TrainConfig(method=name).with_defaults())
    method = build_method(
        name, spec, **(defaults | {"pool_size": 2} if "pool" in METHODS[name].options else defaults)
    )
    fabric = launch(Layout(1, 1), CPU, precision)
    return Engine(method, fabric, precision, **options)


def batch_of(seed: int, masked: bool = False) -> Batch:
    torch.manual_seed(seed)
    (a, mask), (b, _) = images(2, 2, masked), images(2, 3, False)
    b = b if mask is None else b * mask
    return Batch(a, b, mask, mask, labels_a=torch.randint(-1, 3, (2, 32, 32)))


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
    assert compile_networks([network], trial(network), CPU)
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
    assert compile_networks([maker, judge_], trial(maker, judge_, side=16), CPU)
    assert len(graphs) == 2
    judge_(maker(torch.rand(2, 5))).sum().backward()
    # Once more for the judge, whose images have gradients now.
    assert len(graphs) == 3


def test_what_a_network_is_made_of_is_compiled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    network = MultiscaleDiscriminator(2, width=2, layers=1, scales=2)
    assert compile_networks([network], trial(network), CPU)
    network(torch.rand(2, 2, 32, 32))
    assert len(graphs) == 1


@pytest.mark.slow
def test_all_forms_of_a_step_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch gives up after eight forms, of all networks together, unless told otherwise."""
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    generators, judges = [generator(2, 3), generator(3, 2)], [judge(2), judge(3)]
    networks: list[nn.Module] = [*generators, *judges]
    assert compile_networks(networks, trial(*networks), CPU)

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


@pytest.mark.parametrize(
    "name",
    ["cyclegan", *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "cyclegan")],
)
def test_what_is_tried_is_what_will_be_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, and by code for the sizes there are; only masks are still to come."""
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    engine = engine_of(name, compiled=True)
    counts = []
    engine.prepare(batch_of(0))
    counts.append(len(graphs))
    for seed in range(3):
        engine.step(batch_of(seed))
        counts.append(len(graphs))
    assert len(counts) == 4
    assert set(counts) == {len(graphs)}
    assert len(graphs) >= len(engine.networks) - (name in ("cut", "fastcut", "semantic"))
    for masked in (True, True):
        engine.step(batch_of(9, masked))
        counts.append(len(graphs))
    assert counts[-1] == counts[-2]
    assert graphs.for_any_size == 0


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_what_is_compiled_is_in_the_numbers_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    graphs = Graphs()
    compiled(monkeypatch, graphs)
    engine_of("pix2pix", precision, compiled=True).step(batch_of(0))
    assert (torch.bfloat16 in graphs.inputs[0]) == (precision == "bf16")


def state_of(engine: Engine) -> list[Any]:
    own = engine.method.state_dict(), engine.method.extra_state(), torch.get_rng_state()
    return [*tree_leaves(own), *(w.grad for w in engine.method.parameters() if w.grad is not None)]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_trial_moves_nothing(name: str, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, means and spectral norms, pools, gradients and random numbers."""

    def as_it_is(network: nn.Module, **options: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            return network._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

        network._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", as_it_is)
    if fails:
        backward = Engine._backward

        def broken(self: Engine, loss: Tensor) -> None:
            backward(self, loss)
            raise RuntimeError("too late")

        monkeypatch.setattr(Engine, "_backward", broken)
    engine = engine_of(name, compiled=True)
    moved = []
    tried = engine.method.step

    def step(*args: Any) -> Any:
        try:
            return tried(*args)
        finally:
            moved.append(not same(state_of(engine), before))

    monkeypatch.setattr(engine.method, "step", step)
    before = state_of(engine)
    engine.prepare(batch_of(0))
    torch.set_rng_state(before[-1])
    assert moved == [True]
    assert same(state_of(engine), before)
    ways = [m._compiled_call_impl for each in engine.networks for m in each.modules()]
    assert any(way is not None for way in ways) != fails


def test_a_run_leaves_the_compiler_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import config
    from torch._inductor import config as inductor

    compiled(monkeypatch, "eager")
    network = generator()
    try:
        with settings_kept():
            torch.use_deterministic_algorithms(True)
            assert compile_networks([network], trial(network), CPU)
            assert config.suppress_errors
            assert config.recompile_limit > 8
            assert inductor.deterministic
    finally:
        torch.use_deterministic_algorithms(False)
    assert (config.suppress_errors, config.recompile_limit) == (False, 8)
    assert not inductor.deterministic


def test_a_form_that_does_not_compile_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fussy(graph: Any, examples: list[Any]) -> Any:
        if any(isinstance(each, Tensor) and each.dtype == torch.bool for each in examples):
            raise RuntimeError("masks are beyond me")
        return graph.forward

    compiled(monkeypatch, fussy)
    network = generator()
    plain = network(*images(1, 2, False)).shape
    assert compile_networks([network], trial(network), CPU)
    assert network(*images(1, 2, True)).shape == plain
