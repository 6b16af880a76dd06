"""CUDA graphs, as far as they can be seen without a GPU: what outlives a pass is a copy.

In place of PyTorch's recordings there is memory that is lent out in a pass, and spoilt when the
next one begins: all that a network answers with, and all gradients of its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from geocyclegan.catalogue import METHODS
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError, TrainingError
from geocyclegan.methods import Batch, Method, NetworkSpec, build_method
from geocyclegan.models import build_discriminator
from geocyclegan.training import placing
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.engine import Engine
from geocyclegan.training.graphs import Graphs, form_of
from geocyclegan.training.loop import train
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.placing import compile_networks, require_graphs
from geocyclegan.training.ranks import Layout
from geocyclegan.training.resolve import method_options, resolve
from geocyclegan.training.starting import config_on
from geocyclegan.training.state import TrainingState

MakeConfig = Callable[..., TrainConfig]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIDE = 32


class Recorder:
    """Stands for PyTorch's compiler and its recordings.

    Attributes:
        marks: how often memory was claimed back.
        runs: how often networks ran from recordings.
        plain: how often they ran compiled and no more.
        asked: what the compiler was asked for.
    """

    def __init__(self) -> None:
        self.marks = self.runs = self.plain = 0
        self.asked: list[dict[str, Any]] = []
        self._lent: list[tuple[torch.UntypedStorage, torch.dtype]] = []

    def compile(self, network: nn.Module, **options: Any) -> None:
        self.asked.append(options)
        own: Callable[..., Tensor] = network._call_impl
        recorded = "mode" in options

        def call(*args: Any, **kwargs: Any) -> Tensor:
            if not recorded:
                self.plain += 1
                return own(*args, **kwargs)
            self.runs += 1
            out: Tensor = _Lent.apply(own(*args, **kwargs), self)
            return out

        network._compiled_call_impl = call
        if recorded:
            for weight in network.parameters():
                weight.register_hook(self.lend)  # type: ignore[no-untyped-call]

    def lend(self, x: Tensor) -> Tensor:
        out = x.clone()
        self._lent.append((out.untyped_storage(), out.dtype))
        return out

    def is_lent(self, x: Tensor) -> bool:
        return any(x.untyped_storage().data_ptr() == s.data_ptr() for s, _ in self._lent)

    def mark(self) -> None:
        self.marks += 1
        for storage, dtype in self._lent:
            spoilt = float("nan") if dtype.is_floating_point else 1
            torch.empty(0, dtype=dtype).set_(storage).fill_(spoilt)
        self._lent.clear()


class Tracer(Recorder):
    """The same for traced code, which lends what it needs for the way back, too."""

    def compile(self, network: nn.Module, **options: Any) -> None:
        from torch._dynamo.backends.common import aot_autograd
        from torch._functorch._aot_autograd.utils import make_boxed_func

        def lending(graph: Any, examples: list[Any]) -> Any:
            def run(*inputs: Any) -> Any:
                self.runs += 1
                given = {_place(x) for x in inputs if isinstance(x, Tensor)}
                found = graph.forward(*inputs)
                for x in found:
                    if isinstance(x, Tensor) and _place(x) not in given:
                        self._lent.append((x.untyped_storage(), x.dtype))
                return found

            return make_boxed_func(run)

        backend = aot_autograd(fw_compiler=lending, keep_inference_input_mutations=True)
        self.asked.append(options)
        network._compiled_call_impl = torch.compile(
            network._call_impl, backend=backend, dynamic=False
        )


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, recorder: Recorder) -> Tensor:
        ctx.recorder = recorder
        return recorder.lend(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.recorder.lend(grad), None


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(nn.Module, "compile", lambda self, **o: found.compile(self, **o))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", found.mark)
    monkeypatch.setattr(placing, "_compiler_missing", lambda device: None)
    monkeypatch.setattr("geocyclegan.training.starting.require_graphs", lambda device: None)
    return found


class Run:
    """A method as `TrainingState` holds it."""

    def __init__(self, name: str, on: bool, **options: Any) -> None:
        torch.manual_seed(0)
        own = METHODS[name].generators
        spec = NetworkSpec(
            bands_a=2,
            bands_b=3,
            shared_bands=((1, 0),),
            generator=own[0] if own else "resnet6",
            generator_args={"width": 2},
            discriminator_args={"width": 2, "spectral_norm": True},
            crop=SIDE,
            classes=3,
        )
        if "pairs" in METHODS[name].options:
            options = {"pair_weight": 1.0, "weak_weight": 1.0} | options
        defaults = method_options(TrainConfig(method=name).with_defaults())
        self.method: Method = build_method(name, spec, **(defaults | options))
        generators: dict[Any, Any] = {**self.method.generators(), **self.method.makers()}
        self.engine = Engine(self.method, Fabric(accelerator="cpu", devices=1), "32", recorded=on)
        self.mean, self.meter = RunningMean(generators, 0.9), LossMeter()
        torch.manual_seed(1)

    def advance(self, number: int, *batches: Batch) -> None:
        self.meter.add(number, *self.engine.step(*batches))
        self.mean.update(number)

    def state(self) -> list[Tensor]:
        own = (self.method.state_dict(), self.method.extra_state(), self.mean.state_dict())
        return [each for each in tree_leaves(own) if isinstance(each, Tensor)]


def trial(*networks: nn.Module) -> Callable[[], None]:
    def run() -> None:
        for network in networks:
            network(torch.rand(2, 2, SIDE, SIDE)).sum().backward()
            network.zero_grad()

    return run


def batch_of(seed: int, masked: bool, hinted: bool = True) -> Batch:
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, n, SIDE, SIDE, generator=random) * 2 - 1 for n in (2, 3))
    labels = torch.randint(-1, 3, (2, SIDE, SIDE), generator=random)
    mask = torch.rand(2, 1, SIDE, SIDE, generator=random) < 0.7 if masked else None
    if mask is not None:
        a, b = a * mask, b * mask
    hints = batch_of(seed + 99, False, False) if hinted else None
    return Batch(a, b, mask, mask, hints, hints, labels_a=labels)


TERMS: dict[str, Any] = {
    "cycle_critic": 1.0,
    "cycle_features": 0.5,
    "gradient_loss": 1.0,
    "angle_loss": 1.0,
    "pool_size": 2,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in METHODS),
        ("cyclegan", TERMS),
        ("cyclegan", {"gan_loss": "wgan-gp", "pool_size": 0}),
    ],
)
def test_nothing_of_a_pass_is_looked_at_after_it(
    name: str, options: dict[str, Any], recorder: Recorder
) -> None:
    found = []
    for on in (False, True):
        run = Run(name, on, **options)
        for step, seeds in enumerate([(0,), (1,), (2, 3, 4)], start=1):
            run.advance(step, *(batch_of(seed, seed % 2 == 1) for seed in seeds))
        # What a checkpoint or a panel would see comes after the last pass.
        recorder.mark()
        found.append([*run.state(), torch.tensor(list(run.meter.take().values()))])
    assert recorder.runs > 6
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "name", ["dcgan", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cyclegan", "munit"))]
)
def test_code_finds_what_it_has_left(
    name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo import config

    tracer, found = Tracer(), []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **o: tracer.compile(self, **o))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", tracer.mark)
    torch._dynamo.reset()
    with config.patch(recompile_limit=64, suppress_errors=False):
        for on in (False, True):
            run = Run(name, on)
            for step, seeds in enumerate([(0,), (2, 3)], start=1):
                run.advance(step, *(batch_of(seed, seed % 2 == 1, False) for seed in seeds))
            tracer.mark()
            found.append(run.state())
            found[-1].append(torch.tensor(list(run.meter.take().values())))
    torch._dynamo.reset()
    assert tracer.runs > 10
    for one, two in zip(*found, strict=True):
        assert bool(torch.isfinite(two).all())
        # Traced operations are others, and Adam makes whole steps of what is nearly 0.
        torch.testing.assert_close(one, two, rtol=0.1, atol=0.02)


def test_gradients_are_lent_and_would_be_spoilt(recorder: Recorder) -> None:
    """The recorder here would notice."""
    run = Run("cyclegan", True)
    run.advance(1, batch_of(0, False))
    run.engine.passes.lent = False
    run.advance(2, batch_of(0, False))
    assert any(recorder.is_lent(w.grad) for w in run.method.parameters() if w.grad is not None)
    run.advance(3, batch_of(1, False), batch_of(2, False))
    assert not all(bool(torch.isfinite(weight).all()) for weight in run.method.parameters())


def test_images_are_lent_and_would_be_spoilt(recorder: Recorder) -> None:
    run = Run("cyclegan", True)
    run.advance(1, batch_of(0, False))
    run.engine.graphs.begin(batch_of(0, False))
    made = run.method.generators()["a2b"](batch_of(0, False).a, None)
    assert bool(torch.isfinite(made).all())
    run.engine.graphs.begin(batch_of(1, False))
    assert bool(torch.isnan(made).all())


def test_a_run_is_the_same_and_marks_each_pass(tiny: MakeConfig, recorder: Recorder) -> None:
    """Checkpoints, panels, validations and a resumed run included."""
    options = {"ema": 0.9, "accumulate": 2, "precision": "32", "steps": 4, "save_every": 2}
    plain = train(tiny(**options, name="plain")).run
    assert (recorder.marks, recorder.asked) == (0, [])
    run = train(tiny(**options, cuda_graphs=True)).run
    networks, trials, passes = 4, 3, 4 * 2
    assert recorder.marks == trials + passes
    ways = [{"dynamic": False}, {"mode": "reduce-overhead", "dynamic": False}]
    assert recorder.asked == ways * networks
    _assert_same(run, plain)
    (run / "checkpoints" / "step_0000004.pt").unlink()
    marks = recorder.marks
    train(tiny(**options, cuda_graphs=True), resume=True)
    assert recorder.marks == marks + trials + 2 * 2
    _assert_same(run, plain)
    (run / "checkpoints" / "step_0000004.pt").unlink()
    marks = recorder.marks
    train(tiny(**options, cuda_graphs=False), resume=True)
    assert recorder.marks == marks
    _assert_same(run, plain)


def _assert_same(one: Path, two: Path) -> None:
    names = ["log.csv", "validation.csv", "model/model.safetensors"]
    names += [f"panels/{path.name}" for path in sorted((two / "panels").iterdir())]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    states = [
        torch.load(run / "checkpoints" / "step_0000004.pt", weights_only=True) for run in (one, two)
    ]
    for key in ("networks", "optimizers", "extra", "mean", "meter"):
        for ours, theirs in zip(*(tree_leaves(state[key]) for state in states), strict=True):
            same = torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
            assert same, key


def test_no_gradient_outlives_its_step(recorder: Recorder) -> None:
    run = Run("cyclegan", True)
    run.advance(1, batch_of(0, False), batch_of(1, False))
    assert all(weight.grad is None for weight in run.method.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_weights_and_buffers_stay_where_they_are(name: str, recorder: Recorder) -> None:
    """Recordings read them there."""
    run = Run(name, True)

    def places() -> list[int]:
        return [each.data_ptr() for each in run.method.state_dict(keep_vars=True).values()]

    before = places()
    for step in range(2):
        run.advance(step + 1, batch_of(step, False))
        with run.mean.applied():
            run.method.validate(batch_of(9, False))
            run.method.show(batch_of(9, False))
    assert places() == before


def test_forms_beyond_some_run_without_recordings(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = Graphs(True)
    batch = batch_of(0, False)
    forms = [replace(batch, a=batch.a[:, :, : 8 + i]) for i in range(10)]
    for each in forms[:8]:
        graphs.begin(each)
        assert graphs.replaying
    for each in forms[8:]:
        graphs.begin(each)
        assert not graphs.replaying
    graphs.begin(forms[0])
    assert graphs.replaying
    lines = [r.getMessage() for r in caplog.records]
    assert lines == [
        "--cuda-graphs: the batches have more than 8 forms (with and without nodata and pairs);"
        " the networks run without recordings on the others"
    ]
    network = build_discriminator("patch70", in_channels=2, width=2)
    compile_networks([network], trial(network), CPU, graphs)
    for each, expected in ((forms[0], (1, 0)), (forms[9], (0, 1))):
        recorder.runs = recorder.plain = 0
        graphs.begin(each)
        network(batch.a)
        assert (recorder.runs, recorder.plain) == expected


def test_a_form_is_what_code_depends_on() -> None:
    plain, masked = batch_of(0, False), batch_of(0, True)
    assert form_of(plain) == form_of(batch_of(5, False))
    others = [
        masked,
        replace(masked, valid_b=None),
        replace(plain, pairs=None),
        replace(plain, pairs=masked),
        replace(plain, weak=None),
        replace(plain, a=plain.a[:1]),
    ]
    assert len({form_of(each) for each in (plain, *others)}) == 7
    assert form_of(replace(plain, labels_a=None)) == form_of(plain)


def test_a_mark_is_that_of_pytorch() -> None:
    from torch._inductor.cudagraph_trees import MarkStepBox

    before = MarkStepBox.mark_step_counter
    Graphs(False).begin(batch_of(0, False))
    assert MarkStepBox.mark_step_counter == before
    Graphs(True).begin(batch_of(0, False))
    assert MarkStepBox.mark_step_counter != before


def test_where_recording_fails_networks_are_compiled_only(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(network: nn.Module, **options: Any) -> None:
        recorder.compile(network, **options)
        if "mode" in options:

            def fail(*args: Any) -> Tensor:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\n")

            network._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken)
    network = build_discriminator("patch70", in_channels=2, width=2)
    graphs = Graphs(True)
    assert compile_networks([network], trial(network), CPU, graphs)
    assert not graphs.on
    assert [r.getMessage() for r in caplog.records] == [
        "networks are not compiled with CUDA graphs: RuntimeError: CUDA error: operation not"
        " permitted when stream is capturing"
    ]
    recorder.plain = 0
    network(torch.rand(2, 2, SIDE, SIDE))
    assert recorder.plain == 1


def test_parts_that_are_not_recorded_are_told(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counts = iter([0, 2, 2])
    monkeypatch.setattr(placing, "_skipped", lambda: next(counts))
    network = build_discriminator("patch70", in_channels=2, width=2)
    graphs = Graphs(True)
    compile_networks([network], trial(network), CPU, graphs)
    assert graphs.on
    assert "PyTorch leaves 2 parts of the networks out" in caplog.text


def test_inductor_says_what_it_does_not_record() -> None:
    """The counter is PyTorch's own."""
    from torch._inductor import cudagraph_utils

    before = placing._skipped()
    cudagraph_utils.log_cudagraph_skip_and_bump_counter("a test")
    assert placing._skipped() == before + 1


