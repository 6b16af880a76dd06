"""Advice for runs that take hours on a CPU, from their own first steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from geocyclegan.training import pace
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train
from geocyclegan.training.pace import Pace

CONFIG = TrainConfig(generator="resnet9", width=64, crop=256, steps=1000)


def said(config: TrainConfig, seconds: float, total: int = 1000) -> list[str]:
    watch = Pace(config, total)
    lines = [watch.advice(step, now=1e6 + seconds * step) for step in range(1, 50)]
    return [line for line in lines if line is not None]


def test_one_line_where_hours_are_left() -> None:
    (line,) = said(CONFIG, 36.0)
    assert "the 994 steps that are left take some 10 hours" in line
    for way in ("--generator resnet6", "--width than 64", "--crop than 256", "fewer --steps"):
        assert way in line
    assert "\n" not in line
    assert said(CONFIG, 3.6) == []
    assert said(CONFIG, 36.0, total=20) == []


def test_only_what_would_make_it_shorter() -> None:
    (line,) = said(replace(CONFIG, generator="resnet6", width=16, crop=128), 36.0)
    for way in ("--generator", "--width", "--crop"):
        assert way not in line


def test_a_slow_first_step_is_not_the_pace() -> None:
    watch = Pace(CONFIG, 1000)
    watch.advice(1, now=0.0)
    assert [watch.advice(step, now=1e5 + step) for step in range(2, 20)] == [None] * 18


def test_a_run_says_it(tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_LONG", 0.0)
    lines: list[str] = []
    train(tiny(val_every=0, panel_every=0), say=lines.append)
    assert len([line for line in lines if "2 steps that are left" in line]) == 1
