"""Each weight of a loss, given on the command line, scales that loss and no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from geocyclegan.catalogue import METHODS
from geocyclegan.cli.main import cli
from geocyclegan.methods import Batch, NetworkSpec, build_method
from geocyclegan.methods.munit import Munit
from geocyclegan.methods.semantic import Semantic
from geocyclegan.models.style import StyledGenerator
from geocyclegan.training import loop
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.resolve import method_options

SIDE = 32
TOTALS = {"generators", "generator", "discriminators"}
WEIGHTS = [
    ("cyclegan", "lambda-a", {"cycle_a", "identity_a"}),
    ("cyclegan", "lambda-b", {"cycle_b", "identity_b"}),
    ("pix2pix", "lambda-l1", {"l1"}),
    ("cut", "lambda-nce", {"nce", "nce_identity"}),
    ("fastcut", "lambda-nce", {"nce"}),
    ("munit", "lambda-image", {"image_a", "image_b"}),
    ("munit", "lambda-style", {"style_a", "style_b"}),
    ("munit", "lambda-content", {"content_a", "content_b"}),
    ("munit", "lambda-cycle", {"cycle_a", "cycle_b"}),
    ("semantic", "lambda-a", {"cycle_a", "identity_a"}),
    ("semantic", "lambda-b", {"cycle_b", "identity_b"}),
    ("semantic", "lambda-semantic", {"semantic_a", "semantic_b"}),
]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the configuration that `geocyclegan train` would train."""

    def ask(*words: str) -> TrainConfig:
        found: list[TrainConfig] = []

        class Asked(Exception):
            pass

        def catch(config: TrainConfig, **_: Any) -> None:
            found.append(config)
            raise Asked

        monkeypatch.setattr(loop, "train", catch)
        result = CliRunner().invoke(cli, ["--debug", "train", *words])
        assert isinstance(result.exception, Asked), result.output
        return found[0]

    return ask


def method_of(config: TrainConfig) -> Any:
    torch.manual_seed(0)
    own = METHODS[config.method].generators
    spec = NetworkSpec(
        bands_a=2,
        bands_b=2,
        generator=own[0] if own else "resnet6",
        generator_args={"width": 2},
        discriminator_args={"width": 2},
        shared_bands=((0, 0),),
        crop=SIDE,
        classes=3,
    )
    return build_method(config.method, spec, **method_options(config.with_defaults()))


def losses_of(config: TrainConfig) -> dict[str, Tensor]:
    method = method_of(config)
    if isinstance(method, Semantic):
        # Fresh segmenters know nothing, and what they say would not count.
        method._trust = lambda *_: torch.ones(())  # type: ignore[method-assign]
    random = torch.Generator().manual_seed(1)
    a, b = (torch.rand(2, 2, SIDE, SIDE, generator=random) * 2 - 1 for _ in "ab")
    labels = torch.randint(0, 3, (2, SIDE, SIDE), generator=random)
    batch = Batch(a, b, labels_a=labels)
    torch.manual_seed(2)
    losses: dict[str, Tensor] = method.step(batch, method.optimizers(), torch.autograd.backward)
    return losses


@pytest.mark.parametrize(("method", "option", "names"), WEIGHTS)
def test_a_weight_scales_its_loss(
    method: str, option: str, names: set[str], configure: Any
) -> None:
    words = ("--method", method, f"--{option}")
    once, thrice = (losses_of(configure(*words, value)) for value in ("2", "6"))
    assert once.keys() == thrice.keys()
    changed = names & once.keys()
    assert any(once[name] > 0 for name in changed), once
    for name in once.keys() - TOTALS:
        torch.testing.assert_close(thrice[name], once[name] * (3 if name in names else 1))
    apart = sum(thrice[name] - once[name] for name in changed)
    total = next(name for name in ("generators", "generator") if name in once)
    torch.testing.assert_close(thrice[total] - once[total], apart, rtol=1e-4, atol=1e-4)


def test_every_weight_of_the_command_line_is_here() -> None:
    options = {
        (name, field.replace("_", "-"))
        for name, info in METHODS.items()
        for field in info.options
        if field.startswith("lambda_")
    }
    assert options == {(method, option) for method, option, _ in WEIGHTS}


def test_a_style_has_the_length_that_was_asked_for(configure: Any) -> None:
    method = method_of(configure("--method", "munit", "--style-dims", "5"))
    assert isinstance(method, Munit)
    for generator in (method.generator_ab, method.generator_ba):
        assert isinstance(generator, StyledGenerator)
        assert generator.mean_style.shape == (5,)
        generator.set_style(torch.zeros(1, 5))  # another length would not fit the network
