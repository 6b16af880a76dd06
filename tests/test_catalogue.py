"""The facts about methods: what is declared is what there is, and what is not taken is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from geocyclegan.catalogue import METHODS, MethodInfo, method_fields
from geocyclegan.errors import OptionError
from geocyclegan.methods import methods
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.resolve import require_same


def test_the_catalogue_and_the_registry_name_the_same_methods() -> None:
    assert methods.names() == tuple(METHODS)
    assert set(method_fields()) <= {field.name for field in fields(TrainConfig)}
    # None is "the method's own default" for each of them, and for nothing that all methods take.
    assert {getattr(TrainConfig(), name) for name in method_fields()} == {None}


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_the_methods_own_and_survive_a_file(name: str, tmp_path: Path) -> None:
    config = TrainConfig(method=name).with_defaults()
    for option, default in METHODS[name].options.items():
        assert getattr(config, option) == default
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> MethodInfo:
    """A second method, which takes less than the first."""
    info = MethodInfo("other", "a test", {"lr": 1e-4, "batch": 7})
    monkeypatch.setitem(METHODS, "other", info)
    return info


def test_an_option_that_the_method_does_not_take_is_refused(other: MethodInfo) -> None:
    with pytest.raises(OptionError) as error:
        TrainConfig(method="other", lambda_a=3.0)
    line = str(error.value)
    assert "--lambda-a 3.0: --method other does not take it" in line
    assert line.endswith("it takes: --lr, --batch")
    assert "\n" not in line
    with pytest.raises(OptionError, match="--method nothing: choose one of: cyclegan"):
        TrainConfig(method="nothing")


def test_another_method_starts_from_its_own_defaults(other: MethodInfo) -> None:
    config = TrainConfig(lambda_a=3.0, lr=5.0).with_defaults().updated({"method": "other"})
    assert config.with_defaults().lr == 1e-4
    assert config.with_defaults().batch == 7
    assert config.lambda_a is None
    kept = TrainConfig(lr=5.0).updated({"method": "other", "lr": 2.0})
    assert kept.lr == 2.0


def test_a_stored_run_that_names_no_default_is_the_same_run() -> None:
    """As one of an earlier version, which did not have all of the options."""
    now = TrainConfig(steps=3).with_defaults()
    require_same(now, TrainConfig(steps=3, lr=2e-4))
    with pytest.raises(OptionError, match=r"--identity 0\.5: the run None was started with 0"):
        require_same(now, TrainConfig(steps=3, identity=0.0))
