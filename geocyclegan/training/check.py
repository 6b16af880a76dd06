"""Whether the options of a run can be, and go together. Imports nothing heavy.

What depends on the chips, the networks or the machine is checked later, where those are known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geocyclegan.catalogue import method_fields, method_info, own_generators
from geocyclegan.errors import OptionError
from geocyclegan.ranges import RANGES, require_in_range
from geocyclegan.training.config_file import option

if TYPE_CHECKING:
    from geocyclegan.training.config import TrainConfig

_COUNTS = (
    *("width", "d_width", "d_layers", "d_scales", "style_dims", "noise"),
    *("steps", "epochs", "batch", "crop", "scene_crops", "pair_every"),
    *("devices", "nodes", "workers", "accumulate", "patience"),
)
_INTERVALS = ("save_every", "panel_every", "val_every", "log_every")
_FROM_ZERO = ("panel_every", "val_every", "max_bad")
_WEIGHTS = (
    *("lambda_a", "lambda_b", "identity", "pool", "gradient_penalty", "cycle_critic"),
    *("gradient_loss", "angle_loss", "pair_weight", "weak_weight", "lambda_l1", "lambda_nce"),
    *("lambda_image", "lambda_style", "lambda_content", "lambda_cycle", "lambda_semantic"),
)
CHOICES = {
    "norm": ("instance", "scene"),
    "upsample": ("transpose", "nearest", "bilinear"),
    "direction": ("a2b", "b2a"),
    "gan_loss": ("lsgan", "vanilla", "hinge", "wgan-gp"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "32", "tf32", "bf16", "fp16"),
    "schedule": ("linear", "cosine", "one-cycle", "plateau", "constant"),
}
"""Options that are one of a few words; the command line offers these."""


def check_config(config: TrainConfig) -> None:
    """Refuse options that are out of range or contradict each other.

    Raises:
        OptionError: one is, or two do.
    """
    _check_name(config)
    if config.steps is not None and config.epochs is not None:
        raise OptionError(f"--steps {config.steps} and --epochs {config.epochs}: give one of them")
    _check_numbers(config)
    for name, known in CHOICES.items():
        if getattr(config, name) not in (*known, None):
            raise OptionError(
                f"{option(name)} {getattr(config, name)}: choose one of: {', '.join(known)}"
            )
    if config.patience is not None and config.val_every == 0:
        raise OptionError(f"--patience {config.patience}: it needs validations; give --val-every")
    if config.schedule == "plateau" and config.val_every == 0:
        raise OptionError("--schedule plateau: it needs validations; give --val-every")
    if config.features is not None and config.val_every == 0:
        raise OptionError(f"--features {config.features}: it needs validations; give --val-every")
    if config.cuda_graphs and config.compile is False:
        raise OptionError(
            "--cuda-graphs and --no-compile: it is compiled networks that are recorded; leave"
            " one of them out, or give --no-cuda-graphs"
        )
    _check_method(config)
    _check_norm(config)
    _check_pairs(config)


def _check_numbers(config: TrainConfig) -> None:
    for name in dict.fromkeys((*_COUNTS, *_INTERVALS, *_FROM_ZERO)):
        value = getattr(config, name)
        least = 0 if name in _FROM_ZERO else 1
        if value is not None and value < least:
            raise OptionError(f"{option(name)} {value}: expected {least} or more")
    for name in _WEIGHTS:
        value = getattr(config, name)
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise OptionError(f"{option(name)} {value}: expected a finite number, 0 or more")
    if config.lr is not None and not (config.lr > 0 and math.isfinite(config.lr)):
        raise OptionError(f"--lr {config.lr}: expected a finite number above 0")
    if config.decay is not None and not 0 <= config.decay <= 1:
        raise OptionError(f"--decay {config.decay}: expected a share from 0 to 1")
    for name in RANGES:
        require_in_range(name, getattr(config, name), option(name))
    if not 0 <= config.seed < 2**63:
        raise OptionError(f"--seed {config.seed}: expected 0 or more, below 2^63")
    if not 0 <= config.ema < 1:
        raise OptionError(f"--ema {config.ema}: expected a share from 0 to below 1, such as 0.999")


def _check_method(config: TrainConfig) -> None:
    info = method_info(config.method)
    for name in method_fields():
        value = getattr(config, name)
        if value is not None and name not in info.options:
            taken = ", ".join(option(each) for each in info.options)
            raise OptionError(
                f"{option(name)} {value}: --method {config.method} does not take it; beside the"
                f" options of all methods it takes: {taken}"
            )
    generator = config.generator
    if generator and info.generators and generator not in info.generators:
        raise OptionError(
            f"--generator {generator}: --method {config.method} has its own,"
            f" {', '.join(info.generators)}; leave the option out"
        )
    if not info.generators and generator in own_generators():
        raise OptionError(
            f"--generator {generator}: it is part of another method; give --method {generator}"
        )

    if config.gan_loss == "wgan-gp" and "gradient_penalty" not in info.options:
        raise OptionError(
            f"--gan-loss wgan-gp: its penalty is of each image by itself, and the judge of"
            f" --method {config.method} normalises over the batch; choose one of: lsgan, vanilla,"
            " hinge"
        )

    if config.gradient_penalty is not None and config.gan_loss != "wgan-gp":
        raise OptionError(
            f"--gradient-penalty {config.gradient_penalty}: it goes with --gan-loss wgan-gp"
        )
    if config.band_map is not None and config.identity == 0:
        raise OptionError(
            f"--band-map {config.band_map}: it is for the identity loss, which --identity 0 puts"
            " off; leave one of them out"
        )


def _check_pairs(config: TrainConfig) -> None:
    for name, folder in (
        ("pair_weight", "pairs"),
        ("pair_every", "pairs"),
        ("weak_weight", "weak_pairs"),
    ):
        value = getattr(config, name)
        if value is not None and getattr(config, folder) is None:
            raise OptionError(
                f"{option(name)} {value}: it goes with {option(folder)} PAIRED_CHIPS, which is"
                " not given"
            )


def _check_norm(config: TrainConfig) -> None:
    if config.norm == "scene" and method_info(config.method).doubling:
        raise OptionError(
            f"--norm scene: --method {config.method} has batch norm; leave the option out"
        )
    if config.norm != "scene" and config.scene_crops is not None:
        raise OptionError(f"--scene-crops {config.scene_crops}: it goes with --norm scene")
    if config.norm == "scene" and config.batch not in (None, 1):
        raise OptionError(
            f"--batch {config.batch}: with --norm scene, a step sees --scene-crops crops of one"
            " scene of each domain; leave --batch out"
        )


def _check_name(config: TrainConfig) -> None:
    name = config.name
    if name is not None and (
        not name or name.startswith((".", "-")) or set(name) & set('/\\:*?"<>|')
    ):
        raise OptionError(
            f"--name {name}: expected a plain folder name; the folder it lies in is --out"
        )
