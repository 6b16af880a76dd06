"""What is derived from the plugin's sources: single-file scripts, the list of choices, the zip.

    python -m geocyclegan.qgis.assemble

writes `choices.py` from the toolkit's registries, and then `scripts/`; a test says when to.
"""

from __future__ import annotations

import ast
import configparser
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from geocyclegan.errors import OptionError, OutputError
from geocyclegan.files import atomic_write, write_text

NAME = "geocyclegan_processing"
PLUGIN = Path(__file__).with_name("plugin") / NAME
SCRIPTS = Path(__file__).with_name("scripts")
MARK = "# Put together from the plugin's modules by geocyclegan.qgis.assemble; edit those instead."
"""A line of each generated script, by which it is known again."""

# Modules of each script in the order of their needs; a script cannot import its siblings.
_SHARED = ("options", "table_common", "runner", "toolkit")
_SCRIPTS = {
    "geocyclegan_chip": (*_SHARED, "table_chip", "chip"),
    "geocyclegan_train": (*_SHARED, "choices", "table_train", "train"),
    "geocyclegan_translate": (*_SHARED, "table_translate", "display", "style", "translate"),
}
_PLACEHOLDER = "geocyclegan.example"
_ADDRESSES = ("homepage", "repository", "tracker", "email")


def plugin_files() -> dict[str, bytes]:
    """Return what belongs to the plugin, by path inside its folder."""
    found = sorted(p for p in PLUGIN.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {path.relative_to(PLUGIN).as_posix(): path.read_bytes() for path in found}


def script_texts() -> dict[str, str]:
    """Return each drop-in script, by its file name."""
    return {f"{name}.py": _script(modules) for name, modules in _SCRIPTS.items()}


def _script(modules: tuple[str, ...]) -> str:
    title = ast.get_docstring(ast.parse(_source(modules[-1]))) or ""
    parts = [
        "# SPDX-License-Identifier: GPL-2.0-or-later",
        f'"""{title.rstrip(".")} as a single file: copy it to processing/scripts of a profile."""',
        "",
        MARK,
        "",
        "from __future__ import annotations",
        "",
    ]
    for module in modules:
        parts.append(f"\n# {'-' * 20} {module}.py\n")
        parts.append(_body(_source(module)))
    # Scripts share their provider with everything else that the user wrote.
    parts[-1] = re.sub(r'(?m)^    GROUP = ".*"$', '    GROUP = "GeoCycleGAN"', parts[-1])
    return "\n".join(parts).rstrip("\n") + "\n"


def _source(module: str) -> str:
    return (PLUGIN / f"{module}.py").read_text(encoding="utf-8")


def _body(source: str) -> str:
    """Return a module without its head: licence line, docstring and imports of siblings."""
    lines = source.splitlines()
    dropped: set[int] = {0}
    for number, node in enumerate(ast.parse(source).body):
        is_docstring = number == 0 and isinstance(node, ast.Expr)
        is_sibling = isinstance(node, ast.ImportFrom) and (
            node.level > 0 or node.module == "__future__"
        )
        if is_docstring or is_sibling:
            dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
    return "\n".join(line for i, line in enumerate(lines) if i not in dropped).strip("\n") + "\n"


def choices_text() -> str:
    """Return `choices.py` with the names that the toolkit's registries know."""
    from geocyclegan.methods.registry import methods
    from geocyclegan.models.registry import generators

    head = _source("choices").partition("METHODS = ")[0]
    lines = []
    for name, known in (("METHODS", methods.names()), ("GENERATORS", generators.names())):
        words = ", ".join(f'"{word}"' for word in known)
        line = f"{name} = ({words}{',' * (len(known) == 1)})"
        if len(line) > 100:
            line = f"{name} = (\n" + "".join(f'    "{word}",\n' for word in known) + ")"
        lines.append(line)
    return head + "\n".join(lines) + "\n"


def write_package(out: Path, given: Mapping[str, str], *, overwrite: bool) -> list[str]:
    """Write the zip that QGIS installs and that the plugin repository takes.

    Args:
        out: the zip.
        given: fields of metadata.txt to set, such as "repository".
        overwrite: it may exist.

    Returns:
        Addresses in metadata.txt that are still placeholders.

    Raises:
        OptionError: a field is not one line of text.
        OutputError: the zip exists or cannot be written.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or another name")
    files = plugin_files()
    metadata = set_fields(files["metadata.txt"].decode("utf-8"), given)
    files["metadata.txt"] = metadata.encode("utf-8")
    with atomic_write(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # A fixed date, so that the same sources give the same bytes.
            entry = zipfile.ZipInfo(f"{NAME}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    fields = read_metadata(metadata)
    return [name for name in _ADDRESSES if _PLACEHOLDER in fields.get(name, "")]


def read_metadata(text: str) -> dict[str, str]:
    """Return the fields of a metadata.txt."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_file(io.StringIO(text))
    return dict(parser["general"])


def set_fields(text: str, given: Mapping[str, str]) -> str:
    """Return a metadata.txt with other values of fields that it has.

    Raises:
        OptionError: a value is empty or of several lines.
    """
    for name, value in given.items():
        if not value.strip() or len(value.splitlines()) != 1:
            raise OptionError(f"--{name} {value!r}: expected a line of text")
        lines = text.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}="))
        lines[at] = f"{name}={value.strip()}"
        text = "\n".join(lines) + "\n"
    return text


def main() -> None:
    """Write what is derived."""
    write_text(PLUGIN / "choices.py", choices_text())
    for name, text in script_texts().items():
        write_text(SCRIPTS / name, text)


if __name__ == "__main__":
    main()