def _state(config: TrainConfig) -> TrainingState:
    fabric = Fabric(accelerator="cpu", devices=1)
    chips = Chips.open(config.chips, METHODS[config.method].sides)
    return TrainingState(fabric, resolve(config_on(config, CPU), chips), chips)


@pytest.mark.parametrize(
    ("raised", "graphs", "said"),
    [
        (
            "Error: accessing tensor output of CUDAGraphs that has been overwritten\nlong",
            True,
            "step 2: --cuda-graphs: Error: accessing tensor output of CUDAGraphs that has been"
            " overwritten; go on without, by --resume --no-cuda-graphs",
        ),
        ("CUDA error: operation failed due to a previous error during capture", False, None),
        ("shapes do not fit", True, None),
    ],
)
def test_errors_of_recordings_end_in_one_line(
    raised: str, graphs: bool, said: str | None, tiny: MakeConfig, recorder: Recorder
) -> None:
    state = _state(tiny(cuda_graphs=graphs))
    batch = Batch(torch.zeros(1, 2, 24, 24), torch.zeros(1, 3, 24, 24))
    # Networks are compiled in the first step, which must succeed.
    state.advance(batch)

    def fail(*args: Any) -> dict[str, Tensor]:
        raise RuntimeError(raised)

    state.method.step = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError if said is None else TrainingError) as error:
        state.advance(batch)
    assert str(error.value) == (said or raised)


