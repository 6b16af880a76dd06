"""What the engine does with a step: precision, passes, memory, compilation, repeatability."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.amp import GradScaler

from geocyclegan.bundle import load_bundle
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError
from geocyclegan.methods import Batch
from geocyclegan.models import build_discriminator, build_generator
from geocyclegan.models.norm import SceneNorm2d
from geocyclegan.models.unet import UNetGenerator
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.finder import find_lr
from geocyclegan.training.loop import train
from geocyclegan.training.optimizers import fused
from geocyclegan.training.placing import compile_networks, lay, wants_compile
from geocyclegan.training.precision import choose_precision
from geocyclegan.training.resolve import resolve
from geocyclegan.training.starting import config_on
from geocyclegan.training.state import TrainingState

MakeConfig = Callable[..., TrainConfig]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _cpu_with(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    found = dict.fromkeys(instructions, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


def _gpu_of(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")


def _log(run: Path) -> list[list[float]]:
    with open(run / "log.csv", newline="") as file:
        return [[float(value) for value in row.values()] for row in csv.DictReader(file)]


def test_auto_is_what_runs_fast(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geocyclegan")
    _cpu_with(monkeypatch, "avx512_f", "avx512_bf16")
    assert choose_precision("auto", CPU) == "32"
    assert "precision: 32, chosen for this CPU" in caplog.text
    _cpu_with(monkeypatch, "amx_bf16")
    assert choose_precision("auto", CPU) == "bf16"
    _gpu_of(monkeypatch, (7, 5))
    assert choose_precision("auto", CUDA) == "32"
    _gpu_of(monkeypatch, (9, 0))
    assert choose_precision("auto", CUDA) == "bf16"
    assert choose_precision("tf32", CUDA) == "tf32"


@pytest.mark.parametrize("has_tiles", [False, True])
def test_a_cpu_is_known_where_pytorch_has_no_list(
    has_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in PyTorch 2.10."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_precision("auto", CPU) == ("bf16" if has_tiles else "32")
    assert choose_precision("bf16", CPU) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if not has_tiles:
        with pytest.raises(OptionError, match="--precision bf16: this CPU has no bf16"):
            choose_precision("bf16", CPU)


def test_what_the_device_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    _cpu_with(monkeypatch, "avx512_f")
    for asked in ("tf32", "fp16", "bf16"):
        config = tiny(precision=asked)
        with pytest.raises(OptionError, match=f"--precision {asked}: "):
            train(config)
        assert not config.out.exists()
    _gpu_of(monkeypatch, (7, 5))
    for asked in ("tf32", "bf16"):
        with pytest.raises(OptionError, match=f"--precision {asked}: a GPU has no"):
            choose_precision(asked, CUDA)
    assert choose_precision("fp16", CUDA) == "fp16"


def _state(config: TrainConfig, fabric: Fabric, steps: int = 8) -> TrainingState:
    chips = Chips.open(config.chips)
    return TrainingState(fabric, resolve(config_on(config, CPU), chips), chips)


def _batch(samples: int = 1) -> Batch:
    random = torch.Generator().manual_seed(3)
    a, b = (torch.rand(samples, n, 32, 32, generator=random) * 2 - 1 for n in (2, 3))
    return Batch(a, b)


def test_weights_losses_and_optimisers_stay_in_single_precision(
    monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    _cpu_with(monkeypatch, "avx512_bf16")
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    state = _state(tiny(precision="bf16"), fabric)
    inside: set[torch.dtype] = set()
    for module in state.generators["a2b"].modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: inside.add(out.dtype))
    state.advance(_batch())
    assert inside == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in state.method.parameters())
    for optimizer in state.optimizers.values():
        moments = [t for each in optimizer.state.values() for t in each.values()]
        assert {t.dtype for t in moments} == {torch.float32}
    assert state.meter.bad() is None


def test_bf16_lies_channels_last_to_the_end(
    monkeypatch: pytest.MonkeyPatch, tiny: MakeConfig
) -> None:
    """A norm that answers in another order makes the next convolution copy."""
    _cpu_with(monkeypatch, "amx_bf16")
    state = _state(tiny(), Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    found = []
    for module in state.generators["a2b"].modules():
        if isinstance(module, SceneNorm2d):
            module.register_forward_hook(
                lambda _, __, out: found.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    state.advance(_batch())
    assert found
    assert all(found)


def test_generators_of_some_width_convolve_fast_in_fp32_on_a_cpu() -> None:
    torch.manual_seed(0)
    network = build_generator("resnet6", in_channels=2, out_channels=3, width=16)
    x = torch.rand(1, 2, 32, 36) * 2 - 1
    found = []
    for precision in ("bf16", "32"):
        lay(network, CPU, precision)
        out = network(x)
        gradients = torch.autograd.grad(out.square().mean(), list(network.parameters()))
        found.append((out.detach(), *gradients))
        assert _channels_last(network)
    assert "_Conv3x3" in _nodes(network(x))
    assert not torch.equal(found[0][0], found[1][0])
    # Biases before a norm have no gradient but rounding: against the largest of all.
    scale = max(float(gradient.abs().max()) for gradient in found[0][1:])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-3)
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * scale)
    narrow = build_generator("resnet6", in_channels=2, out_channels=3, width=8)
    lay(narrow, CPU, "32")
    assert not _channels_last(narrow)
    assert "_Conv3x3" not in _nodes(narrow(x))


def _channels_last(network: nn.Module) -> bool:
    weights = [each for each in network.parameters() if each.ndim == 4]
    return all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)


def _nodes(out: Tensor) -> str:
    """Names of what computed a tensor."""
    waiting, names = [out.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in names:
            names.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return " ".join(node.name() for node in names)


def test_steps_that_a_scaler_skips_are_no_reason_to_stop(tiny: MakeConfig) -> None:
    """As in fp16, whose gradients overflow until the scale has come down."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**36)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    config = tiny(schedule="constant")
    state = _state(config, Fabric(accelerator="cpu", devices=1, plugins=plugin))
    before = {name: p.clone() for name, p in state.method.named_parameters()}
    state.advance(_batch())
    assert scaler.get_scale() < 2.0**36
    assert all(torch.equal(p, before[name]) for name, p in state.method.named_parameters())
    assert state.meter.bad() is None
    assert state.finite()
    # It finds a scale at which both optimisers move, and a checkpoint knows it.
    for _ in range(30):
        state.advance(_batch())
    assert state.meter.bad() is None
    moved = [n for n, p in state.method.named_parameters() if not torch.equal(p, before[n])]
    assert any("generator" in name for name in moved)
    assert any("discriminator" in name for name in moved)
    assert state.to_checkpoint()["scaler"]["scale"] == scaler.get_scale()


