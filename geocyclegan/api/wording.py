"""Errors that leave the functions for Python name their arguments, not the command's options.

What is raised below knows the command line only. Here, where it passes into Python, the options of
the verb, and no other words, are spelled as its arguments: `--overwrite` as `overwrite=True`,
`--out` as `out=`. Commands that a message quotes stay as they are.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from geocyclegan.errors import GeoCycleGANError

# A quoted command up to the end of its clause, or an option.
_WORD = re.compile(r"(?P<command>\bgeocyclegan [a-z]+ [^;]*)|(?<![\w-])(?P<option>--[a-z][\w-]*)")
# Errors begin with the option at fault, its value and a colon.
_AT_FAULT = re.compile(r"^(?P<name>\w+=) (?P<value>[^\s=]+:)")
# Options of the command that are no arguments, and those of another name.
_ONLY_THERE = {"pair", "finds_lr", "as_json", "quicklook", "histogram"}
_NAMES = {"config_file": "config"}


@cache
def _arguments(verb: str) -> dict[str, str]:
    """Return each option of a verb with its spelling in Python."""
    import click

    command: click.Command = importlib.import_module(f"geocyclegan.cli.{verb}").command
    spelled: dict[str, str] = {}
    for param in command.params:
        name = _NAMES.get(str(param.name), str(param.name))
        if not isinstance(param, click.Option) or name in _ONLY_THERE:
            continue
        yes, no = (f"{name}=True", f"{name}=False") if param.is_flag else (f"{name}=", "")
        spelled |= dict.fromkeys(param.opts, yes) | dict.fromkeys(param.secondary_opts, no)
    return spelled


def in_python(message: str, verb: str) -> str:
    """Spell the options of a verb in a message as arguments of its function."""
    arguments = _arguments(verb)

    def spell(found: re.Match[str]) -> str:
        return found["command"] or arguments.get(found["option"], found["option"])

    return _AT_FAULT.sub(r"\g<name>\g<value>", _WORD.sub(spell, message))


@contextmanager
def python_words(verb: str) -> Iterator[None]:
    """Spell options as arguments in the errors of a block, or of a function as its decorator."""
    try:
        yield
    except GeoCycleGANError as error:
        text = str(error)
        spelled = in_python(text, verb)
        if spelled != text:
            error.args = (spelled, *error.args[1:])
        raise
