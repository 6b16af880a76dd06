"""Options of the command line as keyword arguments: one definition, in the dataclasses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from geocyclegan.errors import OptionError

P = ParamSpec("P")
F = TypeVar("F")
R = TypeVar("R")

Scenes = str | Path | list[str] | list[Path] | tuple[str | Path, ...]
"""A scene, or several: files, glob patterns, folders, URLs."""


def takes_options_of(
    options: Callable[P, object],
) -> Callable[[Callable[Concatenate[F, ...], R]], Callable[Concatenate[F, P], R]]:
    """Give a function of one argument and `**given` the keyword arguments of a dataclass.

    Type checkers and `help()` see them with their types and defaults; nothing is written twice.
    """

    def decorate(function: Callable[Concatenate[F, ...], R]) -> Callable[Concatenate[F, P], R]:
        told: Callable[Concatenate[F, P], R] = _told(function, options)
        return told

    return decorate


def takes(options: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function of `**given` the arguments of a dataclass, all of them."""

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        told: Callable[P, R] = _told(function, options)
        return told

    return decorate


def _told(function: Any, options: Callable[..., object]) -> Any:
    own = inspect.signature(function)
    first = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(options).parameters.values()
        if parameter.name not in own.parameters
    ]
    function.__signature__ = own.replace(parameters=[*first, *added])
    return function


def typed(options: type, given: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """Bring keyword arguments into the types of a dataclass: paths from text, tuples from lists.

    Raises:
        OptionError: a name is no option of the verb, or a value none of its choices.
    """
    kinds = get_type_hints(options)
    known = {field.name for field in fields(options)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise OptionError(f"{unknown[0]}: no option of {verb}; it has: {', '.join(sorted(known))}")
    for name, value in given.items():
        choices = _choices(kinds[name])
        if choices and value not in choices:
            raise OptionError(f"{name}={value!r}: choose one of: {', '.join(map(repr, choices))}")
    return {name: _as(kinds[name], value) for name, value in given.items()}


def _choices(kind: Any) -> list[Any]:
    """Return the values of a type that has few; none of others."""
    found: list[Any] = []
    for each in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if get_origin(each) is Literal:
            found += get_args(each)
        elif each is NoneType:
            found.append(None)
        else:
            return []
    return found


def _as(kind: Any, value: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    is_tuple = kind is tuple or any(getattr(k, "__origin__", None) is tuple for k in (kind, *kinds))
    if is_tuple and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if is_tuple and isinstance(value, list):
        return tuple(value)
    return value


def listed(scenes: Scenes) -> list[str | Path]:
    """Return scenes as a list, whether one or several were named."""
    return [scenes] if isinstance(scenes, str | Path) else list(scenes)
