"""A training step against the textbook: images per second, TFLOP/s, share of the peak, memory.

The textbook is written here, from the paper, in eager single precision: every pass on its own, all
gradients of the discriminators computed whether needed or not. On CUDA it runs twice, in single
precision and with convolutions in TF32, which is what PyTorch does unless told otherwise. Ours is
the package's own engine at the precision that is asked for; on CUDA it is compiled, as long runs
are. All take turns in one process on the same random images, since machines are shared, and the
fastest turn of each counts. Tables of several cases:

    python -m benchmarks.train                        # a few small cases on a CPU, all on CUDA
    python -m benchmarks.train --width 32 64 --crop 128 256 512 --batch 1 4 16 32 --bands 3,3 2,13

FLOPs are those of convolutions, counted by torch's own counter on the textbook step less what a
frozen discriminator need not do; the peak is that of a large matrix product on the same device, in
the same precision, measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from geocyclegan.device import choose_device
from geocyclegan.methods import Batch, CycleGAN, CycleGANConfig
from geocyclegan.models import PatchDiscriminator, ResNetGenerator
from geocyclegan.rounding import tf32
from geocyclegan.training.engine import Engine
from geocyclegan.training.placing import require_graphs
from geocyclegan.training.precision import choose_precision
from geocyclegan.training.ranks import Layout, launch

BLOCKS = 9


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    bands: tuple[int, int]
    width: int
    crop: int
    batch: int


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            conv = nn.Conv2d(channels, channels, 3)
            return [nn.ReflectionPad2d(1), conv, nn.InstanceNorm2d(channels)]

        self.body = nn.Sequential(*half(), nn.ReLU(True), *half())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def textbook_generator(bands_in: int, bands_out: int, width: int) -> nn.Module:
    """ResNet-9 as in the paper."""
    w = width
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(bands_in, w, 7)]
    layers += [nn.InstanceNorm2d(w), nn.ReLU(True)]
    for c in (w, 2 * w):
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.InstanceNorm2d(2 * c), nn.ReLU(True)]
    layers += [_Residual(4 * w) for _ in range(BLOCKS)]
    for c in (4 * w, 2 * w):
        layers += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1), nn.InstanceNorm2d(c // 2)]
        layers += [nn.ReLU(True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(w, bands_out, 7), nn.Tanh()]
    return nn.Sequential(*layers)


def textbook_discriminator(bands: int, width: int) -> nn.Module:
    """The 70 × 70 PatchGAN."""
    w = width
    layers: list[nn.Module] = [nn.Conv2d(bands, w, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for c, stride in ((w, 2), (2 * w, 2), (4 * w, 1)):
        layers += [nn.Conv2d(c, 2 * c, 4, stride, 1), nn.InstanceNorm2d(2 * c)]
        layers += [nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 4, 1, 1))


class Textbook:
    """The step as a reader of the paper would write it; identity losses where A and B agree."""

    def __init__(self, case: Case, device: torch.device) -> None:
        a, b = case.bands
        self.identity = a == b
        self.g_ab, self.g_ba = (textbook_generator(*ends, case.width) for ends in ((a, b), (b, a)))
        self.d_a, self.d_b = (textbook_discriminator(n, case.width) for n in (a, b))
        for network in (self.g_ab, self.g_ba, self.d_a, self.d_b):
            network.to(device)
        generators = itertools.chain(self.g_ab.parameters(), self.g_ba.parameters())
        judges = itertools.chain(self.d_a.parameters(), self.d_b.parameters())
        self.adam_g = torch.optim.Adam(generators, 2e-4, (0.5, 0.999))
        self.adam_d = torch.optim.Adam(judges, 2e-4, (0.5, 0.999))

    def step(self, a: Tensor, b: Tensor) -> float:
        """Do one; the loss is fetched every time, as progress bars do."""

        def says(logits: Tensor, value: float) -> Tensor:
            return F.mse_loss(logits, torch.full_like(logits, value))

        fake_b, fake_a = self.g_ab(a), self.g_ba(b)
        loss = says(self.d_b(fake_b), 1.0) + says(self.d_a(fake_a), 1.0)
        loss = loss + 10 * F.l1_loss(self.g_ba(fake_b), a) + 10 * F.l1_loss(self.g_ab(fake_a), b)
        if self.identity:
            loss = loss + 5 * F.l1_loss(self.g_ba(a), a) + 5 * F.l1_loss(self.g_ab(b), b)
        self.adam_g.zero_grad()
        torch.autograd.backward(loss)
        self.adam_g.step()
        self.adam_d.zero_grad()
        for judge, real, fake in ((self.d_a, a, fake_a), (self.d_b, b, fake_b)):
            half = says(judge(real), 1.0) + says(judge(fake.detach()), 0.0)
            torch.autograd.backward(half * 0.5)
        self.adam_d.step()
        return loss.item()


class Ours:
    """The package's engine."""

    def __init__(self, case: Case, device: torch.device, args: argparse.Namespace) -> None:
        a, b = case.bands
        precision = choose_precision(args.precision, device)
        self.precision = precision
        networks: list[nn.Module] = [
            ResNetGenerator(a, b, width=case.width, blocks=BLOCKS),
            ResNetGenerator(b, a, width=case.width, blocks=BLOCKS),
            PatchDiscriminator(a, width=case.width),
            PatchDiscriminator(b, width=case.width),
        ]
        shared = [(i, i) for i in range(a)] if a == b else []
        method = CycleGAN(*networks, CycleGANConfig(), shared)  # type: ignore[arg-type,call-arg]
        self.engine = Engine(
            method,
            launch(Layout(1, 1), device, precision),
            precision,
            memory_saving=args.memory_saving,
            compiled=device.type == "cuda" if args.compile is None else args.compile,
            recorded=args.cuda_graphs,
        )
        method.joined = args.joined

    def step(self, a: Tensor, b: Tensor) -> None:
        """Do one; nothing is fetched."""
        with tf32(convolutions=self.precision != "32", matrices=self.precision != "32"):
            self.engine.step(Batch(a, b))


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--width", type=int, nargs="+")
    parser.add_argument("--crop", type=int, nargs="+")
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--bands", nargs="+", help="bands of A and of B, such as 3,3 2,13")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="by default on CUDA"
    )
    parser.add_argument(
        "--cuda-graphs", action="store_true", help="compile, and run from recordings"
    )
    parser.add_argument("--memory-saving", action="store_true")
    parser.add_argument("--joined", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time, for a look on a CPU that others use, too",
    )
    parser.add_argument("--profile", action="store_true", help="where the time of our step goes")
    args = parser.parse_args(words)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    if args.cuda_graphs:
        require_graphs(device)
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu
    chosen = choose_precision(args.precision, device)
    peak: dict[str, float] = {
        name: matmul_rate(device, name, clock_of(args)) for name in {"32", chosen}
    }
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "CPU"
    print(f"{date.today()}, {name}, torch {torch.__version__}, {args.threads} threads,")
    rates = ", ".join(f"{p} {rate:.2f} TFLOP/s" for p, rate in sorted(peak.items()))
    print(f"measured matrix rate: {rates}; best of {args.turns} turns; ours: {chosen}")
    tf32_heads = ("  with TF32 ratio", "    images/s      ") if on_gpu else ("", "")
    print(
        "bands  width crop batch |  textbook      ours  ratio"
        f"{tf32_heads[0]} |  TFLOP/s  of peak |  memory GiB  (textbook)"
    )
    print(
        f"                        |  images/s  images/s       {tf32_heads[1]} |     ours     ours"
        " |        ours"
    )
    bands = [tuple(map(int, each.split(","))) for each in args.bands or ["3,3"]]
    widths = args.width or ([32, 64] if on_gpu else [32])
    crops = args.crop or ([128, 256, 512] if on_gpu else [128])
    batches = args.batch or ([1, 4, 16, 32] if on_gpu else [1])
    for each in itertools.product(bands, widths, crops, batches):
        case = Case(*each)  # type: ignore[arg-type]
        fits = True
        try:
            measure(case, device, args, peak)
        except torch.OutOfMemoryError:
            fits = False
        if not fits:
            print(_label(case), "| out of memory", flush=True)
        if on_gpu:
            # Only here has the error let go of the networks; compiled ones hold on to themselves.
            torch.compiler.reset()
            gc.collect()
            torch.cuda.empty_cache()