def test_accumulated_passes_see_what_one_batch_sees(tiny: MakeConfig) -> None:
    """The image pools too, since they are asked image by image."""
    common = {"precision": "32", "log_every": 1, "panel_every": 0, "val_every": 0, "steps": 4}
    runs = [
        train(tiny(**common, batch=batch, accumulate=passes, name=f"b{batch}", flip=False))
        for batch, passes in ((2, 1), (1, 2))
    ]
    states = [
        torch.load(r.run / "checkpoints" / "step_0000004.pt", weights_only=True) for r in runs
    ]
    one, two = (state["extra"]["pool_a"]["random"] for state in states)
    assert torch.equal(one, two)
    rows = [_log(r.run) for r in runs]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]


def test_accumulated_losses_equal_those_of_one_batch(tiny: MakeConfig) -> None:
    """In double precision, since Adam turns the rounding of small gradients into whole steps."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    joint, apart = (_state(tiny(precision="32", pool=0), fabric) for _ in range(2))
    batch = _batch(4)
    parts = [Batch(batch.a[i : i + 2], batch.b[i : i + 2]) for i in (0, 2)]
    for _ in range(3):
        joint.advance(batch)
        apart.advance(*parts)
        ours, theirs = apart.meter.take(), joint.meter.take()
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_the_scale_of_gradients_is_one_in_all_of_a_step(tiny: MakeConfig) -> None:
    """Of fp16, which doubles it when nothing overflows; seen in single precision."""
    plugin = MixedPrecision("16-mixed", "cpu", GradScaler("cpu", 4.0, growth_interval=1))
    plugin._desired_input_dtype = torch.float32
    plugin.forward_context = nullcontext  # type: ignore[method-assign]
    scaled = _state(tiny(precision="32", pool=0), Fabric(accelerator="cpu", plugins=plugin))
    plain = _state(tiny(precision="32", pool=0), Fabric(accelerator="cpu", devices=1))
    for step in range(3):
        parts = [_batch(2), _batch(1)]
        for state in (scaled, plain):
            state.advance(*parts)
        assert plugin.scaler is not None
        assert plugin.scaler.get_scale() == 4.0 * 2.0 ** (step + 1)
    weights = (state.method.parameters() for state in (scaled, plain))
    for ours, theirs in zip(*weights, strict=True):
        # Scales are powers of two.
        assert torch.equal(ours, theirs)


def test_memory_saving_changes_no_loss(tiny: MakeConfig) -> None:
    common = {"precision": "32", "log_every": 1, "panel_every": 0, "val_every": 0, "steps": 3}
    kept = train(tiny(**common, name="kept"))
    again = train(tiny(**common, name="again", memory_saving=True))
    for ours, theirs in zip(_log(again.run), _log(kept.run), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dropout", [False, True])
def test_recomputed_gradients_are_those_of_a_plain_pass(dropout: bool) -> None:
    torch.manual_seed(0)
    network = UNetGenerator(2, 3, width=4, depth=7, dropout=dropout)
    x, valid = torch.rand(2, 2, 128, 128), torch.rand(2, 1, 128, 128) > 0.2

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        network.zero_grad()
        network(x, valid).square().sum().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    plain = gradients()
    network.memory_saving = True
    for ours, theirs in zip(gradients(), plain, strict=True):
        assert torch.equal(ours, theirs)


def test_memory_saving_keeps_less() -> None:
    network = build_generator("resnet6", in_channels=2, out_channels=2, width=8)
    kept: list[int] = []

    def measure() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.nbytes) or t,  # type: ignore[func-returns-value]
            lambda t: t,
        ):
            network(torch.rand(1, 2, 64, 64))
        return sum(kept)

    plain = measure()
    network.memory_saving = True
    assert measure() < plain / 3


def test_the_running_mean() -> None:
    network = nn.Linear(1, 1, bias=False)
    mean = RunningMean({"a2b": network}, 0.5)
    start = network.weight.item()
    with torch.no_grad():
        network.weight.fill_(3.0)
    mean.update(1)
    # Young, it forgets faster: 2 / 11 of the old.
    share = 2 / 11
    expected = share * start + (1 - share) * 3.0
    with mean.applied():
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 3.0
    mean.update(1000)
    assert mean.state_dict()["a2b.weight"].item() == pytest.approx(0.5 * expected + 1.5)
    other = RunningMean({"a2b": network}, 0.5)
    other.load_state_dict(mean.state_dict())
    assert torch.equal(other.state_dict()["a2b.weight"], mean.state_dict()["a2b.weight"])
    assert RunningMean({"a2b": network}, 0.0).state_dict() == {}


def test_the_bundle_holds_the_mean_and_the_checkpoint_both(tiny: MakeConfig) -> None:
    result = train(tiny(ema=0.9, steps=6))
    state = torch.load(result.run / "checkpoints" / "step_0000006.pt", weights_only=True)
    for name, weight in load_bundle(result.run).generator("a2b").state_dict().items():
        assert torch.equal(weight, state["mean"][f"a2b.{name}"])
    live = state["networks"]["generator_ab.layers.stem_conv.weight"]
    assert not torch.equal(live, state["mean"]["a2b.layers.stem_conv.weight"])


def test_without_a_compiler_training_goes_on_and_says_why(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("shutil.which", lambda name: None)
    plain = train(tiny(steps=2, name="plain", compile=False))
    compiled = train(tiny(steps=2, name="compiled", compile=True))
    assert "networks are not compiled: there is no C++ compiler (no-such-compiler)" in caplog.text
    assert _log(plain.run) == _log(compiled.run)


def test_a_compiler_that_fails_is_no_reason_not_to_train(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        def fail(*args: Any, **kwargs: Any) -> Tensor:
            raise RuntimeError("no luck\nand a long story")

        self._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken)
    train(tiny(steps=2, compile=True))
    lines = [r.getMessage() for r in caplog.records if "not compiled" in r.getMessage()]
    assert lines == ["networks are not compiled: RuntimeError: no luck"]


def test_compilation_is_chosen_where_it_pays() -> None:
    assert not wants_compile(None, CPU, 100_000)
    assert wants_compile(True, CPU, 1)
    assert not wants_compile(None, CUDA, 10)
    assert not wants_compile(False, CUDA, 100_000)


def test_a_resumed_run_is_compiled_as_it_began(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all of its steps, not by those that are left."""
    asked: list[int] = []

    def wants(compile: bool | None, device: torch.device, steps: int) -> bool:
        asked.append(steps)
        return False

    monkeypatch.setattr("geocyclegan.training.state.wants_compile", wants)
    run = train(tiny(steps=4, save_every=2)).run
    (run / "checkpoints" / "step_0000004.pt").unlink()
    train(tiny(steps=4, save_every=2), resume=True)
    assert asked == [4, 4]


