"""Files of virtual sets that were moved together with the set, found by their place beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geocyclegan.chips.source import state_of_files


def relative_paths(files: Iterable[str], folder: Path) -> dict[str, str]:
    """Return where files lie as seen from a folder, with forward slashes.

    Files on another drive have no such place.
    """
    found = {}
    for file in files:
        try:
            found[file] = Path(os.path.relpath(file, folder.resolve())).as_posix()
        except ValueError:
            continue
    return found


def find_moved(
    files: Mapping[str, list[int]], relative: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """Return where files are now that are not where they were, or are others there.

    Args:
        files: size and time of change of each; a file that has neither is not taken for it.
        relative: where each lay as seen from the folder.
        folder: where the set is now.
    """
    there = state_of_files(list(files))
    moved = {}
    for path, state in files.items():
        if there.get(path) == state or path not in relative:
            continue
        now = os.path.normpath(folder.resolve() / relative[path])
        if state_of_files([now]).get(now) == state:
            moved[path] = now
    return moved


def repoint(source: Any, moved: Mapping[str, str]) -> Any:
    """Return the JSON of a `Source` with the new places of files in all its paths."""
    if isinstance(source, list):
        return [repoint(each, moved) for each in source]
    if not isinstance(source, dict):
        return source
    return {
        key: _repoint(value, moved)
        if key == "path" and isinstance(value, str)
        else repoint(value, moved)
        for key, value in source.items()
    }


def _repoint(text: str, moved: Mapping[str, str]) -> str:
    # A path may name several files, or be in the name of a sub-dataset; the longest come first, or
    # a file would be taken for one whose name begins with its own.
    named = [old for old in sorted(moved, key=len, reverse=True) if old in text]
    for old in named:
        text = text.replace(old, moved[old])
    if named:
        return text
    # A folder that stands for the files in it.
    for old, new in moved.items():
        if Path(old).is_relative_to(text):
            depth = len(Path(old).parts) - len(Path(text).parts)
            return str(Path(*Path(new).parts[: len(Path(new).parts) - depth]))
    return text
