"""A step never makes the host wait for its device, nor mixes devices.

Seen without a GPU: the meta device stands for it, whose tensors have no values to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from geocyclegan.catalogue import METHODS
from geocyclegan.methods import Batch, Method, NetworkSpec, build_method
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.resolve import method_options

SIDE = 64
META = torch.device("meta")
aten: Any = torch.ops.aten


class Waiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what makes a host wait for a device.

    Copies between the two, values that are asked for, shapes that depend on values, and tensors
    made of numbers that the host has, which is what a list as an index becomes.
    """

    _ASKING = frozenset(
        {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive"}
    )
    _INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()
        self.count = 0
        self._known = WeakTensorKeyDictionary()

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = [t for t in tensors if t.is_meta]
        if there:
            self.count += 1
            if any(not t.is_meta and t.dim() for t in tensors):
                self.found.add(f"{name} of two devices")
            if name in self._ASKING:
                self.found.add(name)
            # Versions of PyTorch differ in how much of it they show.
            places = args[1] if name in self._INDEXING else []
            made = [each for each in places if isinstance(each, Tensor)]
            if name == "lift_fresh" or any(each not in self._known for each in made):
                self.found.add("numbers of the host")
            if any(each.dtype == torch.bool for each in made):
                self.found.add(f"{name} by a mask")
        if name == "_to_copy" and kwargs.get("device") is not None:
            to = torch.device(kwargs["device"])
            if (to == META) != args[0].is_meta:
                self.found.add(f"copy to {to}")
        out = func(*args, **kwargs)
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self._known[each] = True
        return out


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: x.sum() + 1, set()),
        (lambda x: x[:, 1:] * x.new_ones(()), set()),
        (lambda x: x[:, x.argmax(dim=1)], set()),
        (lambda x: x[:, [0, 1]], {"numbers of the host"}),
        (lambda x: x[x > 0.5], {"index by a mask"}),
        (lambda x: x[x.argmax() % 2], {"_local_scalar_dense"}),
        (lambda x: float(x.sum()), {"_local_scalar_dense"}),
        (lambda x: bool((x > 0).any()), {"_local_scalar_dense"}),
        (lambda x: x.nonzero(), {"nonzero"}),
        (lambda x: x + torch.ones(3), {"add of two devices"}),
        (lambda x: x + torch.ones(3).to(x.device), {"copy to meta"}),
        (lambda x: x.cpu(), {"copy to cpu"}),
    ],
)
def test_what_it_looks_for_is_found(work: Callable[[Tensor], Any], expected: set[str]) -> None:
    x = torch.rand(2, 3, device=META)
    with Waiting() as seen:
        # Some of these cannot go on without values.
        try:
            work(x)
        except (RuntimeError, NotImplementedError):
            assert expected
    assert seen.found == expected
    assert seen.count


class Still:
    """Optimisers fetch nothing by themselves."""

    param_groups: tuple[Any, ...] = ()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing to forget."""

    def step(self) -> None:
        """Nothing to move."""


def make(name: str, **options: Any) -> Method:
    own = METHODS[name].generators
    spec = NetworkSpec(
        bands_a=2,
        bands_b=3,
        shared_bands=((1, 0),),
        generator=own[0] if own else "resnet6",
        generator_args={"width": 2},
        discriminator_args={"width": 2},
        crop=SIDE,
        classes=3,
    )
    defaults = method_options(TrainConfig(method=name).with_defaults())
    with torch.device(META):
        method = build_method(name, spec, **(defaults | options))
    method.joined = True
    return method


def batch_of(masked: bool, hinted: bool = True) -> Batch:
    a, b = (torch.rand(2, n, SIDE, SIDE, device=META) for n in (2, 3))
    mask = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool, device=META) if masked else None
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64, device=META)
    hints = batch_of(masked, False) if hinted else None
    return Batch(a, b, mask, mask, hints, hints, labels_a=labels)


POOLED: dict[str, Any] = {"pool_size": 1}
TERMS: dict[str, Any] = {
    "cycle_critic": 1.0,
    "cycle_features": 0.5,
    "gradient_loss": 1.0,
    "angle_loss": 1.0,
}


@pytest.mark.parametrize(
    ("name", "options", "masked"),
    [
        *((name, {}, masked) for name in METHODS for masked in (False, True)),
        ("cyclegan", TERMS, True),
        ("cyclegan", {"gan_loss": "wgan-gp"}, True),
        ("cyclegan", POOLED, True),
    ],
)
def test_no_method_waits_in_its_step(
    name: str, options: dict[str, Any], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The device that stands for a GPU has none.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    info = METHODS[name]
    if "pairs" in info.options:
        options = {"pair_weight": 1.0, "weak_weight": 1.0} | options
    method, batch = make(name, **options), batch_of(masked)
    method.set_progress(0.5)
    generators: dict[Any, Any] = {**method.generators(), **method.makers()}
    meter, mean = LossMeter(), RunningMean(generators, 0.9)
    optimizers: Any = {key: Still() for key in method.optimizers()}
    with Waiting() as seen:
        for step in range(2 if options == POOLED else 1):
            meter.add(step, method.step(batch, optimizers, torch.autograd.backward))
            mean.update(step + 1)
    assert seen.count > 100
    assert not seen.found
    for generator in generators.values():
        assert any(weight.grad is not None for weight in generator.parameters())


def test_a_frozen_segmenter_does_not_wait_for_labels() -> None:
    method: Any = make("semantic")
    method.learns = False
    method.segmenter_a.requires_grad_(False)
    with Waiting() as seen:
        method.step(batch_of(True), {"generators": Still(), "discriminators": Still()}, _backward)
    assert not seen.found


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