@pytest.mark.slow
def test_compiled_networks_compute_alike(caplog: pytest.LogCaptureFixture) -> None:
    """And their weights keep their names. It takes minutes on a busy machine."""
    caplog.set_level(logging.WARNING)
    torch.manual_seed(0)
    network = build_discriminator("patch70", in_channels=2, width=4)
    x = torch.rand(1, 2, 24, 24)
    plain, names = network(x), list(network.state_dict())

    def trial() -> None:
        network(torch.rand(1, 2, 24, 24)).sum().backward()
        network.zero_grad()

    assert compile_networks([network], trial, CPU)
    assert "not compiled" not in caplog.text
    assert network._compiled_call_impl is not None
    torch.testing.assert_close(network(x), plain, rtol=1e-4, atol=1e-5)
    assert list(network.state_dict()) == names
    assert all(weight.grad is None for weight in network.parameters())


def test_the_same_seed_gives_the_same_bits(
    tiny: MakeConfig, assert_same_run: Callable[[Path, Path], None]
) -> None:
    options = {"deterministic": True, "accumulate": 2, "ema": 0.5, "steps": 4}
    assert_same_run(*(train(tiny(**options, name=name)).run for name in ("one", "two")))
    assert not torch.are_deterministic_algorithms_enabled()
    third = train(tiny(**options, name="three", seed=1)).run
    assert _log(third) != _log(third.parent / "one")


