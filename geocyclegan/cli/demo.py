"""`geocyclegan demo`: chip, train and infer on the sample scenes, with a picture at the end."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geocyclegan.cli.options import Settings, overwrite_option, seed_option

if TYPE_CHECKING:
    import numpy.typing as npt

    from geocyclegan.raster.domain import Domain

# Small enough for two CPU cores, long enough to see fields, water and hills come out.
CHIP_SIZE, CHIP_STRIDE = 128, 64
STEPS = 400
TRAINING: dict[str, Any] = {
    "generator": "resnet6",
    "width": 16,
    "antialias": True,
    "crop": 128,
    "pool": 50,
    "panel_every": 200,
    "val_every": 200,
    "save_every": 200,
}


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for all that the demo makes.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=STEPS, show_default=True, help="Training steps."
)
@seed_option
@overwrite_option
@click.pass_obj
def command(settings: Settings, out: Path, steps: int, seed: int, overwrite: bool) -> None:
    """Translate Sentinel-1 to 13 bands of Sentinel-2 with a model trained on the spot.

    Chips the two sample scenes, trains a small model for a few minutes, translates the radar scene,
    and writes translated.tif and before_after.png. Training is unpaired; that both scenes show one
    place tells it the rough meaning (train --weak-pairs).

    \b
        geocyclegan demo
        geocyclegan demo --steps 2000 --out longer
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan import samples
    from geocyclegan.bundle import load_bundle
    from geocyclegan.chips.options import ChipOptions
    from geocyclegan.chips.tiler import chip_pairs, chip_scenes
    from geocyclegan.errors import OutputError
    from geocyclegan.inference.engine import EngineOptions
    from geocyclegan.inference.options import TranslateOptions
    from geocyclegan.inference.translate import translate_scene
    from geocyclegan.training.config import TrainConfig
    from geocyclegan.training.loop import train

    product = out / "translated.tif"
    if product.exists() and not overwrite:
        raise OutputError(f"--out {out}: {product} exists; give --overwrite or another --out")

    def say(text: str) -> None:
        if not settings.quiet:
            click.echo(text)

    radar, optical = samples.path("spain_sentinel1"), samples.path("spain_sentinel2")
    chips = out / "chips"
    say(f"1/3 chip: {radar.name} and {optical.name} into {chips}")
    cuts = ChipOptions(out=chips, size=CHIP_SIZE, stride=CHIP_STRIDE, overwrite=True)
    chip_scenes([str(radar)], cuts)
    chip_scenes([str(optical)], replace(cuts, domain="b"))
    # Without it, two of four trainings settled on a flipped meaning.
    places = replace(cuts, out=out / "places")
    chip_pairs([str(radar)], [str(optical)], places, places.partner(None, None))
    say(f"2/3 train: {steps} steps of a small CycleGAN, 2 to 13 bands")
    config = TrainConfig(
        chips=chips,
        weak_pairs=places.out,
        out=out / "runs",
        name="demo",
        steps=steps,
        seed=seed,
        **TRAINING,
    )
    run = train(config, overwrite=True).run
    say(f"3/3 infer: {radar.name} to {product}")
    bundle = load_bundle(run)
    translate_scene(
        str(radar),
        product,
        bundle,
        TranslateOptions(overwrite=True, engine=EngineOptions(window=bundle.tile)),
    )
    picture = out / "before_after.png"
    a, b = bundle.domains["a"], bundle.domains["b"]
    write_picture(picture, [(radar, a), (product, b), (optical, b)])
    say(
        f"\nProduct:  {product}  (13 bands, opens in QGIS where it belongs)\n"
        f"Picture:  {picture}  (radar, translation, the real optical scene)\n"
        f"Model:    {run / 'model'}\n"
        "\nA few minutes of training show the chain, not the quality. Next, with your own scenes:\n"
        f"{_activation()}"
        "  geocyclegan chip YOUR_SAR.tif --domain a\n"
        "  geocyclegan chip YOUR_OPTICAL.tif --domain b\n"
        "  geocyclegan train\n"
        "  geocyclegan infer YOUR_SAR.tif --out translated.tif\n"
        "Where both show one place, that helps: chip YOUR_SAR.tif --pair YOUR_OPTICAL.tif --out"
        " places, and train --weak-pairs places."
    )


def _activation() -> str:
    """Say how to have the program on the path, where it runs in an environment that is not active.

    The README's first command calls it by its path.
    """
    if shutil.which("geocyclegan") is not None or sys.prefix == sys.base_prefix:
        return ""
    if sys.platform == "win32":
        return f"  {Path(sys.prefix) / 'Scripts' / 'activate'}\n"
    activate = Path(sys.prefix) / "bin" / "activate"
    with suppress(ValueError):
        activate = activate.relative_to(Path.cwd())
    return f"  source {shlex.quote(str(activate))}\n"


def write_picture(path: Path, scenes: list[tuple[Path, Domain]]) -> None:
    """Draw scenes side by side, each in three bands of its domain."""
    from geocyclegan.raster.picture import captioned_row, picture, save_png
    from geocyclegan.raster.scene import Scene
    from geocyclegan.raster.windows import Window

    captions = ("Sentinel-1 (input)", "translated (synthetic)", "Sentinel-2 (real)")
    images: list[npt.NDArray[Any]] = []
    for scene_path, domain in scenes:
        with Scene(scene_path) as scene:
            pixels, valid = scene.read(Window(0, 0, *scene.grid.shape))
        images.append(picture(domain, domain.to_levels(pixels, valid), valid))
    save_png(path, captioned_row(images, captions))
