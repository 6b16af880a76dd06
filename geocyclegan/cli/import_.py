"""`geocyclegan import`: a model bundle from weights that another program trained."""

from __future__ import annotations

from pathlib import Path

import click

from geocyclegan.cli.options import Settings, overwrite_option, split_bands
from geocyclegan.errors import OptionError


@click.command("import", short_help="Make a model of weights that another program trained.")
@click.argument("weights", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/imported"),
    show_default=True,
    help="Run folder to make; the model bundle lies in its model/.",
)
@click.option(
    "--direction",
    type=click.Choice(["a2b", "b2a"]),
    default=None,
    help="Which way the generator of a single file translates.  [default: a2b]",
)
@click.option(
    "--chips",
    type=click.Path(path_type=Path),
    default=None,
    help="Chip folder whose domain_a.json and domain_b.json say bands and radiometry.",
)
@click.option(
    "--domain-a",
    type=click.Path(path_type=Path),
    default=None,
    help="JSON of domain A, as chip writes it.  [default: 8-bit RGB or grey, 0..255 to -1..1]",
)
@click.option(
    "--domain-b",
    type=click.Path(path_type=Path),
    default=None,
    help="JSON of domain B, as chip writes it.  [default: as for A]",
)
@click.option(
    "--bands-a",
    callback=split_bands,
    metavar="NAMES",
    help="Names of the 8-bit bands of A, in the order of the generator.  [default: red,green,blue]",
)
@click.option(
    "--bands-b",
    callback=split_bands,
    metavar="NAMES",
    help="Names of the 8-bit bands of B.  [default: red,green,blue]",
)
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Side in pixels of the crops that the generator was trained on.",
)
@overwrite_option
@click.pass_obj
def command(
    settings: Settings,
    weights: tuple[Path, ...],
    out: Path,
    direction: str | None,
    chips: Path | None,
    domain_a: Path | None,
    domain_b: Path | None,
    bands_a: tuple[str, ...] | None,
    bands_b: tuple[str, ...] | None,
    tile: int,
    overwrite: bool,
) -> None:
    """Make a model of the WEIGHTS of CycleGAN generators that were trained elsewhere.

    WEIGHTS are .pth or .safetensors files with the tensor names of pytorch-CycleGAN-and-pix2pix
    (ResNet or U-Net generators with instance norm): one file, or the generators A to B and B to A.

    \b
        geocyclegan import latest_net_G_A.pth latest_net_G_B.pth --out runs/mine
        geocyclegan import style.pth --out runs/style
        geocyclegan infer photo.tif --model runs/style --out styled.tif
    """  # noqa: D301 - click reads the backspace character
    from typing import cast

    from geocyclegan.bundle import Direction
    from geocyclegan.importing import ImportOptions, import_weights

    if len(weights) > 1 and direction is not None:
        raise OptionError(
            f"--direction {direction}: two files are A to B and B to A, in this order"
        )
    files = {"a": domain_a, "b": domain_b}
    if chips is not None:
        files = {side: file or chips / f"domain_{side}.json" for side, file in files.items()}
    bands = {"a": bands_a, "b": bands_b}
    options = ImportOptions(
        out=out,
        direction=cast(Direction, direction or "a2b"),
        domains={side: file for side, file in files.items() if file is not None},
        bands={side: names for side, names in bands.items() if names is not None},
        tile=tile,
        overwrite=overwrite,
    )
    run = import_weights(weights, options)
    if not settings.quiet:
        way = "" if (direction or "a2b") == "a2b" else " --direction b2a"
        click.echo(f"Imported: {run}")
        click.echo(f"Next: geocyclegan infer SCENE --model {run}{way} --out translated.tif")