def test_fused_adam_is_adam() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(5, 3)
    same = nn.Linear(5, 3)
    same.load_state_dict(plain.state_dict())
    optimizers = [torch.optim.Adam(n.parameters(), 1e-2, (0.5, 0.999)) for n in (plain, same)]
    optimizers[1] = fused(optimizers[1])  # type: ignore[call-overload]
    assert optimizers[1].param_groups[0]["fused"]
    assert optimizers[1].param_groups[0]["betas"] == (0.5, 0.999)
    for _ in range(5):
        for network, optimizer in zip((plain, same), optimizers, strict=True):
            network.zero_grad()
            network(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(plain.weight, same.weight)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    assert fused(other) is other


def test_finding_a_rate_writes_nothing(tiny: MakeConfig) -> None:
    config = tiny()
    trial = find_lr(config, steps=12)
    assert not config.out.exists()
    assert list(trial.rates) == sorted(trial.rates)
    assert trial.rates[0] < trial.suggestion * 3 < trial.rates[-1]
    assert len(trial.table().splitlines()) == 1 + len(trial.rates)
    with pytest.raises(OptionError, match="--find-lr: it runs in one process"):
        find_lr(tiny(devices=2))


def test_the_command_that_finds_a_rate(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geocyclegan.training.finder.find_lr.__defaults__", (6,))
    config = tiny()
    words = ["train", str(config.chips), "--generator", "resnet6", "--width", "4", "--crop", "24"]
    words += ["--out", str(config.out), "--device", "cpu", "--find-lr"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "Suggestion: --lr " in result.output
    assert not config.out.exists()
    assert CliRunner().invoke(cli, [*words, "--overwrite"]).exit_code == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "tf32", "bf16", "fp16"])
def test_precisions_on_cuda(tiny: MakeConfig, precision: str) -> None:
    result = train(tiny(device="cuda", precision=precision, compile=False))
    assert result.steps == 8
    assert TrainConfig.load(result.run / "config.yaml").precision == precision


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_deterministic_on_cuda(
    tiny: MakeConfig, assert_same_run: Callable[[Path, Path], None]
) -> None:
    options = {"device": "cuda", "deterministic": True, "precision": "32", "compile": False}
    assert_same_run(*(train(tiny(**options, name=name)).run for name in ("one", "two")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_a_resumed_run_on_cuda_is_one_that_was_not_interrupted(
    tiny: MakeConfig, assert_same_run: Callable[[Path, Path], None], precision: str
) -> None:
    """Optimisers, pools, the scale of fp16 and random states of the device included."""
    options = {"device": "cuda", "deterministic": True, "precision": precision, "compile": False}
    whole = train(tiny(**options, name="whole")).run
    config = tiny(**options)
    run = train(config).run
    (run / "checkpoints" / "step_0000008.pt").unlink()
    assert_same_run(train(config, resume=True).run, whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_on_cuda(tiny: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """A run with validations, panels and checkpoints, and one that goes on with it."""
    options = {"device": "cuda", "precision": "bf16", "cuda_graphs": True, "ema": 0.9}
    train(tiny(**options))
    result = train(tiny(**options | {"steps": 16}), resume=True)
    assert "not compiled" not in caplog.text
    assert result.steps == 16
    assert all(value == value for row in _log(result.run) for value in row)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_on_cuda(tiny: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    result = train(tiny(device="cuda", precision="bf16", compile=True, steps=3))
    assert "not compiled" not in caplog.text
    assert result.steps == 3
