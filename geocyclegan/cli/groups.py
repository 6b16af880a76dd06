"""Groups of commands: what all of them take, and a guess where there is no such command."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from typing import Any

import click

from geocyclegan.cli.options import Settings

Settle = Callable[[int, int, str | None, bool], Settings]
"""Puts -v, -q, --progress and --debug into effect."""

_NAMES = ("verbose", "quiet", "progress", "debug")
# What others call the work of the three verbs.
_OTHER_WORDS = {
    "tile": "chip",
    "cut": "chip",
    "fit": "train",
    "predict": "infer",
    "translate": "infer",
    "apply": "infer",
    "check": "verify",
    "version": "--version",
    "help": "--help",
}


class HelpfulGroup(click.Group):
    """A group that suggests a command for one that it has not."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant by the first argument."""
        names, asked = self.list_commands(ctx), args[0]
        if asked in names or asked.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        other = _OTHER_WORDS.get(asked.casefold(), "")
        near = difflib.get_close_matches(asked.casefold(), names, 2, 0.6)
        known = {*names, *(word for param in self.get_params(ctx) for word in param.opts)}
        found = [other] if other in known else near
        meant = " or ".join(f"{ctx.command_path} {name}" for name in found)
        hint = f"Did you mean {meant}?" if found else f"There are {', '.join(names)}."
        ctx.fail(f"No such command {asked!r}. {hint}")


def settings_options(**more: Any) -> list[click.Parameter]:
    """Make -v, -q, --progress and --debug.

    Args:
        **more: what goes to `click.Option` besides.
    """
    return [
        click.Option(
            ["-v", "--verbose"], count=True, help="Say more; twice for even more.", **more
        ),
        click.Option(
            ["-q", "--quiet"], count=True, help="Say less; results and errors only.", **more
        ),
        click.Option(
            ["--progress"],
            type=click.Choice(["bar", "json", "none"]),
            default=None,
            help="How to show progress: a bar, JSON lines on standard error, or not at all.  "
            "[default: bar on a terminal, none elsewhere]",
            **more,
        ),
        click.Option(
            ["--debug"], is_flag=True, default=False, help="Show the traceback of an error.", **more
        ),
    ]


def with_settings(command: click.Command, settle: Settle) -> click.Command:
    """Return a command that takes these options, too, at the end of its own.

    -v and -q add up with those before the command, the later --progress counts.

    Args:
        command: any; of a group, its commands take them, too.
        settle: puts them into effect.
    """

    def take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        root = ctx.find_root()
        if not value or not root.params.keys() >= set(_NAMES):
            return
        given = {name: root.params[name] for name in _NAMES}
        name = str(param.name)
        given[name] = given[name] + value if name in ("verbose", "quiet") else value
        # Where errors look whether to show their traceback.
        root.params |= given
        settings = settle(*(given[name] for name in _NAMES))
        at: click.Context | None = ctx
        while at is not None:
            at.obj, at = settings, at.parent

    taken = copy.copy(command)
    # Eager: they are in effect before any other option complains.
    options = settings_options(expose_value=False, is_eager=True, callback=take)
    taken.params = [*command.params, *options]
    if isinstance(taken, click.Group):
        taken.commands = {
            name: with_settings(each, settle) for name, each in taken.commands.items()
        }
    return taken
