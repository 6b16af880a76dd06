"""QGIS's settings files, edited line by line so that nothing else in them changes.

They are Qt's own INI dialect (QSettings): keys are case-sensitive and may hold backslashes for
groups within groups, and values have C-like escapes, so Python's configparser would spoil them.
"""

from __future__ import annotations

from pathlib import Path

from geocyclegan.errors import OutputError
from geocyclegan.files import atomic_write


def quoted(text: str) -> str:
    r"""Return a value as QSettings reads it: quoted, with other than ASCII as \xNNNN.

    Qt takes as many hexadecimal digits after \x as there are, so a digit that follows one is
    escaped, too.
    """
    out: list[str] = []
    after_escape = False
    for unit in _utf16(text):
        letter = chr(unit)
        if unit < 32 or unit > 126 or (after_escape and letter in "0123456789abcdefABCDEF"):
            out.append(f"\\x{unit:x}")
            after_escape = True
            continue
        out.append("\\" + letter if letter in '"\\' else letter)
        after_escape = False
    return f'"{"".join(out)}"'


def _utf16(text: str) -> list[int]:
    raw = text.encode("utf-16-le", "surrogatepass")
    return [raw[i] | raw[i + 1] << 8 for i in range(0, len(raw), 2)]


def set_value(text: str, section: str, key: str, value: str) -> str:
    """Return settings with a value set, and everything else as it was.

    Args:
        text: the file's content, with its own line ends.
        section: name of the section; it is added at the end if it is not there.
        key: the key.
        value: as it stands in the file; see `quoted`.
    """
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    entry = f"{key}={value}{end}"
    begin, stop = _section(lines, section)
    if begin is None:
        return "".join([*lines, *([end] if lines else []), f"[{section}]{end}", entry])
    for i in range(begin, stop):
        if _key(lines[i]) == key:
            lines[i] = entry
            return "".join(lines)
    return "".join([*lines[:begin], entry, *lines[begin:]])


def remove_value(text: str, section: str, key: str) -> str:
    """Return settings without a value, and everything else as it was."""
    lines = text.splitlines(keepends=True)
    begin, stop = _section(lines, section)
    if begin is None:
        return text
    kept = [line for line in lines[begin:stop] if _key(line) != key]
    return "".join([*lines[:begin], *kept, *lines[stop:]])


def get_value(text: str, section: str, key: str) -> str | None:
    """Return a value as it stands in the file, or None."""
    lines = text.splitlines()
    begin, stop = _section(lines, section)
    for line in lines[begin:stop] if begin is not None else []:
        if _key(line) == key:
            return line.partition("=")[2].strip()
    return None


def _section(lines: list[str], name: str) -> tuple[int | None, int]:
    """Return where the lines of a section begin and stop, its heading not among them."""
    begin = None
    for i, line in enumerate(lines):
        is_heading = line.lstrip().startswith("[") and line.rstrip().endswith("]")
        if begin is not None and is_heading:
            return begin, i
        if begin is None and is_heading and line.strip()[1:-1] == name:
            begin = i + 1
    return begin, len(lines)


def _key(line: str) -> str:
    return line.partition("=")[0].strip() if "=" in line else ""


def edit(path: Path, change: dict[tuple[str, str], str | None]) -> None:
    """Set or remove values of a settings file, whole or not at all.

    Args:
        path: the file; made if it is not there.
        change: by section and key, the value as it stands in the file, or None to remove it.

    Raises:
        OutputError: it cannot be read or written.
    """
    try:
        # latin-1 gives every byte back as it was; what is added is ASCII.
        old = path.read_bytes().decode("latin-1") if path.exists() else ""
        new = old
        for (section, key), value in change.items():
            if value is None:
                new = remove_value(new, section, key)
            else:
                new = set_value(new, section, key, value)
        if new == old:
            return
        with atomic_write(path) as part:
            part.write_bytes(new.encode("latin-1"))
            if path.exists():
                part.chmod(path.stat().st_mode & 0o777)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be changed ({error.strerror or error})") from error
