"""What CUDA may round what it multiplies to, for as long as our code runs and no longer.

PyTorch keeps this for the whole process, which may belong to somebody else: a notebook, a worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

_cudnn: Any = torch.backends.cudnn
_matrices: Any = torch.backends.cuda.matmul


@dataclass(frozen=True)
class Tf32:
    """PyTorch's own state, in its older and its newer words, which must not contradict each other.

    Attributes:
        allowed: for convolutions and products of matrices; None where only newer words are used.
        precisions: of convolutions, of recurrent layers, of products of matrices.
    """

    allowed: tuple[bool, bool] | None
    precisions: tuple[str, str, str]

    @classmethod
    def now(cls) -> Tf32:
        """Return the state of this moment."""
        try:
            allowed = _cudnn.allow_tf32, _matrices.allow_tf32
        except RuntimeError:
            # Who uses the newer words cannot be asked in the older ones.
            allowed = None
        return cls(
            allowed,
            (
                _cudnn.conv.fp32_precision,
                _cudnn.rnn.fp32_precision,
                _matrices.fp32_precision,
            ),
        )

    def restore(self) -> None:
        """Make it the state again."""
        if self.allowed is not None:
            allow_tf32(*self.allowed)
        _cudnn.conv.fp32_precision, _cudnn.rnn.fp32_precision = self.precisions[:2]
        _matrices.fp32_precision = self.precisions[2]


def allow_tf32(convolutions: bool, matrices: bool) -> None:
    """Allow TF32 in convolutions and in products of matrices, until somebody says otherwise."""
    _cudnn.allow_tf32, _matrices.allow_tf32 = convolutions, matrices


@dataclass
class _Users:
    """Who computes at this moment, in several threads perhaps."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    wishes: list[tuple[bool, bool]] = field(default_factory=list)
    before: Tf32 | None = None

    def settle(self) -> None:
        if self.wishes:
            # What is exact enough for one of them is so for all.
            allow_tf32(*(all(wish[i] for wish in self.wishes) for i in (0, 1)))
        elif self.before is not None:
            self.before.restore()


_users = _Users()


@contextmanager
def tf32(*, convolutions: bool, matrices: bool = False) -> Iterator[None]:
    """Allow or forbid TF32 while the block runs; the last of several threads restores what was."""
    wish = convolutions, matrices
    with _users.lock:
        if not _users.wishes:
            _users.before = Tf32.now()
        _users.wishes.append(wish)
        _users.settle()
    try:
        yield
    finally:
        with _users.lock:
            _users.wishes.remove(wish)
            _users.settle()
