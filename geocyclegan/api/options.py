"""Options of the command line as keyword arguments: one definition, in the dataclasses."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from numbers import Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
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

if TYPE_CHECKING:
    import click

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
    """Bring keyword arguments into the types of a dataclass.

    Text is read as the command line reads it, by the option of the same name: "2G", "1-3,B08",
    "auto". So are paths, lists and numbers where they are plainly meant.

    Args:
        options: the dataclass.
        given: the arguments.
        verb: the command, or a function of its name and more, such as "chip_pairs".

    Raises:
        OptionError: a name is no option of the verb, or a value is none of the option.
    """
    kinds = get_type_hints(options)
    known = {field.name for field in fields(options)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise OptionError(f"{unknown[0]}: no option of {verb}; it has: {', '.join(sorted(known))}")
    command = _command(verb.partition("_")[0])
    return {name: _as(kinds[name], name, value, command) for name, value in given.items()}


def _command(verb: str) -> click.Command:
    # Imported here: the command line is not needed before there are options to read.
    command: click.Command = importlib.import_module(f"geocyclegan.cli.{verb}").command
    return command


def _as(kind: Any, name: str, value: Any, command: click.Command) -> Any:
    if isinstance(value, str):
        return _read(kind, name, value, command)
    plain = _plain(kind, value)
    if plain is not _MISFIT:
        return plain
    # A number or a path in the place of text, or one in the place of several.
    if isinstance(value, Real | PathLike) and not isinstance(value, bool):
        for meant in ((value,), (str(value),)):
            plain = _plain(kind, meant)
            if plain is not _MISFIT:
                return plain
        if _plain(kind, str(value)) is not _MISFIT:
            return _read(kind, name, str(value), command)
    if isinstance(value, list | tuple):
        words = tuple(str(v) for v in value if isinstance(v, str | Real | PathLike))
        if len(words) == len(value) and _plain(kind, words) is not _MISFIT:
            return words
    raise OptionError(f"{name}={value!r}: expected {_told_kind(kind)}")


def _read(kind: Any, name: str, text: str, command: click.Command) -> Any:
    """Read text as the command line does."""
    import click

    names = {"config_file": "config"}
    found = [p for p in command.params if p.name and names.get(p.name, p.name) == name]
    if not found:
        if _plain(kind, text) is _MISFIT:
            raise OptionError(f"{name}={text!r}: expected {_told_kind(kind)}")
        return text
    option = found[0]
    value: Any = (text,) if option.multiple else text
    try:
        return option.process_value(click.Context(command), value)
    except click.UsageError as error:
        raise OptionError(f"{name}={text!r}: {error.message.rstrip('.')}") from None


_MISFIT = object()


def _plain(kind: Any, value: Any) -> Any:
    """Return a value as one of a kind, numbers as plain ones; `_MISFIT` if it is none."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        found = (_plain(each, value) for each in get_args(kind))
        return next((each for each in found if each is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in get_args(kind) else _MISFIT
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _MISFIT
        parts = tuple(_plain(get_args(kind)[0], each) for each in value)
        return _MISFIT if _MISFIT in parts else parts
    if kind in (int, float):
        if not isinstance(value, Real) or isinstance(value, bool):
            return _MISFIT
        return kind(value) if kind is float or float(value).is_integer() else _MISFIT
    return value if isinstance(value, kind) else _MISFIT


def _told_kind(kind: Any) -> str:
    """Say what is expected."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_told_kind(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a tuple of {_told_kind(get_args(kind)[0])}"
    return "None" if kind is NoneType else str(kind.__name__)


def path_of(name: str, value: Any) -> Path:
    """Return an argument as a path.

    Raises:
        OptionError: it is none.
    """
    if isinstance(value, str | PathLike):
        return Path(value)
    raise OptionError(f"{name}={value!r}: expected a path")


def listed(scenes: Scenes) -> list[str | Path]:
    """Return scenes as a list, whether one or several were named.

    Raises:
        OptionError: they are neither names nor several of them, such as an open dataset.
    """
    several = [scenes] if isinstance(scenes, str | PathLike) else scenes
    if isinstance(several, Iterable) and not isinstance(several, bytes):
        found: list[Any] = list(several)
        wrong = [item for item in found if not isinstance(item, str | PathLike)]
    else:
        found, wrong = [], [several]
    if wrong:
        raise OptionError(
            f"scenes: {type(wrong[0]).__name__}: expected paths, glob patterns, folders or URLs,"
            " one or several; of an open dataset, give its name"
        )
    return [item if isinstance(item, str) else Path(item) for item in found]
