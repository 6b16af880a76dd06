"""What every method promises, whichever it is."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from geocyclegan.catalogue import METHODS
from geocyclegan.errors import BundleError, OptionError
from geocyclegan.methods import Batch, Method, NetworkSpec, build_method
from geocyclegan.methods.base import ends
from geocyclegan.methods.losses import GAN_KINDS
from geocyclegan.methods.munit import Munit
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.resolve import method_options

SIDE = 32


def tiny(name: str, bands: tuple[int, int] = (2, 3), **options: Any) -> Method:
    torch.manual_seed(0)
    own = METHODS[name].generators
    spec = NetworkSpec(
        bands_a=bands[0],
        bands_b=bands[1],
        generator=own[0] if own else "resnet6",
        generator_args={"width": 2},
        discriminator_args={"width": 2},
        crop=SIDE,
        classes=3,
    )
    defaults = method_options(TrainConfig(method=name).with_defaults())
    return build_method(name, spec, **(defaults | options))


def batch_of(seed: int = 0, valid: float = 1.0) -> Batch:
    """Images of which a share of the pixels is valid, the same in both domains."""
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 2, SIDE, SIDE, generator=random) * 2 - 1
    b = torch.rand(2, 3, SIDE, SIDE, generator=random) * 2 - 1
    labels = torch.randint(-1, 3, (2, SIDE, SIDE), generator=random)
    if valid == 1.0:
        return Batch(a, b, labels_a=labels)
    mask = torch.rand(2, 1, SIDE, SIDE, generator=random) < valid
    return Batch(a * mask, b * mask, mask, mask, labels_a=labels)


def step(method: Method, optimizers: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
    return method.step(batch, optimizers, torch.autograd.backward)


@pytest.mark.parametrize("valid", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_and_sum_up_to_what_was_optimised(name: str, valid: float) -> None:
    method = tiny(name)
    optimizers = method.optimizers()
    losses = step(method, optimizers, batch_of(valid=valid))
    for key, loss in losses.items():
        assert loss.shape == (), key
        assert not loss.requires_grad, key
        assert torch.isfinite(loss), key
    assert optimizers.keys() <= losses.keys()
    assert all(weight.requires_grad for weight in trainable(method))
    for weight in method.parameters():
        assert torch.isfinite(weight).all()


@pytest.mark.parametrize("kind", GAN_KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_every_adversarial_loss_trains_both_sides(name: str, kind: str) -> None:
    if (name, kind) == ("dcgan", "wgan-gp"):
        with pytest.raises(OptionError, match="normalises over the batch"):
            tiny(name, gan_loss=kind)
        return
    method, plain = tiny(name, gan_loss=kind), tiny(name)
    torch.manual_seed(1)
    losses = step(method, method.optimizers(), batch_of(valid=0.7))
    assert all(torch.isfinite(loss) for loss in losses.values())
    torch.manual_seed(1)
    default = step(plain, plain.optimizers(), batch_of(valid=0.7))
    assert losses.keys() == default.keys()
    if METHODS[name].options["gan_loss"] != kind:
        assert losses["discriminators"] != default["discriminators"]
        assert losses["generators"] != default["generators"]


@pytest.mark.parametrize("name", [n for n in METHODS if "gradient_penalty" in METHODS[n].options])
def test_the_gradient_penalty_has_its_weight(name: str) -> None:
    sums = []
    for weight in (0.0, 10.0, 20.0):
        method = tiny(name, gan_loss="wgan-gp", gradient_penalty=weight)
        torch.manual_seed(1)
        sums.append(step(method, method.optimizers(), batch_of())["discriminators"])
    torch.testing.assert_close(sums[2] - sums[0], 2 * (sums[1] - sums[0]), rtol=1e-4, atol=1e-4)
    assert sums[1] > sums[0]


def trainable(method: Method) -> list[Tensor]:
    groups = [g for o in method.optimizers().values() for g in o.param_groups]
    return [weight for group in groups for weight in group["params"]]


@pytest.mark.parametrize("name", METHODS)
def test_every_weight_that_an_optimizer_has_is_moved(name: str) -> None:
    method = tiny(name)
    optimizers = method.optimizers()
    before = copy.deepcopy(method.state_dict())
    for seed in range(2):
        step(method, optimizers, batch_of(seed))
    parameters = dict(method.named_parameters())
    moved = {id(weight) for weight in trainable(method)}
    for key, weight in parameters.items():
        if id(weight) in moved and weight.dim() > 1:
            assert not torch.equal(weight, before[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_it_goes_on_from_its_state(name: str) -> None:
    """As a resume does: weights, optimisers, extra state and torch's generator."""
    one = tiny(name)
    optimizers = one.optimizers()
    step(one, optimizers, batch_of(1, 0.7))
    file = io.BytesIO()
    state = {
        "networks": one.state_dict(),
        "extra": one.extra_state(),
        "optimizers": {key: each.state_dict() for key, each in optimizers.items()},
        "random": torch.get_rng_state(),
    }
    torch.save(state, file)
    expected = step(one, optimizers, batch_of(2, 0.7))

    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    two = tiny(name)
    two.load_state_dict(loaded["networks"])
    two.load_extra_state(loaded["extra"])
    again = two.optimizers()
    for key, each in again.items():
        each.load_state_dict(loaded["optimizers"][key])
    torch.set_rng_state(loaded["random"])
    found = step(two, again, batch_of(2, 0.7))
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_looking_changes_nothing(name: str) -> None:
    method = tiny(name)
    before = copy.deepcopy(method.state_dict())
    random = torch.get_rng_state()
    batch = batch_of(valid=0.6)
    errors = method.validate(batch)
    assert errors
    assert all(torch.isfinite(error) and error.shape == () for error in errors.values())
    rows = method.show(batch)
    assert rows
    for shown in (each for row in rows for each in row):
        assert shown.images.shape[1] == (2 if shown.domain == "a" else 3)
        assert shown.images.shape[-2:] == (SIDE, SIDE)
        assert not shown.images.requires_grad
    assert method.training
    assert torch.equal(random, torch.get_rng_state())
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_generators_are_those_that_the_catalogue_names(name: str) -> None:
    method, info = tiny(name), METHODS[name]
    expected = ("a2b",) if "direction" in info.options else info.directions
    assert tuple(method.generators()) == expected
    for direction, generator in method.generators().items():
        home, away, _ = ends(direction)
        assert generator.in_channels == (2 if home == "a" else 3)
        assert generator.out_channels == (2 if away == "a" else 3)
        assert callable(generator.config)


