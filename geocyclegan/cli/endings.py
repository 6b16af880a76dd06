"""How commands end that fail: one line and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from geocyclegan.cli.streams import why_not_written
from geocyclegan.errors import GeoCycleGANError


@contextmanager
def one_line(ctx: click.Context) -> Iterator[None]:
    """Turn what goes wrong inside the block into one line, unless the option `debug` is given.

    Args:
        ctx: of the command.
    """
    try:
        yield
    except GeoCycleGANError as error:
        if ctx.params.get("debug"):
            raise
        # Spaces are kept: a message may hold a path, or a command to be copied.
        line = " ".join(part.strip() for part in str(error).splitlines())
        click.echo(f"Error: {line}", err=True)
        ctx.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("Error: interrupted; nothing half-written was left", err=True)
        ctx.exit(130)
    except MemoryError:
        if ctx.params.get("debug"):
            raise
        click.echo("Error: out of memory; try a smaller --tile, --crop or --batch", err=True)
        ctx.exit(1)
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if ctx.params.get("debug"):
            raise
        unwritten = why_not_written(error) if isinstance(error, OSError) else None
        if unwritten is not None:
            click.echo(f"Error: {unwritten}", err=True)
            ctx.exit(1)
        # A fault of ours, not the user's; it still deserves a line instead of a page.
        line = " ".join(str(error).split()) or "no message"
        click.echo(
            f"Error: unexpected {type(error).__name__}: {line}; {ctx.command_path} --debug ..."
            " shows where, please report it",
            err=True,
        )
        ctx.exit(1)
