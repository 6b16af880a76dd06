"""The `geocyclegan` group: verbosity, progress, and errors that end in one line."""

from __future__ import annotations

import importlib
import keyword
import logging
import signal
import sys
from typing import Any

import click

from geocyclegan.cli.endings import one_line
from geocyclegan.cli.groups import HelpfulGroup, settings_options, with_settings
from geocyclegan.cli.options import Settings
from geocyclegan.cli.parent import follow_stdin
from geocyclegan.cli.streams import open_missing_streams, why_not_written
from geocyclegan.cli.version import show_version

# A command is the attribute `command` of the module with its name; modules are imported on demand,
# so that `--help` needs neither torch nor GDAL.
COMMANDS = {
    "chip": "Cut scenes into training chips of domain A or B.",
    "train": "Train a translation model on chips.",
    "infer": "Translate whole scenes with a trained model.",
    "sample": "Make chips from noise with a trained model.",
    "info": "Show a scene, a chip folder or a model as a table.",
    "export": "Write a model as ONNX, torch program or STAC item.",
    "verify": "Find damage in chips, products and models.",
    "import": "Make a model of weights that another program trained.",
    "demo": "Run the whole chain on the sample scenes.",
    "qgis": "Put the three verbs into QGIS's Processing toolbox.",
}


class LazyGroup(HelpfulGroup):
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
        return with_settings(module.command, settle)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that a user can meet becomes one line and an exit code."""
        with one_line(ctx):
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 the data, the model or the output is at fault; 2 the command is;"
    " 130 interrupted; 143 terminated. Completion: eval"
    ' "$(_GEOCYCLEGAN_COMPLETE=bash_source geocyclegan)", likewise zsh_source and fish_source.',
    params=settings_options(),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version, and those of GDAL, PROJ, torch and CUDA for bug reports.",
)
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
    ctx.obj = settle(verbose, quiet, progress, debug)


def settle(verbose: int, quiet: int, progress: str | None, debug: bool) -> Settings:
    """Put the options that all commands share into effect.

    Args:
        verbose: how many times -v was given.
        quiet: how many times -q was given.
        progress: "bar", "json", "none", or None for what fits the terminal.
        debug: show tracebacks.
    """
    from geocyclegan.progress import LineHandler, ProgressKind, set_progress

    level = logging.WARNING - 10 * (verbose - quiet)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[LineHandler()]
    )
    logging.getLogger("geocyclegan").setLevel(max(level, logging.DEBUG))
    # GDAL's remarks on files that it reads well; its errors reach the user through ours.
    logging.getLogger("rasterio").setLevel(max(level + 10, logging.DEBUG))
    # There is none under pythonw.
    is_seen = sys.stderr is not None and sys.stderr.isatty()
    automatic: ProgressKind = "bar" if is_seen and not quiet else "none"
    kind: ProgressKind = progress or automatic  # type: ignore[assignment]
    set_progress(kind)
    return Settings(verbosity=verbose - quiet, quiet=bool(quiet), progress=kind, debug=debug)


def main() -> None:
    """Entry point of the `geocyclegan` script."""
    open_missing_streams()
    # So that a terminated command cleans up as an interrupted one does; `train` has its own way.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    follow_stdin()
    try:
        cli(prog_name="geocyclegan")
    except OSError as error:
        # Of what click itself prints, such as help.
        unwritten = why_not_written(error)
        if unwritten is None:
            raise
        click.echo(f"Error: {unwritten}", err=True)
        sys.exit(1)
