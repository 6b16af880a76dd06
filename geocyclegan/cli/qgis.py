"""`geocyclegan qgis`: the Processing plugin into a profile, or into a zip."""

from __future__ import annotations

from pathlib import Path

import click

from geocyclegan.cli.groups import HelpfulGroup
from geocyclegan.cli.options import Settings, overwrite_option

_profile_option = click.option(
    "--profile",
    metavar="DIR",
    help="Folder or name of the QGIS profile.  [default: the one that QGIS starts with]",
)


@click.group("qgis", cls=HelpfulGroup)
def command() -> None:
    """Put the three verbs into QGIS's Processing toolbox.

    The plugin runs this very command as a child process, so nothing is installed into QGIS's own
    Python.

    \b
        geocyclegan qgis install
        geocyclegan qgis install --profile ~/.local/share/QGIS/QGIS3/profiles/work
        geocyclegan qgis package --out geocyclegan_processing.zip
    """  # noqa: D301 - click reads the backspace character


@command.command("install")
@_profile_option
@click.option(
    "--scripts",
    is_flag=True,
    help="Three single-file scripts instead of the plugin.",
)
@click.option(
    "--executable",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The geocyclegan command that QGIS is to run.  [default: this one]",
)
@overwrite_option
@click.pass_obj
def install_command(
    settings: Settings | None,
    profile: str | None,
    scripts: bool,
    executable: Path | None,
    overwrite: bool,
) -> None:
    """Install the plugin into a QGIS profile, enable it, and record this command.

    An earlier version of the plugin is replaced. Nothing else in the profile changes.
    """
    from geocyclegan.qgis.profile import find_command, find_profile, install

    found, runs = find_profile(profile), find_command(executable)
    paths = install(found, runs, scripts=scripts, overwrite=overwrite)
    if settings is None or not settings.quiet:
        for path in paths:
            click.echo(f"installed: {path}")
        click.echo(f"it runs:   {runs}")
        click.echo(
            "Next: restart QGIS and open the Processing toolbox; "
            + ("look under Scripts" if scripts else "look for GeoCycleGAN")
        )


@command.command("uninstall")
@_profile_option
@click.pass_obj
def uninstall_command(settings: Settings | None, profile: str | None) -> None:
    """Take the plugin and the scripts out of a QGIS profile."""
    from geocyclegan.qgis.profile import find_profile, uninstall

    found = find_profile(profile)
    removed = uninstall(found)
    if settings is None or not settings.quiet:
        lines = [f"removed: {path}" for path in removed] or [f"nothing installed in {found.path}"]
        click.echo("\n".join(lines))


@command.command("package")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("geocyclegan_processing.zip"),
    show_default=True,
    help="Zip to write.",
)
@click.option("--repository", metavar="URL", help="Address of the source code.")
@click.option("--tracker", metavar="URL", help="Address for bug reports.")
@click.option("--homepage", metavar="URL", help="Address of the documentation.")
@click.option("--author", metavar="NAME", help="Who publishes it.")
@click.option("--email", metavar="ADDRESS", help="Address of the author.")
@overwrite_option
@click.pass_obj
def package_command(
    settings: Settings | None, /, out: Path, overwrite: bool, **given: str | None
) -> None:
    """Write the plugin as a zip for `Install from ZIP` and for the plugin repository.

    The repository checks that the addresses can be reached: give yours when you upload it.
    """
    from geocyclegan.qgis.assemble import write_package

    fields = {name: value for name, value in given.items() if value is not None}
    placeholders = write_package(out, fields, overwrite=overwrite)
    if settings is None or not settings.quiet:
        click.echo(str(out))
        if placeholders:
            options = ", ".join(f"--{name}" for name in placeholders)
            click.echo(f"before you upload it to the plugin repository, give {options}", err=True)
