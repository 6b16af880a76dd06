"""Private names of other packages that are used here: an upgrade that drops one fails by name."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import geocyclegan

PACKAGE = Path(geocyclegan.__file__).parent
# What private names are taken from; the standard library's and our own need no watch.
OTHERS = ("dask", "distributed", "lightning", "numpy", "onnx", "rasterio", "torch")


def private_names(path: Path) -> Iterator[str]:
    """Dotted names of other packages with a part that begins with one underscore."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            parts = name.split(".")
            is_private = any(part[:1] == "_" and part[:2] != "__" for part in parts)
            if parts[0] in OTHERS and is_private and all(part.isidentifier() for part in parts):
                yield name


USED = sorted({(name, path.name) for path in PACKAGE.rglob("*.py") for name in private_names(path)})


def test_the_search_finds_them() -> None:
    assert {"rasterio._err.CPLE_BaseError"} <= {name for name, _ in USED}


@pytest.mark.parametrize(("name", "file"), USED)
def test_a_private_name_exists(name: str, file: str) -> None:
    parts = name.split(".")
    if parts[0] not in ("rasterio", "torch"):
        pytest.importorskip(parts[0])
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            assert hasattr(found, part), f"{file} uses {name}, which is not there any more"
            found = getattr(found, part)
        return
    pytest.fail(f"{file} uses {name}, which is not there any more")


def test_what_compiled_networks_are_called_by_exists() -> None:
    """`training` sets these on modules, where no import tells of them."""
    torch = pytest.importorskip("torch")
    assert callable(torch.nn.Module._call_impl)
    assert torch.nn.Module._compiled_call_impl is None
