from __future__ import annotations

import copy
import dataclasses
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geocyclegan.errors import BundleError, OptionError
from geocyclegan.methods import (
    Batch,
    CycleGAN,
    CycleGANConfig,
    Method,
    NetworkSpec,
    build_method,
)
from geocyclegan.methods.base import zero_invalid

SPEC = NetworkSpec(
    bands_a=2,
    bands_b=3,
    generator_args={"width": 2, "blocks": 1},
    discriminator_args={"width": 2, "layers": 1},
)


def tiny(**changes: Any) -> CycleGAN:
    torch.manual_seed(0)
    options = changes.pop("options", {})
    method = build_method("cyclegan", dataclasses.replace(SPEC, **changes), **options)
    assert isinstance(method, CycleGAN)
    return method


def batch_of(seed: int = 0, masked: bool = False, side: int = 16) -> Batch:
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 2, side, side, generator=random) * 2 - 1
    b = torch.rand(2, 3, side, side, generator=random) * 2 - 1
    if not masked:
        return Batch(a, b)
    valid_a = torch.rand(2, 1, side, side, generator=random) > 0.3
    valid_b = torch.rand(2, 1, side, side, generator=random) > 0.3
    return Batch(a * valid_a, b * valid_b, valid_a, valid_b)


def run(method: Method, batches: list[Batch]) -> list[dict[str, Tensor]]:
    optimizers = method.optimizers()
    return [method.step(batch, optimizers, torch.autograd.backward) for batch in batches]


