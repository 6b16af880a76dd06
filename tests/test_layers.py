"""Who may import whom: the table of CONTRIBUTING.md, kept by the code.

Read from the source, so that imports inside functions count, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import geocyclegan

PACKAGE = Path(geocyclegan.__file__).parent

# Each may import what is named here, and its own modules; `errors` and the version all may.
ROOMS = {
    "errors": "",
    "catalogue": "",
    "ranges": "",
    "threads": "",
    "workers": "",
    "files": "",
    "progress": "",
    "document": "files",
    "crew": "threads workers",
    "crew_check": "crew",
    "device": "",
    "rounding": "",
    "samples": "",
    "raster": "files threads",
    "chips": "raster files progress threads workers crew crew_check",
    "models": "",
    "methods": "models catalogue ranges",
    "bundle": "models raster catalogue document files mlm",
    "mlm": "",
    "importing": "models raster bundle files",
    "training": (
        "methods models chips raster bundle catalogue ranges device files progress rounding threads"
    ),
    "inference": (
        "raster models bundle device rounding files progress threads crew crew_check workers"
    ),
    "exporting": "inference bundle models raster files progress",
    "api": "training inference exporting bundle chips models raster device files progress",
    "qgis": "files methods models",
    "cli": (
        "qgis api training inference exporting importing bundle chips methods models raster samples"
        " catalogue device files progress"
    ),
    "__init__": "api",
    "__main__": "cli",
}

# Of these rooms, only these modules: training reads chips through a few narrow doors.
DOORS = {
    ("training", "chips"): {"alike", "labels", "manifest", "pairs", "reader"},
    ("training", "raster"): {"domain", "picture"},
    ("qgis", "methods"): {"registry"},
    ("qgis", "models"): {"registry"},
}

# What no module of a room may import, not even inside a function.
FOREIGN = {
    "raster": {"torch", "lightning", "geopandas", "pandas", "click"},
    "chips": {"torch", "lightning", "click"},
    "models": {"rasterio", "geopandas", "shapely", "lightning", "click"},
    "methods": {"rasterio", "geopandas", "shapely", "lightning", "click"},
    "training": {"rasterio", "geopandas", "shapely", "click"},
    "inference": {"lightning", "geopandas", "click"},
    "qgis": {"torch", "rasterio", "numpy", "geopandas", "lightning"},
    "files": {"torch", "rasterio", "numpy"},
    "progress": {"torch", "rasterio", "numpy"},
}


def room(path: Path) -> str:
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else path.stem


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, dotted; `from package import name` as package.name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    # These run in QGIS's Python, which has none of the package.
    if not re.search(r"qgis/(plugin|scripts)/", path.as_posix())
]


def test_the_arrows_point_down() -> None:
    wrong = []
    for path in SOURCES:
        here = room(path)
        allowed = {here, "errors", "", "__version__", *ROOMS[here].split()}
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top == "geocyclegan":
                there, _, rest = rest.partition(".")
                doors = DOORS.get((here, there))
                if there not in allowed or (doors and rest.split(".")[0] not in doors | {""}):
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
            elif top in FOREIGN.get(here, ()):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_two_rooms_import_each_other() -> None:
    below = {name: set(allowed.split()) for name, allowed in ROOMS.items()}
    left = dict(below)
    while left:
        free = [name for name, allowed in left.items() if not allowed & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_the_table_for_contributors_names_every_room() -> None:
    page = PACKAGE.parent / "CONTRIBUTING.md"
    if not page.is_file():
        pytest.skip("needs the checkout")
    table = page.read_text(encoding="utf-8").partition("## The shape of the house")[2]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"samples"}
    assert {name for name in folders if f"`geocyclegan/{name}/`" not in table} == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("qgis/plugin/**/*.py")), ids=lambda p: p.name)
def test_the_plugin_imports_nothing_of_the_package(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops & {"geocyclegan", "torch", "rasterio", "numpy", "click"}
