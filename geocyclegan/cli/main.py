"""The `geocyclegan` group: verbosity, progress, and errors that end in one line."""

from __future__ import annotations

import importlib
import keyword
import logging
import signal
import sys
from typing import Any

import click

from geocyclegan import __version__
from geocyclegan.cli.options import Settings
from geocyclegan.errors import GeoCycleGANError

# A command is the attribute `command` of the module with its name; modules are imported on demand,
# so that `--help` needs neither torch nor GDAL.
COMMANDS = {
    "chip": "Cut scenes into training chips of domain A or B.",
    "train": "Train a translation model on chips.",
    "infer": "Translate whole scenes with a trained model.",
    "sample": "Make chips from noise with a trained model.",
    "info": "Show a scene, a chip folder or a model as a table.",
    "verify": "Find damage in chips, products and models.",
    "import": "Make a model of weights that another program trained.",
    "demo": "Run the whole chain on the sample scenes.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        # A word of Python is no name of a module that other modules could import.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"geocyclegan.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that a user can meet becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except GeoCycleGANError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
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
            # A fault of ours, not the user's; it still deserves a line instead of a page.
            if ctx.params.get("debug"):
                raise
            line = " ".join(str(error).split()) or "no message"
            click.echo(
                f"Error: unexpected {type(error).__name__}: {line}; --debug before the command"
                " shows where, please report it",
                err=True,
            )
            ctx.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geocyclegan")
@click.option("-v", "--verbose", count=True, help="Say more; twice for even more.")
@click.option("-q", "--quiet", count=True, help="Say less; results and errors only.")
@click.option(
    "--progress",
    type=click.Choice(["bar", "json", "none"]),
    default=None,
    help="How to show progress: a bar, JSON lines on standard error, or not at all.  "
    "[default: bar on a terminal, none elsewhere]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: int, progress: str | None, debug: bool) -> None:
    """Translate whole georeferenced scenes between imaging domains, without pixel pairs.

    \b
        geocyclegan chip sar.tif --domain a
        geocyclegan chip optical.tif --domain b
        geocyclegan train
        geocyclegan infer sar.tif --out translated.tif

    `geocyclegan demo` runs these four on sample scenes that come with the package.
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.progress import ProgressKind, set_progress

    level = logging.WARNING - 10 * (verbose - quiet)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("geocyclegan").setLevel(max(level, logging.DEBUG))
    # GDAL's remarks on files that it reads well; its errors reach the user through ours.
    logging.getLogger("rasterio").setLevel(max(level + 10, logging.DEBUG))
    automatic: ProgressKind = "bar" if sys.stderr.isatty() and not quiet else "none"
    kind: ProgressKind = progress or automatic  # type: ignore[assignment]
    set_progress(kind)
    ctx.obj = Settings(verbosity=verbose - quiet, quiet=bool(quiet), progress=kind, debug=debug)


def main() -> None:
    """Entry point of the `geocyclegan` script."""
    # So that a terminated command cleans up as an interrupted one does; `train` has its own way.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cli(prog_name="geocyclegan")
