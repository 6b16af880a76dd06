"""`geocyclegan export`: a model in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geocyclegan.cli.options import Settings, overwrite_option

if TYPE_CHECKING:
    from geocyclegan.exporting.files import ExportResult


@click.command("export")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    help="Run or bundle folder.  [default: the newest run in runs/]",
)
@click.option(
    "--format",
    type=click.Choice(["onnx", "torch", "deepness", "mlm"]),
    default="onnx",
    show_default=True,
    help="ONNX; a torch.export program; ONNX as the QGIS plugin Deepness takes it; a STAC item of"
    " the MLM extension.",
)
@click.option(
    "--direction",
    type=click.Choice(["a2b", "b2a"]),
    default="a2b",
    show_default=True,
    help="Which way to translate.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="File to write.  [default: RUN_DIRECTION.onnx, .pt2 or .json here]",
)
@click.option(
    "--radiometry/--no-radiometry",
    default=True,
    show_default=True,
    help="Take and give the stored units of the domains, or levels in [-1, 1].",
)
@click.option(
    "--norm-stats",
    type=click.Choice(["frozen", "tile"]),
    default="frozen",
    show_default=True,
    help="Whose statistics normalise an input: the same for all (frozen), or its own (tile, with"
    " seams between tiles).",
)
@click.option(
    "--scene",
    "scenes",
    multiple=True,
    metavar="SCENE",
    help="Scene whose statistics are frozen in; repeat it for several.  [default: those of the"
    " training set, which the model records]",
)
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    default=None,
    help="Pixels per tile side, for --format deepness.  [default: by the receptive field]",
)
@overwrite_option
@click.pass_obj
def command(settings: Settings | None, /, model: Path | None, **given: Any) -> None:
    """Export one direction of a model.

    ONNX and torch programs take images of any size, (samples, bands, height, width) in float32, in
    the stored units of the source domain, and give those of the target domain; what is without data
    goes in and comes out as nodata. Each file is compared with the model before it gets its name.

    \b
        geocyclegan export
        geocyclegan export --model runs/spain --direction b2a --out optical_to_sar.onnx
        geocyclegan export --format torch --scene sar.tif
        geocyclegan export --format deepness
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.bundle import load_bundle, newest_bundle
    from geocyclegan.exporting.files import ExportOptions, export_model

    options = ExportOptions(**given)
    bundle = load_bundle(model) if model is not None else newest_bundle(Path("runs"))
    result = export_model(bundle, options)
    if settings is None or not settings.quiet:
        click.echo("\n".join(_summary(result, options.format)))


def _summary(result: ExportResult, format: str) -> list[str]:
    if format == "mlm":
        return [f"{result.out}: STAC item, MLM extension 1.5"]
    lines = [
        f"{result.out}: statistics of {_WHOSE[result.statistics]}; differs from the model by"
        f" {result.difference:.1g} of a band's range"
    ]
    if result.tiling is not None:
        lines.append(
            f"Deepness: tiles of {result.tiling.tile} px, overlap {result.tiling.overlap} %, values"
            " 0 to 255; for products in physical units use geocyclegan infer"
        )
    return lines


_WHOSE = {
    "training set": "the training set",
    "scenes": "the scenes named",
    "input": "each input",
    "none": "no layer",
}
