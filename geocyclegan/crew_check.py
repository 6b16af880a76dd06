"""Whether all workers of a crew have the files and the versions that this process has."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from geocyclegan import __version__
from geocyclegan.crew import Crew
from geocyclegan.errors import ClusterError

# Packages on which pixels depend.
_COMPARED = ("torch", "numpy", "rasterio")


@dataclass(frozen=True)
class Seen:
    """What a process has and sees.

    Attributes:
        host: name of its machine.
        versions: of the packages on which results depend.
        missing: files that are not there, or are others.
        closed: folders that it cannot write to.
    """

    host: str
    versions: dict[str, str]
    missing: tuple[str, ...]
    closed: tuple[str, ...]


def stamp(path: str) -> tuple[str, tuple[int, int] | None]:
    """Return a path with what tells its file from another one of that name.

    Returns:
        The path, and size in bytes and time of change in nanoseconds; None for the two where the
        path is no file, such as a URL.
    """
    file = Path(path)
    if not file.is_file():
        return path, None
    stat = file.stat()
    return path, (stat.st_size, stat.st_mtime_ns)


def look(files: Sequence[tuple[str, tuple[int, int] | None]], folders: Sequence[str]) -> Seen:
    """Look, in a worker, whether all is there that was there in the process that asks."""
    missing = tuple(path for path, known in files if known is not None and stamp(path)[1] != known)
    closed = tuple(
        folder
        for folder in folders
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK))
    )
    return Seen(platform.node(), versions(), missing, closed)


def versions() -> dict[str, str]:
    """Return the versions of what results depend on."""
    found = {"geocyclegan": __version__}
    for name in _COMPARED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def check_crew(crew: Crew, files: Sequence[str], folders: Sequence[str]) -> None:
    """See to it that every worker has the files at the same paths, and the same versions.

    Raises:
        ClusterError: names the first worker and what it lacks.
    """
    ours = versions()
    for worker, seen in crew.ask(look, [stamp(path) for path in files], list(folders)).items():
        where = f"worker {worker} on {seen.host}"
        for name, version in ours.items():
            if seen.versions.get(name) != version:
                raise ClusterError(
                    f"{where}: it has {name} {seen.versions.get(name, 'none')}, here is {version};"
                    " install the same version on all machines"
                )
        if seen.missing:
            raise ClusterError(
                f"{where}: {seen.missing[0]} is not there, or is another file; workers need the"
                " scenes and the model at the same paths, on a file system that all share"
            )
        if seen.closed:
            raise ClusterError(
                f"{where}: the folder {seen.closed[0]} is not there or not writable; workers write"
                " parts of the product there, so --out must be on a file system that all share"
            )
