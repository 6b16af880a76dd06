"""`geocyclegan sample`: chips from noise."""

from __future__ import annotations

from pathlib import Path

import click

from geocyclegan.cli.options import Settings, overwrite_option, seed_option


@click.command("sample")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    help="Run or bundle folder of --method dcgan.  [default: the newest run in runs/]",
)
@click.option(
    "--n", "count", type=click.IntRange(min=1), default=16, show_default=True, help="How many."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples"),
    show_default=True,
    help="Folder to write the GeoTIFFs to.",
)
@seed_option
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; auto takes CUDA when there is one.",
)
@overwrite_option
@click.pass_obj
def command(
    settings: Settings,
    model: Path | None,
    count: int,
    out: Path,
    seed: int,
    device: str,
    overwrite: bool,
) -> None:
    """Make chips from noise with a model that was trained by --method dcgan.

    They are GeoTIFFs in the physical units of the domain that the model was trained on, tagged
    SYNTHETIC=YES, of no place on Earth. Chip number i of a seed is always the same.

    \b
        geocyclegan train --method dcgan --name scenes
        geocyclegan sample --model runs/scenes --n 16 --out made
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.bundle import load_bundle, newest_bundle
    from geocyclegan.device import choose_device
    from geocyclegan.inference.sample import sample_scenes

    bundle = load_bundle(model) if model is not None else newest_bundle(Path("runs"))
    paths = sample_scenes(
        bundle, out, count=count, seed=seed, device=choose_device(device), overwrite=overwrite
    )
    if not settings.quiet:
        click.echo(f"Wrote {len(paths)} chips: {out}")
