"""CUDA graphs: a network's kernels go to the device as one recording, not one by one.

PyTorch's compiler records them and keeps the recordings apart (its "CUDA graph trees"). What a
recorded network answers with, forwards and backwards, lies in memory that belongs to the recording.
Nothing is written over that somebody still holds, until `cudagraph_mark_step_begin` is called: from
then on all of it may be. It is called here before each pass of a step, so nothing that a recording
wrote may be looked at after its pass: image pools keep copies, losses and running means are sums of
their own, and gradients are forgotten by the optimiser's step or copied until then (see
`optimizers.Passes`). Weights and buffers, which recordings read where they lie, stay where they
are: optimisers and running statistics change them in place.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable

import torch
from torch import Tensor

from geocyclegan.methods.base import Batch

log = logging.getLogger(__name__)

_MOST_FORMS = 8
"""Each form of a batch has recordings of its own, which take memory and a slow step or two."""

_AT_FAULT = re.compile(r"captur|cuda ?graph", re.IGNORECASE)


class Graphs:
    """Whether networks run from recordings, and in which passes.

    Args:
        asked: whether they shall.

    Attributes:
        on: whether they do; `placing.compile_networks` takes it back where they cannot.
        replaying: whether those of the current pass do.
    """

    def __init__(self, asked: bool = False) -> None:
        self.on = asked
        self.replaying = asked
        self._forms: set[Hashable] = set()
        self._said = False

    def begin(self, batch: Batch | None = None) -> None:
        """Let go of what earlier passes have left in the recordings' memory.

        Args:
            batch: what the pass sees; None: a trial, which counts as no form.
        """
        if not self.on:
            return
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self.replaying = batch is None or self._is_recorded(form_of(batch))

    def _is_recorded(self, form: Hashable) -> bool:
        if form in self._forms:
            return True
        if len(self._forms) < _MOST_FORMS:
            self._forms.add(form)
            return True
        if not self._said:
            self._said = True
            log.warning(
                "--cuda-graphs: the batches have more than %d forms (with and without nodata and"
                " pairs); the networks run without recordings on the others",
                _MOST_FORMS,
            )
        return False

    def explain(self, error: BaseException) -> str | None:
        """Say what to do about an error of recordings; None if it is none of theirs."""
        if not self.on or not _AT_FAULT.search(str(error)):
            return None
        line = (str(error).strip().splitlines() or ["no message"])[0]
        return f"--cuda-graphs: {line}; go on without, by --resume --no-cuda-graphs"


def form_of(batch: Batch) -> Hashable:
    """Return what decides which code runs for a batch: shapes, and which masks and pairs it has."""
    tensors = batch.a, batch.b, batch.valid_a, batch.valid_b
    hints = (None if each is None else form_of(each) for each in (batch.pairs, batch.weak))
    return (*map(_shape, tensors), *hints)


def _shape(x: Tensor | None) -> Hashable:
    return None if x is None else tuple(x.shape)
