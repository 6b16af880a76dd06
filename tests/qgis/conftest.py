"""The toolkit as a command, and a real QGIS with the plugin installed into a fresh profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import geocyclegan
from geocyclegan import samples

ROOT = Path(geocyclegan.__file__).parents[1]
TIMEOUT_S = 180

# Notes its process id and environment where a test asks for it.
_COMMAND = f"""#!{sys.executable}
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
if __name__ == "__main__":
    if "TEST_NOTE" in os.environ:
        with open(os.environ["TEST_NOTE"], "w") as file:
            json.dump({{"pid": os.getpid(), "environment": dict(os.environ)}}, file)
    from geocyclegan.cli.main import main
    main()
"""


@dataclass
class Result:
    """What `qgis_process --json run` gave."""

    code: int
    output: str
    outputs: dict[str, Any] = field(default_factory=dict)


@dataclass
class QGIS:
    """A QGIS with a profile of its own and an environment made from nothing."""

    program: str
    home: Path
    environment: dict[str, str]

    @property
    def profile(self) -> Path:
        return self.home / "config" / "profiles" / "default"

    def process(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )

    def with_environment(self, more: dict[str, str]) -> QGIS:
        return replace(self, environment=self.environment | more)

    def run(self, algorithm: str, **given: Any) -> Result:
        words = [f"--{name}={value}" for name, value in given.items()]
        done = self.process("--json", "run", algorithm, *words)
        text = done.stdout
        try:
            outputs = json.loads(text[text.index("{") :])["results"]
        except (ValueError, KeyError):
            outputs = {}
        return Result(done.returncode, text + done.stderr, outputs)

    def python(self, code: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run code in QGIS's own Python; skip where that is not the system's."""
        share = "/usr/share/qgis/python"
        folders = [share, f"{share}/plugins", str(self.profile / "python" / "plugins")]
        head = (
            f"import sys; sys.path[:0] = {folders!r}\n"
            "try: import qgis.core\n"
            "except ImportError: sys.exit(77)\n"
        )
        done = subprocess.run(
            ["/usr/bin/python3", "-c", head + code, *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 77:
            pytest.skip("QGIS's Python modules are not those of /usr/bin/python3")
        return done


@pytest.fixture(scope="session")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `geocyclegan` command that runs the code under test."""
    path = tmp_path_factory.mktemp("toolkit") / "geocyclegan"
    path.write_text(_COMMAND)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def bare_qgis(tmp_path_factory: pytest.TempPathFactory) -> QGIS:
    """QGIS with an empty profile."""
    # Debian wraps the program in a script with an option that the program refuses.
    places = os.pathsep.join(["/usr/bin", "/usr/local/bin", os.environ.get("PATH", "")])
    program = shutil.which("qgis_process.bin", path=places) or shutil.which(
        "qgis_process", path=places
    )
    if program is None:
        pytest.skip("QGIS is not installed: no qgis_process")
    home = tmp_path_factory.mktemp("qgis")
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "QGIS_CUSTOM_CONFIG_PATH": str(home / "config"),
        "XDG_RUNTIME_DIR": str(runtime),
        "QT_QPA_PLATFORM": "offscreen",
        "OMP_NUM_THREADS": "1",
    }
    found = QGIS(program, home, environment)
    found.profile.mkdir(parents=True)
    return found


@pytest.fixture(scope="session")
def qgis(bare_qgis: QGIS, toolkit: Path) -> QGIS:
    """QGIS with the plugin, as `geocyclegan qgis install` puts it there."""
    done = subprocess.run(
        [toolkit, "qgis", "install", "--executable", toolkit],
        env=os.environ | {"QGIS_CUSTOM_CONFIG_PATH": str(bare_qgis.home / "config")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return bare_qgis


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a blank and a letter beyond ASCII in its name."""
    return tmp_path_factory.mktemp("my söurces")


@pytest.fixture(scope="session")
def chips(qgis: QGIS, work: Path) -> Path:
    """Chips of the sample scenes, made by the algorithm."""
    done = qgis.run(
        "geocyclegan:chipscenes",
        SCENES_A=samples.path("spain_sentinel1"),
        SCENES_B=samples.path("spain_sentinel2"),
        BANDS_B="B04,B03,B02",
        SIZE=64,
        OUT=work / "chips",
    )
    assert done.code == 0, done.output
    return Path(done.outputs["OUT"])


@pytest.fixture(scope="session")
def run(qgis: QGIS, chips: Path, work: Path) -> Path:
    """A model of a few steps, made by the algorithm."""
    done = qgis.run(
        "geocyclegan:traintranslationmodel",
        CHIPS=chips,
        STEPS=2,
        GENERATOR="resnet6",
        WIDTH=4,
        OUT=work / "runs" / "tiny",
    )
    assert done.code == 0, done.output
    return Path(done.outputs["OUT"])
