"""Every check that can be made before the first file is written, and the defaults they lead to."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from geocyclegan.catalogue import method_info
from geocyclegan.errors import OptionError
from geocyclegan.methods import Method, NetworkSpec, build_method
from geocyclegan.models import generators
from geocyclegan.models.dcgan import LEAST_SIDE
from geocyclegan.raster.domain import Domain, mapped_bands, shared_bands
from geocyclegan.training.config import MAY_CHANGE, TrainConfig, resolved
from geocyclegan.training.config_file import option
from geocyclegan.training.data import Chips
from geocyclegan.training.features import Features
from geocyclegan.training.feed import SCENE_CROPS, radiometric_of, sampler_of
from geocyclegan.training.networks import (
    DISCRIMINATOR,
    discriminator_args,
    generator_args,
    probe_discriminator,
    probe_generator,
)
from geocyclegan.training.placing import save_memory
from geocyclegan.training.radiometric import check_radiometric

log = logging.getLogger(__name__)

_CANONICAL_CROP = 256
_PAIR_WEIGHT, _WEAK_WEIGHT = 10.0, 5.0
# What a method calls an option where its name alone would not say enough; the others keep theirs.
_ARGUMENTS = {"pool": "pool_size"}
# Options of methods that are not arguments of theirs: networks, batches and schedule.
_ELSEWHERE = frozenset(
    {
        *("generator", "discriminator", "batch", "decay"),
        *("band_map", "pairs", "pair_every", "weak_pairs"),
    }
)


def resolve(config: TrainConfig, chips: Chips, *, resume: bool = False) -> TrainConfig:
    """Fill in what the options leave open, and refuse what cannot be trained.

    Args:
        config: the options.
        chips: what to train on.
        resume: the run has weights already, so those to start from are not looked at.

    Returns:
        A configuration without `epochs`, whose `steps`, `crop` and `d_width` are numbers, with the
        method's own defaults filled in.

    Raises:
        OptionError: an option does not fit the chips or the networks.
        ChipsError: the method needs pairs and the chips have none, or chips are damaged.
    """
    config = config.with_defaults()
    steps = config.steps
    if steps is None:
        epochs = method_info(config.method).epochs if config.epochs is None else config.epochs
        steps = sampler_of(config, chips).steps(epochs)
    config = replace(
        _with_pairs(config),
        steps=steps,
        epochs=None,
        crop=_crop(config, chips),
        d_width=config.d_width or config.width,
        scene_crops=_scene_crops(config),
    )
    _check_pair_size(config, chips)
    domains = chips.train_a.domain, chips.train_b.domain
    check_radiometric(radiometric_of(config), domains)
    _check_scores(config, chips)
    Features.of_run(config, chips)
    # Without memory: only to hear what the registries and the networks have to say.
    with torch.device("meta"):
        method = build(replace(config, encoder_weights=None) if resume else config, chips)
    if config.memory_saving:
        save_memory([method])
    return config


def _check_scores(config: TrainConfig, chips: Chips) -> None:
    """Refuse what follows scores where no validation will give one."""
    wanting = "--patience" if config.patience else "--schedule plateau"
    if config.patience is None and config.schedule != "plateau":
        return
    if not (len(chips.val_a) and len(chips.val_b)) and chips.hints is None and chips.weak is None:
        raise OptionError(
            f"{wanting}: it follows the scores of validations, and {chips.folder} has not both"
            " domains' validation chips; chip with --val, or leave it out"
        )


def _scene_crops(config: TrainConfig) -> int | None:
    if config.norm != "scene":
        return None
    crops = config.scene_crops or max(SCENE_CROPS, config.ranks)
    if crops % config.ranks:
        raise OptionError(
            f"--scene-crops {crops}: the crops of a scene are spread over {config.ranks} processes;"
            f" give a multiple of {config.ranks}"
        )
    return crops


def _with_pairs(config: TrainConfig) -> TrainConfig:
    """Fill in how much pairs count, where there are any."""
    given: dict[str, Any] = {}
    if config.pairs is not None:
        given["pair_weight"] = _PAIR_WEIGHT if config.pair_weight is None else config.pair_weight
        given["pair_every"] = config.pair_every or 1
    if config.weak_pairs is not None:
        given["weak_weight"] = _WEAK_WEIGHT if config.weak_weight is None else config.weak_weight
    return replace(config, **given)


def _check_pair_size(config: TrainConfig, chips: Chips) -> None:
    for name, hints in (("pairs", chips.hints), ("weak_pairs", chips.weak)):
        if hints is not None and hints.train.a.size < (config.crop or 0):
            raise OptionError(
                f"{option(name)} {hints.train.folder}: its chips have {hints.train.a.size} px, and"
                f" crops have {config.crop}; cut them again with chip --size {config.crop}, or give"
                f" --crop {hints.train.a.size} or less"
            )


def seed_of(config: TrainConfig, rank: int) -> int:
    """Return the seed of what each process draws for itself; the first has that of the run."""
    return (config.seed + rank * 0x9E3779B97F4A7C15) % 2**63


def build(config: TrainConfig, chips: Chips, rank: int = 0) -> Method:
    """Build the method of a resolved configuration with fresh weights.

    Args:
        config: resolved.
        chips: the domains.
        rank: number of this process, whose image pools draw their own numbers.

    Raises:
        OptionError: an option does not fit the chips or the networks.
    """
    a, b = chips.train_a.domain, chips.train_b.domain
    spec = NetworkSpec(
        bands_a=a.count,
        bands_b=b.count,
        shared_bands=identity_bands(config, a, b),
        generator=resolved(config.generator),
        generator_args=generator_args(config),
        discriminator=config.discriminator or DISCRIMINATOR,
        discriminator_args=discriminator_args(config),
        crop=resolved(config.crop),
        classes=_classes(config, chips),
        seed=seed_of(config, rank),
    )
    return build_method(config.method, spec, **method_options(config))


def _classes(config: TrainConfig, chips: Chips) -> int:
    labels = chips.labels if method_info(config.method).labelled else None
    return 0 if labels is None else len(labels.codes)


def method_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options of a method as it calls them itself."""
    return {
        _ARGUMENTS.get(name, name): getattr(config, name)
        for name in method_info(config.method).options
        if name not in _ELSEWHERE
    }


