"""What can be added to the canonical CycleGAN: other losses, judged cycles, schedules, pairs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from geocyclegan.errors import OptionError
from geocyclegan.methods import Batch, CycleGAN, NetworkSpec, build_method
from geocyclegan.methods.cycle import CycleTerms
from geocyclegan.methods.distances import gradient_difference, spectral_angle
from geocyclegan.methods.features import feature_distance
from geocyclegan.methods.losses import gradient_penalty, masked_l1

SPEC = NetworkSpec(
    bands_a=2,
    bands_b=3,
    generator_args={"width": 2, "blocks": 1},
    discriminator_args={"width": 2, "layers": 1},
)
GENERATOR = {"g_ab", "g_ba", "cycle_a", "cycle_b"}
DISCRIMINATOR = {"d_a", "d_b"}
TOTALS = {"generators", "discriminators"}
EVERYTHING = {
    "gan_loss": "hinge",
    "cycle_critic": 0.5,
    "cycle_features": 0.5,
    "cycle_end": 0.2,
    "gradient_loss": 0.3,
    "angle_loss": 0.2,
    "pair_weight": 5.0,
    "weak_weight": 1.0,
}


def tiny(**options: Any) -> CycleGAN:
    torch.manual_seed(0)
    method = build_method("cyclegan", SPEC, **options)
    assert isinstance(method, CycleGAN)
    return method


def batch_of(seed: int = 0, masked: bool = False) -> Batch:
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 2, 16, 16, generator=random) * 2 - 1
    b = torch.rand(2, 3, 16, 16, generator=random) * 2 - 1
    if not masked:
        return Batch(a, b)
    valid_a = torch.rand(2, 1, 16, 16, generator=random) > 0.3
    valid_b = torch.rand(2, 1, 16, 16, generator=random) > 0.3
    return Batch(a * valid_a, b * valid_b, valid_a, valid_b)


def step(method: CycleGAN, batch: Batch) -> dict[str, Tensor]:
    return method.step(batch, method.optimizers(), torch.autograd.backward)


@pytest.mark.parametrize("masked", [False, True])
def test_each_option_has_its_losses(masked: bool) -> None:
    pairs = batch_of(1, masked)
    valid = None if pairs.valid_a is None else pairs.valid_a
    pairs = replace(pairs, valid_b=valid)
    batch = replace(batch_of(masked=masked), pairs=pairs, weak=pairs)
    losses = step(tiny(**EVERYTHING), batch)
    generator = GENERATOR | {
        f"{name}_{d}" for name in ("feature", "gradient", "angle", "back") for d in "ab"
    }
    generator |= {"pair_ab", "pair_ba", "weak_ab", "weak_ba"}
    discriminator = DISCRIMINATOR | {"critic_a", "critic_b"}
    assert set(losses) == generator | discriminator | TOTALS
    assert all(torch.isfinite(loss) for loss in losses.values())
    for total, parts in (("generators", generator), ("discriminators", discriminator)):
        torch.testing.assert_close(losses[total], torch.stack([losses[p] for p in parts]).sum())


def test_terms_follow_the_schedule() -> None:
    """At half of training: three quarters of the weight, a quarter of it on features."""
    terms = CycleTerms(features=0.5, end=0.5, gradient=0.3, spectral_angle=0.2)
    judge = tiny().discriminator_b
    x, y = batch_of(1).b, batch_of(2).b
    found = terms.losses("b", x, y, None, weight=8.0, progress=0.5, discriminator=judge)
    expected = {
        "cycle_b": 6 * 0.75 * masked_l1(y, x, None),
        "feature_b": 6 * 0.25 * feature_distance(judge, x, y, None),
        "gradient_b": 6 * 0.3 * gradient_difference(y, x, None),
        "angle_b": 6 * 0.2 * spectral_angle(y, x, None),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_progress_reaches_the_cycle() -> None:
    batch, losses = batch_of(), []
    for progress in (0.0, 1.0):
        method = tiny(cycle_end=0.25)
        method.set_progress(progress)
        losses.append(step(method, batch))
    torch.testing.assert_close(losses[1]["cycle_a"], 0.25 * losses[0]["cycle_a"])
    assert torch.equal(losses[1]["g_ab"], losses[0]["g_ab"])


def test_critics_tell_images_from_what_comes_back() -> None:
    """They learn with the discriminators, and the generators learn from them."""
    method, batch = tiny(cycle_critic=1.0), batch_of()
    optimizers = method.optimizers()
    before = copy.deepcopy(method.state_dict())
    first = method.step(batch, optimizers, torch.autograd.backward)
    changed = {
        name.partition(".")[0]
        for name, value in method.state_dict().items()
        if not torch.equal(before[name], value)
    }
    assert changed == {
        *("generator_ab", "generator_ba", "discriminator_a", "discriminator_b"),
        *("critic_a", "critic_b"),
    }
    for _ in range(30):
        last = method.step(batch, optimizers, torch.autograd.backward)
    assert last["critic_a"] < first["critic_a"]
    plain, judged = tiny(), tiny(cycle_critic=1.0)
    judged.load_state_dict(plain.state_dict(), strict=False)
    for each in (plain, judged):
        step(each, batch)
    assert any(
        not torch.equal(p, q)
        for p, q in zip(
            plain.generator_ab.parameters(), judged.generator_ab.parameters(), strict=True
        )
    )


def test_wgan_gp_adds_the_penalty_to_the_sum() -> None:
    method, batch = tiny(gan_loss="wgan-gp"), batch_of(masked=True)
    frozen = copy.deepcopy(method)
    torch.manual_seed(5)
    losses = step(method, batch)
    with torch.no_grad():
        assert batch.valid_b is not None
        fake_a = frozen.generator_ba(batch.b, batch.valid_b) * batch.valid_b
    real, fake = (batch.a, batch.valid_a), (fake_a, batch.valid_b)
    judge = frozen.discriminator_a
    torch.manual_seed(5)
    penalty = gradient_penalty(judge, judge.logit_weights, real, fake)
    loss = frozen.adversary.loss
    expected = loss(judge(*fake), False, judge.weights_for(*fake))
    expected = expected + loss(judge(*real), True, judge.weights_for(*real))
    torch.testing.assert_close(losses["d_a"], (expected + 10.0 * penalty).detach())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_everything_runs_under_an_engine(precision: Any) -> None:
    """Which wraps the networks, and allows gradients by its own backward pass only."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    pairs = batch_of(1)
    batch = replace(batch_of(masked=True), pairs=pairs, weak=pairs)
    for kind in ("hinge", "wgan-gp"):
        method = tiny(**EVERYTHING | {"gan_loss": kind})
        for name, network in list(method.named_children()):
            if any(True for _ in network.parameters()):
                setattr(method, name, fabric.setup_module(network))
        optimizers = {
            name: fabric.setup_optimizers(each) for name, each in method.optimizers().items()
        }
        for _ in range(2):
            losses = method.step(batch, optimizers, fabric.backward)  # type: ignore[arg-type]
        assert all(torch.isfinite(loss) for loss in losses.values())