def measure(
    case: Case, device: torch.device, args: argparse.Namespace, peak: dict[str, float]
) -> None:
    """Print one line."""
    torch.manual_seed(0)
    a, b = (
        torch.rand(case.batch, n, case.crop, case.crop, device=device) * 2 - 1 for n in case.bands
    )
    plain, ours = Textbook(case, device), Ours(case, device, args)
    flops, clock = flops_of(case, device), clock_of(args)

    def textbook(rounded: bool) -> None:
        with tf32(convolutions=rounded):
            plain.step(a, b)

    steps: dict[str, Callable[[], object]] = {
        "textbook": lambda: textbook(False),
        "ours": lambda: ours.step(a, b),
    }
    if device.type == "cuda":
        steps["tf32"] = lambda: textbook(True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, float] = {}
    for name, step in steps.items():
        for _ in range(2):
            step()
        memory[name] = peak_memory(step, device)
    for _ in range(args.turns):
        for name, step in steps.items():
            times[name].append(seconds(step, device, clock))
    best = {name: min(found) for name, found in times.items()}
    rate = flops / best["ours"] / 1e12
    share = rate / peak[ours.precision]
    line = f"{_label(case)} | {case.batch / best['textbook']:9.3f} {case.batch / best['ours']:9.3f}"
    line += f" {best['textbook'] / best['ours']:6.2f}"
    if "tf32" in best:
        line += f"  {case.batch / best['tf32']:9.3f} {best['tf32'] / best['ours']:5.2f}"
    line += f" | {rate:8.3f} {share:8.1%} |"
    print(f"{line} {_gib(memory['ours'])}  {_gib(memory['textbook'])}", flush=True)
    if args.profile:
        profile(steps["ours"], device)


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """What time is measured by."""
    return time.process_time if args.clock == "cpu" else time.perf_counter


