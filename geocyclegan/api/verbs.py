"""chip, train, infer and export as functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocyclegan.api.model import Model
from geocyclegan.api.options import Scenes, listed, path_of, takes, takes_options_of, typed
from geocyclegan.api.wording import python_words
from geocyclegan.bundle import load_bundle, newest_bundle
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import ChipReport
from geocyclegan.chips.tiler import chip_pairs as cut_pairs
from geocyclegan.chips.tiler import chip_scenes as cut_scenes
from geocyclegan.errors import OptionError
from geocyclegan.exporting.files import ExportOptions, ExportResult, export_model
from geocyclegan.inference.run import RUNS, InferOptions, infer_scenes
from geocyclegan.raster.radiometry import ScaleSpec
from geocyclegan.training.config import TrainConfig, read_options
from geocyclegan.training.loop import TrainResult
from geocyclegan.training.loop import train as train_model
from geocyclegan.training.run import stored_config


@takes_options_of(ChipOptions)
@python_words("chip")
def chip(scenes: Scenes, **given: Any) -> ChipReport:
    """Cut scenes into the chips of a domain.

    Big jobs start processes, so a script must guard its main part with
    `if __name__ == "__main__":`.

    Args:
        scenes: files, glob patterns, folders, URLs or sub-dataset names.
        **given: the options of `ChipOptions`; text is read as on the command line ("db", "1280m",
            "1-3,B08", "deflate").

    Returns:
        What was made and what was left out.

    Raises:
        GeoCycleGANError: see `geocyclegan.chips.tiler.chip_scenes`.
    """
    return cut_scenes(listed(scenes), ChipOptions(**typed(ChipOptions, given, "chip")))


@dataclass(frozen=True)
class PairOptions(ChipOptions):
    """The options of pairs of scenes.

    Attributes:
        pair_bands: bands of the partners; None: all but alpha.
        pair_scale: how the radiometry of the partners is fitted; None: "auto".
        pair_nodata: stored number that stands for no data in the partners, like `nodata`.
        pair_unit: unit of the numbers of the partners, like `unit`.
    """

    pair_bands: tuple[str, ...] | None = None
    pair_scale: ScaleSpec | str | None = None
    pair_nodata: float | None = None
    pair_unit: str | None = None


@takes_options_of(PairOptions)
@python_words("chip")
def chip_pairs(
    pairs: Sequence[tuple[str | Path, str | Path]], **given: Any
) -> tuple[ChipReport, ChipReport]:
    """Cut pairs of scenes into chips of the same windows of both domains.

    Args:
        pairs: a scene of `domain` and its partner for the other domain, each.
        **given: the options of `ChipOptions`, for both; `pair_bands` and `pair_scale`.

    Returns:
        What was made of the scenes, and of their partners.

    Raises:
        GeoCycleGANError: see `geocyclegan.chips.tiler.chip_scenes`.
    """
    own = typed(PairOptions, given, "chip_pairs")
    partly = [own.pop(f"pair_{name}", None) for name in ("bands", "scale", "nodata", "unit")]
    options = ChipOptions(**own)
    other = options.partner(*partly)
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise OptionError(f"pairs: {type(pairs).__name__}: expected several (scene, partner)")
    both = [listed(pair) for pair in pairs]
    for pair in both:
        if len(pair) != 2:
            raise OptionError(f"pairs: {len(pair)} scenes in one; expected (scene, partner)")
    scenes, partners = ([pair[i] for pair in both] for i in (0, 1))
    return cut_pairs(scenes, partners, options, other)


@dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """The options of a run, and what happens to a run of the same name that exists.

    Attributes:
        config: YAML file with options; those given as arguments come first.
        resume: go on with the run `name` up to `steps` in total.
        overwrite: replace a run of that name.
    """

    config: Path | None = None
    resume: bool = False
    overwrite: bool = False


@takes(TrainOptions)
@python_words("train")
def train(chips: str | Path | None = None, **given: Any) -> TrainResult:
    """Train a translation model on chips.

    Args:
        chips: the chip folder; None: "chips".
        **given: the options of `TrainConfig`; `config`, `resume` and `overwrite`. A resumed run
            keeps the options it was started with.

    Returns:
        The run folder, the model in it, the steps done and the last losses.

    Raises:
        GeoCycleGANError: see `geocyclegan.training.loop.train`.
    """
    own = typed(TrainOptions, given | ({} if chips is None else {"chips": chips}), "train")
    file, resume, overwrite = (own.pop(name, None) for name in ("config", "resume", "overwrite"))
    asked = {} if file is None else read_options(file)
    # A line of the file about how long to train gives way to either argument.
    if own.keys() & {"steps", "epochs"}:
        asked = {k: v for k, v in asked.items() if k not in ("steps", "epochs")}
    asked |= own
    if resume:
        out, name = asked.get("out", TrainConfig.out), asked.get("name")
        config = stored_config(out, name).updated(asked | {"out": out, "name": name})
    else:
        config = TrainConfig().updated(asked)
    return train_model(config, resume=bool(resume), overwrite=bool(overwrite))


@dataclass(frozen=True)
class InferArguments(InferOptions):
    """The options of `infer`, whose model may be loaded already.

    Attributes:
        model: run or bundle folder, or what `load` gave; None: the newest run in `runs`.
    """

    model: Path | Model | None = None  # type: ignore[assignment]


@takes_options_of(InferArguments)
@python_words("infer")
def infer(scenes: Scenes, **given: Any) -> list[Path]:
    """Translate scenes into Cloud-Optimised GeoTIFFs on their own grid.

    Args:
        scenes: files, glob patterns, folders, URLs or sub-dataset names; `()`: those that
            the model's source domain was chipped from.
        **given: the options of `InferOptions`; as `model`, what `load` gave, too, whose device
            counts then.

    Returns:
        The products.

    Raises:
        GeoCycleGANError: see `geocyclegan.inference.run.infer_scenes`.
    """
    own = typed(InferArguments, given, "infer")
    loaded = own.get("model")
    if not isinstance(loaded, Model):
        return infer_scenes(listed(scenes), InferOptions(**own))
    if own.get("cluster") is None:
        own.setdefault("device", loaded.device.type)
    options = InferOptions(**own | {"model": loaded.bundle.folder})
    return infer_scenes(listed(scenes), options, bundle=loaded.bundle)


@dataclass(frozen=True)
class _OfModel:
    model: str | Path | Model | None = None


@dataclass(frozen=True)
class _ExportArguments(ExportOptions, _OfModel):
    """What `export` takes, in this order."""


@takes(_ExportArguments)
@python_words("export")
def export(model: str | Path | Model | None = None, **given: Any) -> ExportResult:
    """Export one direction of a model as ONNX, a torch program or a STAC item.

    Args:
        model: run or bundle folder, or what `load` gave; None: the newest run in `runs`.
        **given: the options of `ExportOptions`.

    Returns:
        The file, whose statistics it carries, and how far it is from the model.

    Raises:
        GeoCycleGANError: see `geocyclegan.exporting.files.export_model`.
    """
    options = ExportOptions(**typed(ExportOptions, given, "export"))
    if isinstance(model, Model):
        return export_model(model.bundle, options)
    return export_model(
        newest_bundle(RUNS) if model is None else load_bundle(path_of("model", model)), options
    )
