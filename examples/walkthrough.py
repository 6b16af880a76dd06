"""What the walk-throughs share: the command line as a user runs it, and pictures of its work."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from geocyclegan.bundle import load_bundle
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.picture import captioned_row, picture, save_png
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

SMALL = ("--generator", "resnet6", "--width", "16", "--crop", "128")
"""Networks for a laptop. For quality leave them out, and train for a day on a GPU."""


@dataclass(frozen=True)
class Walk:
    """One walk-through.

    Attributes:
        out: folder for all that it makes.
        steps: training steps.
    """

    out: Path
    steps: int

    @property
    def chips(self) -> Path:
        """The chip folder."""
        return self.out / "chips"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out / "runs" / "example"

    def geocyclegan(self, *words: object) -> None:
        """Run a command, and show it."""
        line = ["geocyclegan", *map(str, words)]
        click.echo(f"\n$ {shlex.join(line)}")
        done = subprocess.run([sys.executable, "-m", *line], check=False)
        if done.returncode:
            sys.exit(done.returncode)

    def train(self, *words: object) -> None:
        """Train a small model on the chips."""
        every = ("--save-every", self.steps, "--panel-every", self.steps, "--overwrite")
        place = ("--out", self.run.parent, "--name", self.run.name, "--steps", self.steps)
        self.geocyclegan("train", self.chips, *SMALL, *place, *every, *words)

    def infer(self, scene: Path, name: str = "translated.tif", *words: object) -> Path:
        """Translate a scene."""
        product = self.out / name
        model = ("--model", self.run, "--out", product, "--overwrite")
        self.geocyclegan("infer", scene, *model, *words)
        return product

    def picture(self, scenes: Sequence[tuple[str, Path, str]], side: int = 384) -> Path:
        """Draw scenes side by side.

        Args:
            scenes: caption, file, and which domain of the model it is of, "a" or "b".
            side: rows and columns to draw, from the upper left.
        """
        domains = load_bundle(self.run).domains
        images = [draw(path, domains[domain], side) for _, path, domain in scenes]
        path = self.out / "picture.png"
        save_png(path, captioned_row(images, [caption for caption, _, _ in scenes]))
        click.echo(f"\nPicture: {path}")
        return path


def draw(path: Path, domain: Domain, side: int) -> Any:
    """Draw a scene as a domain does, `(height, width, 3)`."""
    names = [name for name in domain.names if name] or None
    with Scene(path) as scene:
        known = {band.label for band in scene.all_bands}
    with Scene(path, names if names and known >= set(names) else None) as scene:
        height, width = (min(side, length) for length in scene.grid.shape)
        pixels, valid = scene.read(Window(0, 0, height, width))
    return picture(domain, domain.to_levels(pixels, valid), valid)


def walkthrough(default_steps: int = 400) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Walk` and options of its own."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(out: Path | None, steps: int, **given: Any) -> None:
            name = Path(sys.modules[function.__module__].__file__ or "example").stem
            walk = Walk(out or Path("examples_out") / name, steps)
            walk.out.mkdir(parents=True, exist_ok=True)
            function(walk, **given)

        options = [
            click.option("--out", type=click.Path(path_type=Path), help="Folder for the output."),
            click.option("--steps", type=int, default=default_steps, show_default=True),
        ]
        for option in options:
            run = option(run)
        run.__click_params__ += getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        text = (sys.modules[function.__module__].__doc__ or "").split("\n\n", 1)
        return click.command(help="\n\n".join(text))(run)

    return decorate
