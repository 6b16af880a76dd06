"""Options: ranges, YAML, and what a file may not say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.training.config import TrainConfig, read_options


def test_yaml_gives_every_option_back(tmp_path: Path) -> None:
    config = TrainConfig(
        chips=tmp_path / "some chips",
        name="run",
        d_width=7,
        steps=12,
        crop=64,
        gan_loss="vanilla",
        lr=1e-5,
        identity=0.0,
        flip=False,
        seed=2**40,
    )
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    names = {line.partition(":")[0] for line in (tmp_path / "config.yaml").read_text().splitlines()}
    assert names == {field.name.replace("_", "-") for field in fields(TrainConfig)}


def test_yaml_takes_names_with_either_dash_and_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("d-width: 8\nlambda_a: 5\nlr: 2e-4\nflip: no\nname: 7\n")
    assert read_options(path) == {
        "d_width": 8,
        "lambda_a": 5.0,
        "lr": 2e-4,
        "flip": False,
        "name": "7",
    }
    path.write_text("")
    assert read_options(path) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widht: 3", "widht is no option of train"),
        ("width: wide", "width is 'wide'; expected a whole number"),
        ("width: 3.5", "expected a whole number"),
        ("width: true", "expected a whole number"),
        ("flip: 1", "expected true or false"),
        ("lr: fast", "lr is 'fast'; expected a number"),
        ("width: null", "width is None"),
        ("d_width: 1\nd-width: 2", "given twice"),
        ("- width", "expected lines such as"),
        ("width: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['touch /tmp/owned']", "cannot be read as YAML"),
    ],
)
def test_yaml_refuses(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(OptionError) as error:
        read_options(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_options(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"steps": 0},
        {"steps": 5, "epochs": 5},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lambda_b": -1.0},
        {"identity": float("inf")},
        {"pool": -1},
        {"decay": 1.5},
        {"seed": -1},
        {"save_every": 0},
        {"panel_every": -1},
        {"norm": "batch"},
        {"scene_crops": 4},
        {"norm": "scene", "batch": 2},
        {"scene_crops": 0, "norm": "scene"},
        {"gan_loss": "wgan"},
        {"pair_weight": 1.0},
        {"weak_weight": 1.0, "pairs": Path("x")},
        {"pair_every": 0, "pairs": Path("x")},
        {"gradient_penalty": 5.0, "gan_loss": "hinge"},
        {"gan_loss": "wgan-gp", "method": "dcgan"},
        {"band_map": "1=1", "identity": 0.0},
        {"zoom": 0.5},
        {"rotate": 181.0},
        {"jitter_db": -1.0},
        {"jitter_gain": 1.0},
        {"speckle": 0.0},
        {"band_dropout": float("nan")},
        {"cycle_features": 1.1},
        {"cycle_end": -0.1},
        {"angle_loss": -1.0},
        {"device": "tpu"},
        {"method": "dogan"},
        {"name": ""},
        {"name": "../up"},
        {"name": ".hidden"},
    ],
)
def test_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as error:
        TrainConfig(**wrong)
    assert f"--{next(iter(wrong)).replace('_', '-')}" in str(error.value)


def test_the_given_one_of_steps_and_epochs_stays() -> None:
    config = TrainConfig(steps=5)
    assert config.updated({"epochs": 3}).steps is None
    assert config.updated({"epochs": 3}).updated({"steps": 9}).epochs is None
    assert config.updated({"lr": 1.0}).steps == 5
