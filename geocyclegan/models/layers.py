"""The steps that a network's plan is made of.

A plan is a flat list of steps on one running tensor and a stack of saved ones. Forward pass,
receptive field and every pass over a scene's statistics follow from the plan, so a network is
defined in one place.

    apply   x ← module(x)
    norm    x ← module(x, weights at the module's scale, position in the scene)
    save    push x
    add     x ← pop + x              (end of a residual block)
    concat  x ← [pop, x] by channel  (U-Net skip)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.dense import At
from geocyclegan.models.norm import SceneNorm2d

StepKind = Literal["apply", "norm", "save", "add", "concat"]

_ROLES: dict[str, str] = {
    "ReflectionPad2d": "pad",
    "Conv2d": "conv",
    "ConvTranspose2d": "conv",
    "BlurPool2d": "blur",
    "Upsample": "resize",
    "SceneNorm2d": "norm",
    "AdaptiveNorm2d": "norm",
    "ReLU": "act",
    "LeakyReLU": "act",
    "Tanh": "act",
    "Dropout": "drop",
}


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a plan.

    Attributes:
        kind: what is done; see the module's docstring.
        module: what "apply" and "norm" apply; None for the others.
        name: the module's key in the network's state dict.
    """

    kind: StepKind
    module: nn.Module | None = None
    name: str = ""


def unit(name: str, *modules: nn.Module | None) -> list[Step]:
    """Steps of a padding-convolution-norm-activation unit, each named after its role.

    Modules that are None are left out, so that an optional norm needs no branch at the call.
    """
    steps: list[Step] = []
    for module in modules:
        if module is not None:
            kind: StepKind = "norm" if isinstance(module, SceneNorm2d) else "apply"
            steps.append(Step(kind, module, f"{name}_{_ROLES[type(module).__name__]}"))
    return steps


def modules_of(plan: Iterable[Step]) -> nn.ModuleDict:
    """The plan's modules by name, to be registered by the network that owns the plan."""
    return nn.ModuleDict({step.name: step.module for step in plan if step.module is not None})


def advance(
    step: Step,
    x: Tensor,
    stack: list[Tensor],
    weights: Mapping[int, Tensor] | None,
    at: Sequence[At] | None = None,
) -> Tensor:
    """Carry out one step.

    Args:
        step: what to do.
        x: the running tensor (samples, channels, height, width).
        stack: saved tensors; changed by save, add and concat.
        weights: valid share (samples, 1, height/scale, width/scale) by scale; None: all valid.
        at: row and column of each sample in its scene, for norm layers in mode "dense".

    Returns:
        The new running tensor.

    Raises:
        ValueError: the step lacks its module, or its norm layer the positions that it needs.
        KeyError: `weights` lacks the scale of a norm layer.
    """
    if step.kind == "save":
        stack.append(x)
        return x
    if step.kind == "add":
        return stack.pop() + x
    if step.kind == "concat":
        return torch.cat([stack.pop(), x], dim=1)
    module = step.module
    if isinstance(module, SceneNorm2d):
        out: Tensor = module(x, None if weights is None else weights[module.scale], at)
        return out
    if module is None:
        raise ValueError(f"a step of kind {step.kind!r} needs a module")
    out = module(x)
    return out


def require_positive(**values: int) -> None:
    """Refuse sizes that are no positive whole numbers.

    Raises:
        OptionError: names the first argument that is at fault.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name} is {value!r}; expected a whole number of at least 1")
