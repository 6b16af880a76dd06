# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked of the toolkit, as tables: one line for each parameter of a dialog.

A table gives both the dialog (see toolkit.py) and the command line. Nothing here needs QGIS.
Named tuples instead of dataclasses, which cannot be made in the way that QGIS imports scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

KINDS = (
    *("text", "integer", "number", "choice", "switch"),
    *("raster", "rasters", "vector", "crs", "file", "folder"),
)


class Option(NamedTuple):
    """A parameter of a dialog and the option of the command line that it becomes.

    Attributes:
        name: the parameter's name in QGIS.
        flag: the option; empty for one that the algorithm itself puts into the command.
        label: what the dialog calls it.
        kind: one of `KINDS`.
        help: the tooltip.
        default: its value if it is left alone, the same as the command line's; None: not set.
        choices: of a "choice".
        least: smallest number.
        most: largest number.
        needed: it must be given.
        advanced: it is shown among the advanced parameters.
    """

    name: str
    flag: str
    label: str
    kind: str
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    needed: bool = False
    advanced: bool = True


def arguments(options: Sequence[Option], values: Mapping[str, Any]) -> list[str]:
    """Return the command line's options for values of parameters.

    What is not set or equals the default is left out, so that a configuration file, or the options
    of a run that goes on, are not overruled by what nobody chose.

    Args:
        options: the table.
        values: by name of the parameter; a list for "rasters".
    """
    found: list[str] = []
    for option in options:
        value = values.get(option.name)
        if not option.flag or value is None or value == option.default or value == "":
            continue
        if option.kind == "switch":
            if value:
                found.append(option.flag)
            continue
        for each in value if isinstance(value, (list, tuple)) else (value,):
            # One word, since a value may begin with a minus.
            found.append(f"{option.flag}={_text(each)}")
    return found


def split_extra(text: str | None) -> list[str]:
    """Split further options, typed as on a command line, into words.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    lexer = shlex.shlex(text or "", posix=True)
    lexer.whitespace_split = True
    lexer.commenters = lexer.escape = ""  # a backslash is part of a path on Windows
    try:
        return list(lexer)
    except ValueError as error:
        raise ValueError(f"Further options: {text}: {error}".rstrip(".")) from None


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
