"""What is installed runs on every system, and what is promised is there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import geocyclegan

PACKAGE = Path(geocyclegan.__file__).parent
ROOT = PACKAGE.parent
_POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
_POSIX_NAMES = {
    "os": {
        *("fork", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "nice", "setsid", "statvfs"),
        *("sched_getaffinity", "sysconf", "uname", "O_DIRECTORY", "posix_fadvise", "getpgrp"),
    },
    "signal": {"SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"},
}


def test_nothing_asks_for_posix_unguarded() -> None:
    """A name that Windows lacks may only be used in a line or block that looks for it first."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute):
                continue
            name = ""
            if isinstance(node, ast.Import):
                name = next((a.name for a in node.names if a.name in _POSIX_MODULES), "")
            elif isinstance(node, ast.ImportFrom) and node.module in _POSIX_MODULES:
                name = str(node.module)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = node.attr if node.attr in _POSIX_NAMES.get(node.value.id, ()) else ""
            if not name:
                continue
            at = node.lineno - 1
            around = "\n".join(lines[max(at - 6, 0) : at + 2])
            if not re.search(r"hasattr\(|os\.name|sys\.platform|except ImportError|try:", around):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert not found, found


def test_no_histograms_of_gdal_are_shipped() -> None:
    project = ROOT / "pyproject.toml"
    if not project.is_file():
        pytest.skip("needs the checkout")
    assert "*.aux.xml" in tomllib.loads(project.read_text())["tool"]["hatch"]["build"]["exclude"]
    assert "*.aux.xml" in (ROOT / ".gitignore").read_text().splitlines()


def test_extras_that_messages_and_pages_name_exist() -> None:
    project = ROOT / "pyproject.toml"
    if not project.is_file():
        pytest.skip("needs the checkout")
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    named = set()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8").replace("'\n", "").replace("            '", "")
        for group in re.findall(r'"(?:geocyclegan|\.)\[([a-z,]+)\]"', text):
            named |= set(group.split(","))
    assert {"export", "xarray"} <= named
    assert named <= set(extras), named - set(extras)
    assert "all" in extras


def test_the_citation_names_the_version() -> None:
    citation = ROOT / "CITATION.cff"
    if not citation.is_file():
        pytest.skip("needs the checkout")
    import yaml

    told = yaml.safe_load(citation.read_text(encoding="utf-8"))
    assert told["version"] == geocyclegan.__version__
    assert told["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "type", "license"} <= told.keys()


def test_the_image_of_docker_copies_what_is_there() -> None:
    file = ROOT / "Dockerfile"
    if not file.is_file():
        pytest.skip("needs the checkout")
    text = re.sub(r"\\\n", " ", file.read_text(encoding="utf-8"))
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in text.splitlines():
        if line.startswith("COPY") and "--from" not in line:
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.rstrip("/") not in ignored
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
    assert re.search(r"^ENTRYPOINT \[\"geocyclegan\"\]$", text, re.MULTILINE)


def test_what_package_indexes_show_has_no_link_that_leads_nowhere() -> None:
    project = ROOT / "pyproject.toml"
    if not project.is_file():
        pytest.skip("needs the checkout")
    hatch = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["hatch"]
    readme = hatch["metadata"]["hooks"]["fancy-pypi-readme"]
    text = "".join((ROOT / part["path"]).read_text("utf-8") for part in readme["fragments"])
    for change in readme["substitutions"]:
        text, count = re.subn(change["pattern"], change["replacement"], text)
        assert count, f"{change['pattern']} finds nothing any more"
    assert re.findall(r"\]\((?!https?://)[^)]*\)|<img|<a ", text) == []
    assert "docs/training.md" in text


def test_the_source_distribution_holds_what_is_tracked() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and the checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    tracked = {name.split("/")[0] for name in listed.stdout.decode().split("\0") if name}
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    # Hatchling adds these itself.
    added = {"pyproject.toml", ".gitignore"}
    assert set(hatch["build"]["targets"]["sdist"]["include"]) == tracked - added