def identity_bands(config: TrainConfig, a: Domain, b: Domain) -> tuple[tuple[int, int], ...]:
    """Return the bands that mean the same: those of `band_map`, or those of one name.

    Raises:
        OptionError: `band_map` names a band that does not exist, or one twice.
    """
    if config.band_map is None:
        return shared_bands(a, b)
    try:
        return mapped_bands(config.band_map, a, b)
    except ValueError as error:
        raise OptionError(f"--band-map {config.band_map}: {error}") from None


def warn_of_identity(config: TrainConfig, chips: Chips) -> None:
    """Warn where the identity loss is asked for and the domains share no band.

    Raises:
        OptionError: `band_map` names a band that does not exist, or one twice.
    """
    a, b = chips.train_a.domain, chips.train_b.domain
    if config.identity and not identity_bands(config, a, b):
        log.warning(
            "the identity loss is off: no band of A (%s) is named like one of B (%s); --band-map"
            " says which mean the same",
            ", ".join(a.labels),
            ", ".join(b.labels),
        )


def warn_of_scenes(config: TrainConfig, chips: Chips) -> None:
    """Warn where statistics are to be a scene's and it is not recorded which scene a chip is of."""
    unknown = [name for name, c in (("A", chips.train_a), ("B", chips.train_b)) if not c.scene_ids]
    if config.norm == "scene" and unknown:
        log.warning(
            "--norm scene: nothing says which scenes the chips of %s are from, so all count as one"
            " scene; chip them with geocyclegan chip for statistics of each",
            " and ".join(unknown),
        )


def require_same(config: TrainConfig, stored: TrainConfig) -> None:
    """Refuse to resume a run as something else than it is.

    Args:
        config: resolved, what is asked for.
        stored: resolved, what the run was started with.

    Raises:
        OptionError: they differ where a run may not change.
    """
    # A run of an earlier version does not name the options that came later.
    for name, was in vars(stored.with_defaults()).items():
        now = getattr(config, name)
        if name not in MAY_CHANGE and now != was:
            raise OptionError(
                f"{option(name)} {_said(now)}: the run {stored.name} was started with"
                f" {_said(was)}; leave the option out to resume it, or start another run with"
                " another --name"
            )


def _said(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _crop(config: TrainConfig, chips: Chips) -> int:
    size = chips.size
    if method_info(config.method).doubling:
        return _doubled_crop(config, chips)
    generator, judge = probe_generator(config), probe_discriminator(config)
    stride = generator.stride
    least = _up(max(generator.min_size, judge.min_size), stride)
    who, enough = f"--generator {config.generator}", f"at least {least} px"
    if config.discriminator and judge.min_size > generator.min_size:
        enough += f" (--discriminator {config.discriminator})"
    if config.crop is None:
        crop = min(_CANONICAL_CROP, size) // stride * stride
        if crop < least:
            raise OptionError(
                f"{who}: it needs crops of {enough}, the chips"
                f" in {chips.folder} have {size}; {_way_out(config, size, least)}"
            )
        return crop
    if config.crop > size:
        raise OptionError(
            f"--crop {config.crop}: the chips in {chips.folder} have {size} px; give --crop"
            f" {size // stride * stride or size} or less, or chip with --size {config.crop}"
        )
    nearest = config.crop // stride * stride
    if config.crop % stride and nearest >= least:
        raise OptionError(
            f"--crop {config.crop}: {who} needs a multiple of {stride} px; give --crop {nearest}"
        )
    if config.crop % stride or config.crop < least:
        raise OptionError(
            f"--crop {config.crop}: {who} needs a multiple of {stride} px, {enough};"
            f" {_way_out(config, config.crop, least)}"
        )
    return config.crop


def _doubled_crop(config: TrainConfig, chips: Chips) -> int:
    """Check or choose the side of images that networks make by doubling."""
    size, asked = chips.size, config.crop
    canonical = method_info(config.method).crop
    most = 1 << (size.bit_length() - 1)
    if most < LEAST_SIDE:
        raise OptionError(
            f"--method {config.method}: it needs chips of at least {LEAST_SIDE} px, those in"
            f" {chips.folder} have {size}"
        )
    if asked is None:
        return min(canonical, most)
    if asked < LEAST_SIDE or asked > most or asked & (asked - 1):
        raise OptionError(
            f"--crop {asked}: --method {config.method} makes images of {LEAST_SIDE}, "
            f"{LEAST_SIDE * 2} and so on px, and the chips in {chips.folder} have {size}; give"
            f" --crop {min(most, max(LEAST_SIDE, 1 << (asked.bit_length() - 1)))}"
        )
    return asked


def _way_out(config: TrainConfig, side: int, least: int) -> str:
    """Name a generator that takes such crops, or a size of chips that this one takes."""
    judged = probe_discriminator(config).min_size
    for name in generators.names():
        # Another depth of the same architecture first.
        if name[:4] != resolved(config.generator)[:4]:
            continue
        other = probe_generator(config, name)
        if side % other.stride == 0 and side >= max(other.min_size, judged):
            return f"use --generator {name}, or chips and crops of {least} px (chip --size {least})"
    return f"use chips and crops of {least} px or more (chip --size {least})"


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