def test_memory_may_run_out_in_a_recording(tiny: MakeConfig, recorder: Recorder) -> None:
    state = _state(tiny(cuda_graphs=True))
    batch = Batch(torch.zeros(1, 2, 24, 24), torch.zeros(1, 3, 24, 24))
    state.advance(batch)

    def fail(*args: Any) -> dict[str, Tensor]:
        try:
            raise torch.OutOfMemoryError("no memory")
        except torch.OutOfMemoryError:
            # As the end of a recording does, whatever began it.
            raise RuntimeError("previous error during capture")  # noqa: B904

    state.method.step = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(TrainingError, match="out of memory on cpu; try --no-cuda-graphs, --mem"):
        state.advance(batch)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_memory_may_run_out_on_a_cpu(tiny: MakeConfig, error: Exception) -> None:
    state = _state(tiny())

    def fail(*args: Any) -> dict[str, Tensor]:
        raise error

    state.method.step = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(TrainingError, match=r"step 1: out of memory on cpu; .* or --width$"):
        state.advance(Batch(torch.zeros(1, 2, 24, 24), torch.zeros(1, 3, 24, 24)))


def test_what_cannot_be_recorded_is_refused(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="--cuda-graphs: this run is on a CPU"):
        train(tiny(cuda_graphs=True))
    assert not tiny().out.exists()
    with pytest.raises(OptionError, match="--cuda-graphs and --no-compile"):
        tiny(cuda_graphs=True, compile=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="must be compiled for it, and there is no Triton"):
        require_graphs(CUDA)
    monkeypatch.setattr("geocyclegan.training.starting.require_graphs", lambda device: None)
    monkeypatch.setattr(
        "geocyclegan.training.starting.layout", lambda *args: Layout(devices=2, nodes=1)
    )
    with pytest.raises(OptionError, match="--cuda-graphs: with --norm scene, the networks of"):
        config_on(tiny(cuda_graphs=True, norm="scene", device="cpu"), CPU)
    assert config_on(tiny(cuda_graphs=True), CPU).devices == 2


def test_the_command_refuses_it_in_one_line(tiny: MakeConfig) -> None:
    config = tiny()
    words = ["train", str(config.chips), "--out", str(config.out), "--device", "cpu"]
    result = CliRunner().invoke(cli, [*words, "--cuda-graphs"])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "--cuda-graphs: this run is on a CPU" in result.output
    assert not config.out.exists()