def _label(case: Case) -> str:
    a, b = case.bands
    return f"{a:2d}>{b:<3d} {case.width:5d} {case.crop:4d} {case.batch:5d}"


def _gib(value: float) -> str:
    return f"{value / 2**30:11.2f}" if value else f"{'-':>11}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(
    step: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time per step, over as many steps as fill half a second."""
    count, elapsed = 1, 0.0
    while True:
        _wait(device)
        started = clock()
        for _ in range(count):
            step()
        _wait(device)
        elapsed = clock() - started
        if elapsed >= 0.5:
            return elapsed / count
        count = max(count + 1, int(count * 0.6 / max(elapsed, 1e-3)))


def peak_memory(step: Callable[[], object], device: torch.device) -> float:
    """Bytes on the GPU at the highest; 0 on the CPU, where nothing counts them."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    step()
    _wait(device)
    return float(torch.cuda.max_memory_allocated(device))


def flops_of(case: Case, device: torch.device) -> float:
    """FLOPs of the convolutions of a step whose frozen discriminators compute no weight gradients.

    Forward and backward of each network are counted once, and multiplied by how often they run.
    """
    with torch.device("meta"):
        generators = (
            textbook_generator(*case.bands, case.width),
            textbook_generator(*case.bands[::-1], case.width),
        )
        judges = [textbook_discriminator(n, case.width) for n in case.bands]
        images = [torch.empty(case.batch, n, case.crop, case.crop) for n in case.bands]

    def forward(network: nn.Module, x: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            network(x)
        return int(counter.get_total_flops())

    a, b = (forward(g, x) for g, x in zip(generators, images, strict=True))
    each = 3 if case.bands[0] == case.bands[1] else 2
    judged = sum(forward(d, x) for d, x in zip(judges, images, strict=True))
    # A backward pass takes twice a forward pass: once for weights, once for inputs. A discriminator
    # runs forward and back to its input in the first half, on real and on pooled images in the
    # second, where its input needs no gradient: little of a network is its first layer.
    return 3.0 * each * (a + b) + 2.0 * judged + 2 * 3.0 * judged


def matmul_rate(
    device: torch.device, precision: str, clock: Callable[[], float] = time.perf_counter
) -> float:
    """TFLOP/s of a large matrix product."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = 8192 if device.type == "cuda" else 1536
    x = torch.randn(side, side, device=device, dtype=dtype)
    with tf32(convolutions=False, matrices=precision == "tf32"):
        for _ in range(3):
            x @ x
        best = min(seconds(lambda: x @ x, device, clock) for _ in range(3))
    return 2 * side**3 / best / 1e12


def profile(step: Callable[[], object], device: torch.device) -> None:
    """Print where the time of three steps goes."""
    kind = torch.profiler.ProfilerActivity
    kinds = [kind.CPU, kind.CUDA] if device.type == "cuda" else [kind.CPU]
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"

    def show(found: torch.profiler.profile) -> None:
        averages = found.key_averages()
        print(averages.table(sort_by=order, row_limit=15, max_name_column_width=50))

    # Steps in which the profiler itself begins take several times as long.
    steps = torch.profiler.schedule(wait=0, warmup=2, active=3, repeat=1)
    with torch.profiler.profile(activities=kinds, schedule=steps, on_trace_ready=show) as found:
        for _ in range(5):
            step()
            _wait(device)
            found.step()


if __name__ == "__main__":
    main()
