"""`geocyclegan train`: a translation model from chips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from geocyclegan.catalogue import DISCRIMINATORS, GENERATORS, METHODS
from geocyclegan.cli.options import Settings, overwrite_option
from geocyclegan.training.check import CHOICES
from geocyclegan.training.config import TrainConfig

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT = TrainConfig()
_HINTS = get_type_hints(TrainConfig)


def _option(
    name: str,
    help: str,
    kind: Any = None,
    default: str | None = None,
    values: Iterable[str] | None = None,
) -> Callable[[Command], Command]:
    """Make the option of a field of `TrainConfig`, which is where its default comes from.

    `values` are offered by the shell where the configuration, not the option, refuses others.
    """
    field = name.partition("/")[0].lstrip("-").replace("-", "_")
    value = getattr(_DEFAULT, field)
    shown = default or (_defaults_of(field) if value is None else None)
    if field in CHOICES:
        kind = click.Choice(CHOICES[field])
    types = [each for each in get_args(_HINTS[field]) or (_HINTS[field],) if each is not NoneType]
    return click.option(
        name,
        type=kind or types[0],
        default=value,
        show_default=value is not None,
        shell_complete=None if values is None else _offering(tuple(values)),
        help=help + (f"  [default: {shown}]" if shown else ""),
    )


def _offering(
    values: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda ctx, param, begun: [value for value in values if value.startswith(begun)]


def _defaults_of(field: str) -> str:
    """Say the defaults of the methods that take an option: one where all agree."""
    values = {n: m.options[field] for n, m in METHODS.items() if m.options.get(field) is not None}
    return _by_method({name: str(value) for name, value in values.items()})


def _by_method(values: dict[str, str]) -> str:
    """Put what all methods have in common once, and what differs by name."""
    if len(set(values.values())) == 1 and len(values) == len(METHODS):
        return next(iter(values.values()))
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return "; ".join(f"{', '.join(names[value])}: {value}" for value in names)


@click.command(name="train", short_help="Train a translation model on chips.")
@click.argument("chips", metavar="[CHIPS]", type=click.Path(path_type=Path), default=_DEFAULT.chips)
@_option("--out", "Folder of runs.", click.Path(path_type=Path))
@_option("--name", "Name of the run.", str, "the method and the next free number")
@_option(
    "--method",
    "What to train: " + "; ".join(f"{m.name} ({m.summary})" for m in METHODS.values()) + ".",
    values=METHODS,
)
@_option(
    "--generator",
    "Generators: resnet9, resnet6 (smaller), unet256, unet128, densenet, or of"
    " segmentation-models-pytorch smp-unet, smp-unetplusplus, smp-fpn or smp-segformer.",
    values=GENERATORS,
)
@_option("--width", "Channels of the generators' first layer; of smp generators' decoder.")
@click.option(
    "--antialias/--no-antialias",
    default=_DEFAULT.antialias,
    show_default=True,
    help="Blur in resnet and densenet generators before every second pixel is dropped.",
)
@_option(
    "--upsample",
    "How resnet and densenet generators double the resolution; nearest and bilinear leave no"
    " checkerboard.",
    default="bilinear with --antialias, else transpose",
)
@_option(
    "--encoder",
    "Encoder of smp generators, by segmentation-models-pytorch's name.",
    str,
    "resnet34",
)
@_option(
    "--encoder-weights",
    "File with weights that this encoder starts from, .safetensors or .pth.",
    click.Path(path_type=Path),
    "random ones",
)
@_option(
    "--discriminator",
    "Discriminators: patch70, patch (--d-layers), pixel or multiscale (--d-scales).",
    values=DISCRIMINATORS,
)
@_option("--d-layers", "Halvings of the discriminators patch and multiscale.", int, "3")
@_option("--d-scales", "Scales of the discriminator multiscale.", int, "3")
@click.option(
    "--spectral-norm/--no-spectral-norm",
    default=_DEFAULT.spectral_norm,
    show_default=True,
    help="Normalise the discriminators' weights by their largest singular value.",
)
@_option("--d-width", "Channels of the discriminators' first layer.", int, "as --width")
@_option(
    "--norm",
    "What shares the generators' statistics: each crop by itself, or several crops of one scene.",
)
@_option("--scene-crops", "Crops of one scene in a step of --norm scene.", int, "4")
@_option("--steps", "Steps in total; with --resume, too.", int, "by --epochs")
@_option(
    "--epochs",
    "Epochs in total, each as many samples as the larger domain has chips.",
    int,
    _by_method({m.name: str(m.epochs) for m in METHODS.values()}),
)
@_option("--batch", "Images of each domain per step.")
@_option("--crop", "Side of the random crops in pixels.", int, "256, or what the chips allow")
@_option("--gan-loss", "Adversarial loss.")
@_option("--lr", "Learning rate.")
@_option("--lambda-a", "Weight of the cycle A to B to A.")
@_option("--lambda-b", "Weight of the cycle B to A to B.")
@_option(
    "--identity",
    "Weight, relative to the cycle's, of the identity loss over the bands that both domains name"
    " alike; 0: off.",
)
@_option("--lambda-l1", "Weight of the mean absolute error against the truth.")
@_option("--lambda-nce", "Weight of the contrastive loss.")
@_option(
    "--nce-identity/--no-nce-identity",
    "Ask the contrastive loss of images of the target domain, too.",
)
@_option(
    "--flip-equivariance/--no-flip-equivariance",
    "Ask that a mirrored image gives the mirrored translation.",
)
@_option("--lambda-image", "Weight of an image's return from its own content and style.")
@_option("--lambda-style", "Weight of the return of a style.")
@_option("--lambda-content", "Weight of the return of a content.")
@_option("--lambda-cycle", "Weight of an image's return from its translation.")
@_option("--style-dims", "Length of a style.")
@_option(
    "--lambda-semantic", "Weight of the cross-entropy of segmentation networks on translations."
)
@_option(
    "--segmenter",
    "Frozen segmentation network of domain A: the state of a segmentation-models-pytorch network as"
    " safetensors.",
    click.Path(path_type=Path),
    "one trained here from the label chips of A",
)
@_option("--noise", "Numbers that an image from noise is made of.")
@_option(
    "--direction",
    "Which way to translate, of methods that learn one.",
)
@_option("--gradient-penalty", "Weight of the penalty of --gan-loss wgan-gp.", float, "10")
@_option(
    "--band-map",
    "Bands of A and B that mean the same, by name or number, such as B04=red,B08=nir, for the"
    " identity loss.",
    str,
    "bands of one name",
)
@_option(
    "--cycle-critic",
    "Weight of two critics that tell images from what comes back of them; 0: none.",
)
@_option(
    "--cycle-features",
    "Share of the cycle that compares discriminator features, growing from 0 to this.",
)
@_option("--cycle-end", "Share of the cycle's weight left at the end, to which it falls linearly.")
@_option(
    "--gradient-loss",
    "Weight of the difference of edges in cycles and pairs, relative to theirs; 0: none.",
)
@_option(
    "--angle-loss",
    "Weight of the angle between spectra in cycles and pairs, relative to theirs; 0: none.",
)
@_option(
    "--pairs",
    "Chips made by chip --pair, any number, that tell unpaired training the meaning.",
    click.Path(path_type=Path),
)
@_option("--pair-weight", "Weight of the difference of pairs.", float, "10")
@_option("--pair-every", "Steps from one batch of pairs to the next.", int, "1")
@_option(
    "--weak-pairs",
    "Chips made by chip --pair of scenes that agree roughly: shifted, changed in between.",
    click.Path(path_type=Path),
)
@_option("--weak-weight", "Weight of the coarse difference of weak pairs.", float, "5")
@_option("--pool", "Earlier translations kept for each discriminator.")
@_option("--decay", "Share of the steps, the last ones, in which the learning rate falls to zero.")
@click.option(
    "--flip/--no-flip",
    default=_DEFAULT.flip,
    show_default=True,
    help="Mirror and turn crops at random; shadows have a direction.",
)
@_option("--zoom", "Largest factor by which crops are enlarged or shrunk, up to 2; 1: never.")
@_option("--rotate", "Largest angle in degrees by which crops are turned; 0: never.")
@_option("--jitter-db", "Largest random change of bands in decibel, in dB; 0: none.")
@_option("--jitter-gain", "Largest random relative change of the other bands; 0: none.")
@_option(
    "--jitter-offset",
    "Largest random shift of the other bands, as a share of their range; 0: none.",
)
@_option("--speckle", "Looks of random speckle that multiplies radar bands.", float, "none")
@_option("--band-dropout", "Chance of each band to be lost, never all of them; 0: none.")
@_option("--seed", "Seed of weights, order, crops and pools.")
@_option("--device", "Where to train.")
@_option(
    "--precision",
    "Arithmetic of the networks; weights, statistics and losses stay in single precision. auto:"
    " what the device runs fast.",
)
@_option("--devices", "Devices on this machine, a process each.", int, "1, or as torchrun has it")
@_option("--nodes", "Machines.", int, "1, or as torchrun has it")
@_option("--workers", "Threads that read chips ahead.", int, "4 beside CUDA, 1 on the CPU")
@_option(
    "--max-bad",
    "Chips that cannot be read, damaged or missing, to skip, each replaced by another; one more"
    " ends the run.",
)
@_option(
    "--cache",
    "Folder for decoded chips while the run lasts, shared by its processes; on a fast local disk.",
    click.Path(path_type=Path),
    "what fits in memory",
)
@_option("--accumulate", "Passes of --batch images whose gradients make one step.")
@click.option(
    "--memory-saving",
    is_flag=True,
    default=_DEFAULT.memory_saving,
    help="Compute activations anew instead of keeping them: larger crops, slower steps.",
)
@click.option(
    "--compile/--no-compile",
    default=_DEFAULT.compile,
    help="Compile the networks.  [default: on CUDA, for long runs]",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs",
    default=_DEFAULT.cuda_graphs,
    show_default=True,
    help="Run compiled networks from recordings of their kernels, on CUDA.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    default=_DEFAULT.deterministic,
    help="Only algorithms that give the same bits every time, on CUDA, too.",
)
@_option("--ema", "Keep a running mean of the weights in the bundle, such as 0.999; 0: off.")
@_option(
    "--schedule",
    "Course of the learning rate.",
)
@_option(
    "--features",
    "ONNX network, images in physical units to (N, D) features, that validation compares"
    " translations and real images by.",
    click.Path(path_type=Path),
    "patches of the images alone",
)
@_option("--patience", "End after so many validations without a better score.", int, "never")
@_option("--save-every", "Steps between checkpoints, each with the model bundle.")
@_option("--panel-every", "Steps between panels of translated images; 0: none.")
@_option("--val-every", "Steps between validations; 0: none.")
@_option("--log-every", "Steps in one line of the log.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file with these options; those on the command line come first.",
)
@click.option(
    "--find-lr",
    "finds_lr",
    is_flag=True,
    help="Try learning rates, print what they do and which to take, and write nothing.",
)
@click.option("--resume", is_flag=True, help="Go on with the run --name, up to --steps in total.")
@overwrite_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    config_file: Path | None,
    finds_lr: bool,
    resume: bool,
    overwrite: bool,
    **values: Any,
) -> None:
    """Train a model that translates between the two domains of CHIPS.

    The run folder, RUNS/NAME, receives the model bundle, checkpoints, logs and sample panels.
    Ctrl-C saves; --resume goes on from there, with the options the run was started with.

    \b
        geocyclegan train
        geocyclegan train --generator resnet6 --width 32 --steps 5000 --name small
        geocyclegan train --name small --resume --steps 10000
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.training.config import read_options
    from geocyclegan.training.run import stored_config

    given = {} if config_file is None else read_options(config_file)
    typed = {
        name: value
        for name, value in values.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    # A line of the file about how long to train gives way to either option.
    if typed.keys() & {"steps", "epochs"}:
        given = {k: v for k, v in given.items() if k not in ("steps", "epochs")}
    given |= typed
    if resume:
        out, name = given.get("out", _DEFAULT.out), given.get("name")
        # The run may have been moved, or be named from another folder, since it was written.
        config = stored_config(out, name).updated(given | {"out": out, "name": name})
    else:
        config = _DEFAULT.updated(given)

    if finds_lr:
        if resume or overwrite:
            raise click.UsageError(
                "--find-lr: it changes no run; leave --resume and --overwrite out"
            )
        from geocyclegan.training.finder import find_lr

        trial = find_lr(config)
        click.echo(trial.table())
        click.echo(f"Suggestion: --lr {trial.suggestion:.1e}")
        return
    from geocyclegan.progress import print_line
    from geocyclegan.training.loop import train

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()

    def say(line: str) -> None:
        # With -v the log has said it.
        if settings.verbosity == 0:
            print_line(line)

    result = train(config, resume=resume, overwrite=overwrite, say=say)
    if result.leads and not settings.quiet:
        count = len(result.skipped)
        skipped = f", without {count} bad chip{'s' * (count != 1)}" if count else ""
        click.echo(f"Trained {result.steps} step{'s' * (result.steps != 1)}{skipped}: {result.run}")
        if METHODS[config.method].directions:
            click.echo(f"Next: geocyclegan infer SCENE --model {result.run} --out translated.tif")
        else:
            click.echo(f"Next: geocyclegan sample --model {result.run} --n 16 --out samples")
