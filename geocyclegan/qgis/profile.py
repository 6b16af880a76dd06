"""QGIS's user profiles: where they are, and the plugin or the scripts in one of them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.errors import NotFoundError, OutputError
from geocyclegan.files import make_folder, write_text
from geocyclegan.qgis import settings
from geocyclegan.qgis.assemble import MARK, NAME, plugin_files, read_metadata, script_texts

_EXECUTABLE = ("Processing", r"Configuration\GEOCYCLEGAN_EXECUTABLE")
_ENABLED = ("PythonPlugins", NAME)


@dataclass(frozen=True)
class Profile:
    """A profile folder of QGIS.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def plugin(self) -> Path:
        """Where the plugin goes."""
        return self.path / "python" / "plugins" / NAME

    @property
    def scripts(self) -> Path:
        """Where Processing looks for scripts."""
        return self.path / "processing" / "scripts"

    @property
    def settings(self) -> Path:
        """The settings file: of QGIS 3, or of the version that made the profile."""
        folder = self.path / "QGIS"
        found = sorted(folder.glob("QGIS[0-9]*.ini"))
        return found[-1] if found else folder / "QGIS3.ini"


def profile_roots(
    environment: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> list[Path]:
    """Return the folders that may hold `profiles/`, the likeliest first.

    Args:
        environment: of this process.
        platform: as `sys.platform`.
    """
    custom = environment.get("QGIS_CUSTOM_CONFIG_PATH")
    if custom:
        return [Path(custom)]
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if platform == "win32":
        bases = [Path(environment.get("APPDATA") or home / "AppData" / "Roaming")]
    elif platform == "darwin":
        bases = [home / "Library" / "Application Support"]
    else:
        data = environment.get("XDG_DATA_HOME")
        flatpak = home / ".var" / "app" / "org.qgis.qgis" / "data"
        bases = [Path(data) if data else home / ".local" / "share", flatpak]
    return [base / "QGIS" / version for base in bases for version in ("QGIS4", "QGIS3")]


def find_profile(given: str | None, roots: list[Path] | None = None) -> Profile:
    """Return the profile that the user named, or QGIS's default one.

    Args:
        given: a folder, or the name of a profile; None: the default profile.
        roots: where to look; None: `profile_roots()`.

    Raises:
        NotFoundError: there is none, or the folder holds profiles and is not one itself.
    """
    roots = profile_roots() if roots is None else roots
    if given is not None:
        return _given_profile(given, roots)
    for root in roots:
        profile = root / "profiles" / _default_name(root)
        if profile.is_dir():
            return Profile(profile)
    raise NotFoundError(
        f"no QGIS profile in {roots[0] / 'profiles'}; start QGIS once, or give --profile DIR"
        " (in QGIS: Settings > User Profiles > Open Active Profile Folder)"
    )


def _given_profile(given: str, roots: list[Path]) -> Profile:
    path = Path(given).expanduser()
    if len(path.parts) == 1 and not path.is_dir():
        named = [root / "profiles" / given for root in roots]
        for profile in named:
            if profile.is_dir():
                return Profile(profile)
    inside = path / "profiles"
    if inside.is_dir():
        names = ", ".join(sorted(p.name for p in inside.iterdir() if p.is_dir()))
        raise NotFoundError(f"--profile {path}: it holds profiles; name one of them: {names}")
    if not path.is_dir():
        raise NotFoundError(
            f"--profile {path}: no such folder or profile (in QGIS: Settings > User Profiles > Open"
            " Active Profile Folder)"
        )
    return Profile(path.absolute())


def _default_name(root: Path) -> str:
    """Return the name of the profile that QGIS starts with."""
    try:
        text = (root / "profiles" / "profiles.ini").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "default"
    return (settings.get_value(text, "core", "defaultProfile") or "default").strip('"')


def find_command(given: Path | None) -> Path:
    """Return the `geocyclegan` command for QGIS to run.

    Args:
        given: its path; None: the command of this Python environment.

    Raises:
        NotFoundError: it is not there.
    """
    if given is not None:
        found = given.expanduser().absolute()
        if not found.is_file() or not os.access(found, os.X_OK):
            raise NotFoundError(f"--executable {given}: no such command")
        return found
    name = "geocyclegan.exe" if os.name == "nt" else "geocyclegan"
    # Not resolved: a virtual environment's Python is a link to another place.
    beside = Path(sys.executable).absolute().parent / name
    if beside.is_file():
        return beside
    on_path = shutil.which("geocyclegan")
    if on_path:
        return Path(on_path).absolute()
    raise NotFoundError(f"{beside}: no geocyclegan command there; give its path by --executable")


def install(profile: Profile, command: Path, *, scripts: bool, overwrite: bool) -> list[Path]:
    """Put the plugin, or the single scripts, into a profile and record the command.

    Args:
        profile: where to.
        command: the `geocyclegan` command that QGIS is to run.
        scripts: the scripts instead of the plugin.
        overwrite: replace files of the same names that are not ours.

    Returns:
        What was put there.

    Raises:
        OutputError: something else is in the way, or it cannot be written.
    """
    if scripts:
        paths = _install_scripts(profile, overwrite)
    else:
        paths = [_install_plugin(profile, overwrite)]
    change: dict[tuple[str, str], str | None] = {_EXECUTABLE: settings.quoted(str(command))}
    if not scripts:
        change[_ENABLED] = "true"
    settings.edit(profile.settings, change)
    return paths


def uninstall(profile: Profile) -> list[Path]:
    """Take the plugin, the scripts and their settings out of a profile.

    Returns:
        What was removed.

    Raises:
        OutputError: it cannot be removed.
    """
    removed: list[Path] = []
    if _is_ours(profile.plugin):
        _writing(profile.plugin, lambda: _remove_folder(profile.plugin))
        removed.append(profile.plugin)
    for name in script_texts():
        path = profile.scripts / name
        if path.is_file() and _is_generated(path):
            _writing(path, path.unlink)
            removed.append(path)
    if profile.settings.exists():
        settings.edit(profile.settings, {_ENABLED: None, _EXECUTABLE: None})
    return removed


def _install_plugin(profile: Profile, overwrite: bool) -> Path:
    folder = profile.plugin
    if os.path.lexists(folder) and not _is_ours(folder) and not overwrite:
        raise OutputError(
            f"{folder}: it exists and is not this plugin as it was installed; give --overwrite to"
            " replace it"
        )
    make_folder(folder.parent)
    staged = folder.with_name(f".{NAME}.{os.getpid()}.part")
    try:
        _writing(staged, lambda: _write_files(staged))
        # The old one leaves in one step and goes only when the new one is in its place.
        old = folder.with_name(f".{NAME}.{os.getpid()}.old")
        if os.path.lexists(folder):
            _writing(folder, lambda: folder.rename(old))
        try:
            _writing(folder, lambda: staged.rename(folder))
        except OutputError:
            if os.path.lexists(old):
                old.rename(folder)
            raise
        if os.path.lexists(old):
            _writing(old, lambda: _remove_folder(old))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _write_files(folder: Path) -> None:
    for name, content in plugin_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _install_scripts(profile: Profile, overwrite: bool) -> list[Path]:
    texts = script_texts()
    for name in texts:
        path = profile.scripts / name
        if path.exists() and not _is_generated(path) and not overwrite:
            raise OutputError(
                f"{path}: it exists and is not a script of geocyclegan; give --overwrite to replace"
                " it"
            )
    for name, text in texts.items():
        write_text(profile.scripts / name, text)
    return [profile.scripts / name for name in texts]


def _is_ours(folder: Path) -> bool:
    """Say whether a folder is the plugin; a link to a working copy is left to its owner."""
    if folder.is_symlink():
        return False
    try:
        fields = read_metadata((folder / "metadata.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError):
        return False
    return fields.get("name") == "GeoCycleGAN"


def _is_generated(path: Path) -> bool:
    return MARK in path.read_text(encoding="utf-8", errors="replace")


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _writing(path: Path, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        raise OutputError(f"{path}: cannot be changed ({error.strerror or error})") from error