class Same(nn.Module):
    """A generator that returns the first bands of its input, and 0 beyond."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        more = max(0, self.out_channels - self.in_channels)
        out = torch.cat([x, x.new_zeros(x.shape[0], more, *x.shape[2:])], 1)
        return out[:, : self.out_channels] * self.gain


def with_same(bands_a: int, bands_b: int, shared: list[tuple[int, int]]) -> CycleGAN:
    base = tiny(bands_a=bands_a, bands_b=bands_b)
    return CycleGAN(
        Same(bands_a, bands_b),
        Same(bands_b, bands_a),
        base.discriminator_a,
        base.discriminator_b,
        shared_bands=shared,
    )


def test_names_of_losses() -> None:
    plain = {"g_ab", "g_ba", "cycle_a", "cycle_b", "d_a", "d_b", "generators", "discriminators"}
    [losses] = run(tiny(), [batch_of()])
    assert set(losses) == plain
    assert all(loss.ndim == 0 and not loss.requires_grad for loss in losses.values())
    [losses] = run(tiny(shared_bands=((0, 1),)), [batch_of()])
    assert set(losses) == plain | {"identity_a", "identity_b"}
    [losses] = run(tiny(shared_bands=((0, 1),), options={"identity": 0.0}), [batch_of()])
    assert set(losses) == plain


@pytest.mark.parametrize("masked", [False, True])
def test_totals_are_sums(masked: bool) -> None:
    [losses] = run(tiny(shared_bands=((1, 0),)), [batch_of(masked=masked)])
    parts = ["g_ab", "g_ba", "cycle_a", "cycle_b", "identity_a", "identity_b"]
    torch.testing.assert_close(losses["generators"], torch.stack([losses[p] for p in parts]).sum())
    torch.testing.assert_close(losses["discriminators"], losses["d_a"] + losses["d_b"])


def test_identity_puts_shared_bands_in_their_place() -> None:
    """Bands 0, 1 of A are bands 2, 0 of B; generators that copy bands by number mix them up."""
    method = with_same(2, 3, [(0, 2), (1, 0)])
    batch = batch_of()
    errors = method.validate(batch)
    into_a = torch.stack([batch.b[:, 2], batch.b[:, 0], torch.zeros_like(batch.b[:, 0])], 1)
    expected = torch.stack(
        [(into_a[:, 2] - batch.b[:, 2]).abs(), (into_a[:, 0] - batch.b[:, 0]).abs()]
    ).mean()
    torch.testing.assert_close(errors["identity_b"], expected)


def test_identity_of_equal_bands_is_canonical() -> None:
    method = with_same(3, 3, [(0, 0), (1, 1), (2, 2)])
    batch = Batch(batch_of(1).b, batch_of(2).b)
    errors = method.validate(batch)
    assert {name: float(error) for name, error in errors.items()} == {
        "cycle_a": 0.0,
        "cycle_b": 0.0,
        "identity_a": 0.0,
        "identity_b": 0.0,
    }


def test_bands_that_are_not_shared_do_not_enter_identity() -> None:
    method = tiny(shared_bands=((0, 1),))
    first, second = batch_of(), batch_of()
    second.a[:, 1], second.b[:, [0, 2]] = 0.3, -0.7
    one, two = method.validate(first), method.validate(second)
    torch.testing.assert_close(one["identity_a"], two["identity_a"])
    torch.testing.assert_close(one["identity_b"], two["identity_b"])
    assert not torch.isclose(one["cycle_a"], two["cycle_a"])


def test_invalid_pixels_do_not_enter_any_loss() -> None:
    """What lies under nodata in the targets has no effect once batches hold zeros there."""
    method = with_same(2, 3, [(0, 0)])
    with torch.no_grad():
        for generator in method.generators().values():
            assert isinstance(generator, Same)
            generator.gain.fill_(0.5)
    batch = batch_of(masked=True)
    assert batch.valid_a is not None
    errors = method.validate(batch)
    # A → B → A halves twice: the error of a valid pixel is three quarters of its value.
    chosen = batch.a.abs().masked_select(batch.valid_a)
    torch.testing.assert_close(errors["cycle_a"], chosen.mean() * 0.75)


@pytest.mark.parametrize("empty", ["a", "b", "both"])
def test_batches_without_valid_pixels_are_harmless(empty: str) -> None:
    method = tiny(shared_bands=((0, 0),))
    full = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    none = torch.zeros_like(full)
    valid_a = none if empty in ("a", "both") else full
    valid_b = none if empty in ("b", "both") else full
    batch = batch_of()
    run(method, [Batch(batch.a * valid_a, batch.b * valid_b, valid_a, valid_b)])
    assert all(parameter.isfinite().all() for parameter in method.parameters())


def test_fakes_are_zero_where_invalid_before_they_are_judged() -> None:
    method = tiny()
    batch = batch_of(masked=True)
    judged: list[Tensor] = []
    method.discriminator_b.register_forward_hook(lambda _, inputs, out: judged.append(inputs[0]))
    run(method, [batch])
    assert batch.valid_a is not None
    assert batch.valid_b is not None
    by_generators, real, fake = judged
    assert not by_generators.masked_select(~batch.valid_a).any()
    assert not real.masked_select(~batch.valid_b).any()
    assert torch.equal(fake, by_generators.detach())


def test_generators_leave_discriminators_alone_and_the_reverse() -> None:
    method = tiny()
    optimizers = method.optimizers()
    calls: list[str] = []

    def backward(loss: Tensor) -> None:
        torch.autograd.backward(loss)
        half = "discriminators" if calls else "generators"
        calls.append(half)
        for name, parameter in method.named_parameters():
            if name.startswith("discriminator") and half == "generators":
                assert parameter.grad is None, name

    before = copy.deepcopy(method.state_dict())
    method.step(batch_of(), optimizers, backward)
    assert calls == ["generators", "discriminators"]
    assert all(parameter.requires_grad for parameter in method.parameters())
    weights = [name for name in before if name.endswith("weight")]
    assert all(not torch.equal(before[name], method.state_dict()[name]) for name in weights)


def test_resumed_run_equals_an_uninterrupted_one() -> None:
    batches = [batch_of(seed, masked=seed % 2 == 0) for seed in range(8)]
    options = {"pool_size": 2}
    whole = run(tiny(options=options), batches)

    first = tiny(options=options)
    optimizers = first.optimizers()
    for batch in batches[:4]:
        first.step(batch, optimizers, torch.autograd.backward)
    file = io.BytesIO()
    state = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    torch.save((first.state_dict(), first.extra_state(), state), file)
    file.seek(0)
    weights, extra, state = torch.load(file, weights_only=True)

    second = tiny(options=options, seed=5)
    second.load_state_dict(weights)
    second.load_extra_state(extra)
    optimizers = second.optimizers()
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state[name])
    rest = [second.step(batch, optimizers, torch.autograd.backward) for batch in batches[4:]]
    for ours, theirs in zip(rest, whole[4:], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_step_in_mixed_precision_channels_last() -> None:
    method = tiny(shared_bands=((0, 0),)).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        history = run(method, [batch_of(seed, masked=True) for seed in range(3)])
    assert all(loss.isfinite() for losses in history for loss in losses.values())
    assert all(loss.dtype == torch.float32 for losses in history for loss in losses.values())


def test_translate_goes_both_ways_and_restores_the_mode() -> None:
    method = tiny().train()
    batch = batch_of(masked=True)
    assert batch.valid_a is not None
    b = method.translate(batch.a, batch.valid_a)
    assert b.shape == (2, 3, 16, 16)
    assert not b.masked_select(~batch.valid_a).any()
    assert not b.requires_grad
    assert method.translate(batch.b, None, "b2a").shape == (2, 2, 16, 16)
    assert method.training
    assert method.generator_ab.training
    with pytest.raises(OptionError, match="choose one of: a2b, b2a"):
        method.translate(batch.a, None, "a2c")  # type: ignore[arg-type]


def test_validation_changes_nothing() -> None:
    method = tiny(shared_bands=((0, 0),))
    before = copy.deepcopy(method.state_dict())
    errors = method.validate(batch_of(masked=True))
    assert set(errors) == {"cycle_a", "cycle_b", "identity_a", "identity_b"}
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert len(method.pool_a) == 0


@pytest.mark.parametrize("masks", ["both", "a", "none"])
def test_one_pass_gives_what_several_do(masks: str) -> None:
    """Whatever is nodata; in one pass where both domains have masks, or none has."""
    batch = batch_of(masked=masks != "none")
    assert (batch.valid_a is None) == (masks == "none")
    other = None if batch.valid_a is None else batch.valid_a.flip(-1)
    batch = dataclasses.replace(batch, valid_b=other if masks == "both" else None)
    batch = dataclasses.replace(batch, b=zero_invalid(batch.b, batch.valid_b))
    found, calls = [], []
    for joined in (False, True):
        torch.manual_seed(0)
        method = tiny(shared_bands=((0, 0),)).double()
        method.joined = joined
        seen: list[int] = []
        method.generator_ab.register_forward_hook(lambda m, x, y, seen=seen: seen.append(len(y)))
        doubled = Batch(batch.a.double(), batch.b.double(), batch.valid_a, batch.valid_b)
        found.append(method.step(doubled, method.optimizers(), torch.autograd.backward))
        calls.append(len(seen))
    for name, loss in found[0].items():
        torch.testing.assert_close(found[1][name], loss, rtol=1e-9, atol=1e-9)
    assert calls[0] == 3
    assert calls[1] == (3 if masks == "a" else 2)


def test_batch_moves_as_a_whole() -> None:
    moved = batch_of(masked=True).to("meta")
    assert moved.valid_a is not None
    assert {t.device.type for t in (moved.a, moved.b, moved.valid_a)} == {"meta"}
    assert batch_of().to("meta").valid_b is None


def test_canonical_defaults() -> None:
    numbers = dataclasses.asdict(CycleGANConfig())
    off = {
        "gradient_penalty": None,
        "cycle_critic": 0.0,
        "cycle_features": 0.0,
        "cycle_end": 1.0,
        "gradient_loss": 0.0,
        "angle_loss": 0.0,
        "pair_weight": None,
        "weak_weight": None,
    }
    assert {name: numbers.pop(name) for name in off} == off
    assert numbers == {
        "gan_loss": "lsgan",
        "lambda_a": 10.0,
        "lambda_b": 10.0,
        "identity": 0.5,
        "pool_size": 50,
        "lr": 2e-4,
        "beta1": 0.5,
        "beta2": 0.999,
    }
    groups = tiny().optimizers()["generators"].param_groups
    assert [group["betas"] for group in groups] == [(0.5, 0.999)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_c": 1.0}, "has no option 'lambda_c'; it has: gan_loss, .*lambda_a"),
        ({"lr": 0.0}, "lr is 0.0; expected a finite number above 0"),
        ({"lr": float("inf")}, "lr is inf; expected a finite number above 0"),
        ({"lambda_a": float("inf")}, "lambda_a is inf; expected a finite number, 0 or more"),
        ({"lambda_a": float("nan")}, "lambda_a is nan"),
        ({"beta1": 1.0}, "expected 0 ≤ beta1 < 1"),
        ({"gan_loss": "wgan"}, "choose one of: lsgan, vanilla"),
        ({"pool_size": -1}, "pool_size is -1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny(options=options)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(OptionError, match="'pix2pox' is not known; choose one of: cyclegan"):
        build_method("pix2pox", SPEC)
    with pytest.raises(OptionError, match="have 2 and 3 bands"):
        tiny(shared_bands=((2, 0),))
    base = tiny()
    with pytest.raises(OptionError, match="generators"):
        CycleGAN(Same(2, 3), Same(2, 2), base.discriminator_a, base.discriminator_b)
    with pytest.raises(BundleError, match="pool_a is missing"):
        base.load_extra_state({})
