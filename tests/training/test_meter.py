"""Means of losses, and the first step that was not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geocyclegan.training.meter import LossMeter, Mail, cuda_mail


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


class Slow:
    """A device that is so many looks behind."""

    def __init__(self, behind: int) -> None:
        self.behind, self.left, self.records = behind, 0, 0

    def record(self) -> None:
        self.left, self.records = self.behind, self.records + 1

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("behind", [0, 1, 2, 5])
def test_word_of_a_bad_step_comes_without_being_waited_for(behind: int) -> None:
    slow = Slow(behind)
    meter = LossMeter(lambda device: Mail(torch.empty((), dtype=torch.int64), slow))
    assert not meter.noticed()
    first = None
    for step in range(1, 30):
        meter.add(step, _losses(g=float("nan") if step in (6, 8) else 1.0))
        if meter.noticed() and first is None:
            first = step
    # A number may be under way when the bad step is done; the next one tells of it.
    assert first is not None
    assert 6 <= first <= 6 + behind + 1
    bad = meter.bad()
    assert bad is not None
    assert (bad[0], list(bad[2])) == (6, ["g"])
    assert slow.records <= 29


def test_what_has_not_come_is_not_read() -> None:
    there, slow = torch.tensor(7), Slow(3)
    mail = Mail(there, slow)
    assert mail.latest() == -1
    mail.send(torch.tensor(4))
    # Not overwritten while the device may be writing to it.
    mail.send(torch.tensor(5))
    assert [mail.latest() for _ in range(3)] == [-1, -1, 4]
    mail.send(torch.tensor(5))
    assert slow.records == 2
    assert [mail.latest() for _ in range(4)] == [4, 4, 4, 5]


def test_no_mail_but_from_cuda() -> None:
    assert cuda_mail(torch.device("cpu")) is None
    assert cuda_mail(torch.device("meta")) is None
    meter = LossMeter()
    meter.add(1, _losses(g=float("nan")))
    assert not meter.noticed()
    assert meter.bad() is not None
