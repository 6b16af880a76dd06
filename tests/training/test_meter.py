"""Means of losses, and the first step that was not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from geocyclegan.training.meter import LossMeter


def _losses(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means() -> None:
    meter = LossMeter()
    meter.add(1, _losses(g=1.0, d=4.0))
    meter.add(2, _losses(g=2.0, d=8.0))
    assert meter.take() == {"g": 1.5, "d": 6.0}
    meter.add(3, _losses(g=5.0, d=0.0))
    assert meter.take() == {"g": 5.0, "d": 0.0}
    assert meter.bad() is None


def test_the_first_bad_step_is_remembered() -> None:
    meter = LossMeter()
    assert meter.bad() is None
    meter.add(6, _losses(g=1.0, d=2.0))
    meter.add(7, _losses(g=float("inf"), d=2.0))
    meter.add(8, _losses(g=float("nan"), d=float("nan")))
    meter.add(9, _losses(g=1.0, d=2.0))
    assert meter.bad() == (7, 0, {"g": float("inf")})
    meter.take()
    assert meter.bad() == (7, 0, {"g": float("inf")})


def test_passes_of_a_step_count_alike_and_the_bad_one_is_named() -> None:
    meter = LossMeter()
    meter.add(1, _losses(g=1.0), _losses(g=3.0))
    assert meter.take() == {"g": 2.0}
    meter.add(2, _losses(g=1.0), _losses(g=float("nan")), _losses(g=float("inf")))
    bad = meter.bad()
    assert bad is not None
    assert bad[:2] == (2, 1)


def test_a_half_full_line_survives() -> None:
    meter, other = LossMeter(), LossMeter()
    meter.add(1, _losses(g=0.1))
    other.load_state_dict(meter.state_dict(), torch.device("cpu"))
    for each in (meter, other):
        each.add(2, _losses(g=0.7))
    assert meter.take() == other.take()
    other.load_state_dict(LossMeter().state_dict(), torch.device("cpu"))
    assert other.take() == {}