@pytest.mark.parametrize("name", [n for n, info in METHODS.items() if "direction" in info.options])
def test_a_method_of_one_way_can_go_the_other(name: str) -> None:
    method = tiny(name, direction="b2a")
    assert list(method.generators()) == ["b2a"]
    step(method, method.optimizers(), batch_of())
    [row] = method.show(batch_of())
    assert [shown.domain for shown in row][:2] == ["b", "a"]
    with pytest.raises(OptionError, match="direction is 'c2d'"):
        tiny(name, direction="c2d")


@pytest.mark.parametrize("name", METHODS)
def test_unknown_options_and_foreign_states_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"method '{name}' has no option 'lambda_x'"):
        tiny(name, lambda_x=1.0)
    with pytest.raises(OptionError, match="lr is -1"):
        tiny(name, lr=-1.0)
    if tiny(name).extra_state():
        with pytest.raises(BundleError, match="missing in the checkpoint"):
            tiny(name).load_extra_state({})


HINTED = [name for name, info in METHODS.items() if "pairs" in info.options]


def test_every_unpaired_method_takes_pairs() -> None:
    assert [n for n, info in METHODS.items() if info.directions and not info.paired] == HINTED


@pytest.mark.parametrize("kind", ["pair", "weak"])
@pytest.mark.parametrize("name", HINTED)
def test_pairs_have_their_say_in_the_generators(name: str, kind: str) -> None:
    weight: dict[str, Any] = {f"{kind}_weight": 3.0}
    wrong: dict[str, Any] = {f"{kind}_weight": -1.0}
    batch = batch_of(1, 0.7)
    pairs = batch_of(2, 0.7)
    told = replace(batch, pairs=pairs) if kind == "pair" else replace(batch, weak=pairs)
    ways = [direction.replace("2", "") for direction in tiny(name).generators()]

    def after(method: Method, seen: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        torch.manual_seed(5)
        losses = step(method, method.optimizers(), seen)
        return losses, [w for g in method.generators().values() for w in g.parameters()]

    plain, weights = after(tiny(name), told)
    assert not [key for key in plain if key.startswith(kind)]
    waiting, unmoved = after(tiny(name, **weight), batch)
    assert [float(waiting[f"{kind}_{way}"]) for way in ways] == [0.0] * len(ways)
    assert all(torch.equal(one, two) for one, two in zip(weights, unmoved, strict=True))
    losses, moved = after(tiny(name, **weight), told)
    added = sum(losses[f"{kind}_{way}"] for way in ways)
    assert {key for key in losses if key.startswith(kind)} == {f"{kind}_{way}" for way in ways}
    assert all(losses[f"{kind}_{way}"] > 0 for way in ways)
    torch.testing.assert_close(losses["generators"], plain["generators"] + added)
    assert any(not torch.equal(one, two) for one, two in zip(weights, moved, strict=True))
    with pytest.raises(OptionError, match="of pairs is -1"):
        tiny(name, **wrong)


def test_munit_translates_pairs_in_the_style_of_their_truth() -> None:
    """So that a truth of another look is no error of content."""
    method = tiny("munit", pair_weight=1.0)
    pairs = batch_of(2)
    assert isinstance(method, Munit)
    told = replace(batch_of(), pairs=pairs)
    losses = method.hints.losses(method.generators(), told, method.in_style_of_truth)
    generator = method.generator_ab
    content = generator(pairs.a, part="content")
    made = generator(content, part="decode", style=generator(pairs.b, part="style"))
    torch.testing.assert_close(losses["pair_ab"], (made - pairs.b).abs().mean())
