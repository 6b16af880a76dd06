"""Names of files that are made of scenes: short, and not the same for two scenes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from geocyclegan.raster.bandfiles import JOIN, short_name


def digest(*what: object) -> str:
    """Return eight hexadecimal digits that differ where any of the words do."""
    return hashlib.sha256("\0".join(map(str, what)).encode()).hexdigest()[:8]


def distinct_names(scenes: Sequence[str]) -> list[str]:
    """Name scenes by their files, and those whose files are called alike by their folders, too.

    `p1/x.tif` and `p2/x.tif` become `p1_x` and `p2_x`; `p1/in/x.tif` and `p2/in/x.tif`, too: it is
    the nearest folders that all differ. Where there are none, the names end in a hash of the path.
    Capitals make no difference, as in many file systems. The order of the scenes does not matter,
    nor do other scenes of other names.

    Args:
        scenes: absolute paths, URLs, sub-dataset names, or files joined by `+`.
    """
    names = [short_name(scene) for scene in scenes]
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(name.casefold(), []).append(number)
    for group in alike.values():
        if len(group) > 1:
            folders = _folders_apart([scenes[number] for number in group])
            for number, folder in zip(group, folders, strict=True):
                names[number] = f"{folder}_{names[number]}" if folder else names[number]
    counts = Counter(name.casefold() for name in names)
    return [
        f"{name}_{digest(scene)}" if counts[name.casefold()] > 1 else name
        for name, scene in zip(names, scenes, strict=True)
    ]


def _folders_apart(scenes: Sequence[str]) -> list[str]:
    """Return the nearest folder of each scene, counted from its file, by which all differ."""
    above = [_folders(scene) for scene in scenes]
    for level in range(min(map(len, above))):
        folders = [folders[level] for folders in above]
        if len({folder.casefold() for folder in folders}) == len(folders):
            return folders
    return [""] * len(scenes)


def _folders(scene: str) -> list[str]:
    """Return the names of the folders that a scene is in, the nearest first."""
    parts = re.split(r"[\\/]+", scene.split(JOIN)[0])[:-1]
    names = [re.sub(r"[^\w.\-]+", "_", part).strip("_") for part in parts]
    return [name for name in reversed(names) if name]
