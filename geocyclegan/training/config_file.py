"""Options in YAML files, and what they are called there and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from geocyclegan.errors import NotFoundError, OptionError


def option(field: str) -> str:
    """Return the command line's name of a field."""
    return "--" + yaml_name(field)


def yaml_name(field: str) -> str:
    """Return the name of a field in YAML files."""
    return field.replace("_", "-")


def read_yaml(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options that a YAML file gives, by the names of the fields.

    Args:
        path: the file.
        kinds: the type of each option.

    Raises:
        NotFoundError: there is no such file.
        OptionError: it is not a YAML mapping, or names what is no option, or a value is of the
            wrong kind.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise OptionError(f"--config {path}: cannot be read as YAML ({line})") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise OptionError(f"--config {path}: expected lines such as `width: 32`")
    options: dict[str, Any] = {}
    for key, value in document.items():
        field = str(key).replace("-", "_")
        if field not in kinds:
            known = ", ".join(yaml_name(name) for name in kinds)
            raise OptionError(f"--config {path}: {key} is no option of train; it has: {known}")
        if field in options:
            raise OptionError(f"--config {path}: {key} is given twice")
        options[field] = _typed(path, str(key), value, kinds[field])
    return options


_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def _typed(path: Path, key: str, value: Any, kind: Any) -> Any:
    """Check a value from YAML against the type of its field."""
    kinds = get_args(kind) or (kind,)
    if value is None and NoneType in kinds:
        return None
    wanted: type = next(k for k in kinds if k is not NoneType)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            # YAML 1.1 reads 2e-4 as text.
            return float(value)
        except ValueError:
            pass
    if wanted is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise OptionError(f"--config {path}: {key} is {value!r}; expected {_KINDS[wanted]}")