def test_nodata_changes_nothing_whatever_is_on() -> None:
    batch = batch_of(masked=True)
    assert batch.valid_a is not None
    assert batch.valid_b is not None
    # Dense images come as they are; what is not valid is 0 in every batch.
    losses = [step(tiny(**EVERYTHING), replace(batch, pairs=batch_of(1, True))) for _ in range(2)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    nothing = Batch(
        batch.a * 0,
        batch.b * 0,
        torch.zeros_like(batch.valid_a),
        torch.zeros_like(batch.valid_b),
    )
    empty = step(tiny(**EVERYTHING), replace(nothing, pairs=nothing, weak=nothing))
    assert {float(loss) for loss in empty.values()} == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle_features": 1.5}, "cycle_features is 1.5; expected a share"),
        ({"cycle_end": -0.5}, "cycle_end is -0.5; expected a share"),
        ({"gradient_loss": -1.0}, "gradient is -1.0"),
        ({"cycle_critic": -1.0}, "cycle_critic is -1.0"),
        ({"gradient_penalty": float("nan")}, "gradient_penalty is nan"),
        ({"pair_weight": -2.0}, "weight weight of pairs is -2.0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny(**options)


def test_a_spectrum_needs_two_bands() -> None:
    with pytest.raises(OptionError, match="a spectrum needs two bands or more"):
        build_method("cyclegan", replace(SPEC, bands_a=1, bands_b=1), angle_loss=1.0)
    one = build_method("cyclegan", replace(SPEC, bands_a=1), angle_loss=1.0)
    batch = batch_of()
    losses = one.step(Batch(batch.a[:, :1], batch.b), one.optimizers(), torch.autograd.backward)
    assert "angle_b" in losses
    assert "angle_a" not in losses


def test_critics_that_are_weighted_must_be_there() -> None:
    plain = tiny()
    with pytest.raises(OptionError, match="there are no critics"):
        CycleGAN(
            plain.generator_ab,
            plain.generator_ba,
            plain.discriminator_a,
            plain.discriminator_b,
            replace(plain.config, cycle_critic=1.0),
        )
