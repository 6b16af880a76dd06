from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from geocyclegan.rounding import Tf32, allow_tf32, tf32
from geocyclegan.training.placing import repeatable, settings_kept

MATRICES: Any = torch.backends.cuda.matmul
CUDNN: Any = torch.backends.cudnn


def allowed() -> tuple[bool, bool]:
    return CUDNN.allow_tf32, MATRICES.allow_tf32


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = Tf32.now()
    yield
    before.restore()


@pytest.mark.parametrize("before", [(True, False), (False, False), (True, True), (False, True)])
def test_what_was_is_restored(before: tuple[bool, bool]) -> None:
    allow_tf32(*before)
    with tf32(convolutions=False):
        assert allowed() == (False, False)
        with tf32(convolutions=True, matrices=True):
            assert allowed() == (False, False)  # the outer one needs its digits
    assert allowed() == before
    with pytest.raises(ZeroDivisionError), tf32(convolutions=True):
        raise ZeroDivisionError
    assert allowed() == before


def test_the_newer_words_are_restored_too() -> None:
    CUDNN.conv.fp32_precision, MATRICES.fp32_precision = "ieee", "tf32"
    before = Tf32.now()
    assert before.allowed is None
    with tf32(convolutions=True):
        assert allowed() == (True, False)
    assert (CUDNN.conv.fp32_precision, MATRICES.fp32_precision) == ("ieee", "tf32")
    assert Tf32.now() == before


def test_threads_share_it_until_the_last_one_ends() -> None:
    allow_tf32(True, True)
    inside, leave = threading.Event(), threading.Event()

    def compute() -> None:
        with tf32(convolutions=False):
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=compute)
    with tf32(convolutions=False):
        other.start()
        assert inside.wait(10)
    assert allowed() == (False, False)
    leave.set()
    other.join()
    assert allowed() == (True, True)


def test_training_leaves_the_process_as_it_was() -> None:
    allow_tf32(True, True)
    CUDNN.deterministic, CUDNN.benchmark = False, True
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with settings_kept():
            repeatable(False, torch.device("cpu"))
            allow_tf32(False, False)
        assert allowed() == (True, True)
        assert (CUDNN.deterministic, CUDNN.benchmark) == (False, True)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        CUDNN.benchmark = False
