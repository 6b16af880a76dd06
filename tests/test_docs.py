"""The documentation builds, and a link that leads nowhere stops it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: it silences the warnings that --strict counts.
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.mark.parametrize("link", ["", "[x](none.md)", "[x](training.md#none)"])
def test_links_lead_somewhere(tmp_path: Path, link: str) -> None:
    for name in ("mkdocs", "mkdocs_click", "mkdocstrings", "material"):
        pytest.importorskip(name, reason='needs pip install "geocyclegan[docs]"')
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with open(tmp_path / "docs" / "install.md", "a", encoding="utf-8") as page:
        page.write(f"\n{link}\n")
    done = build(tmp_path)
    assert (done.returncode == 0) == (not link), done.stderr
    if not link:
        reference = (tmp_path / "site" / "reference" / "cli" / "index.html").read_text()
        assert "--norm-stats" in reference
        # A page that the menu does not name yet is no error.
        (tmp_path / "docs" / "later.md").write_text("# Later\n")
        assert build(tmp_path).returncode == 0
