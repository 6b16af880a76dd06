"""What a run reads, by what its method needs: loose images of both domains, or pairs of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from geocyclegan.catalogue import method_info
from geocyclegan.chips.reader import ChipSet
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Batches, Chips, StepBatches
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.pairs import FixedPairs, PairedBatches, pair_sampler
from geocyclegan.training.radiometric import RadiometricOptions
from geocyclegan.training.ranks import Ranks
from geocyclegan.training.sampler import ChipSampler, PassSampler, Sampler, SceneSampler
from geocyclegan.training.validate import FixedBatches, FixedCrops
from geocyclegan.training.warp import Geometry


@dataclass(frozen=True)
class Feed:
    """All that a run reads.

    Attributes:
        sampler: the order of the chips.
        batches: the batch of each step.
        budget: memory that its chips share.
        train: training chips of A and of B.
        held_out: validation batches, none or more.
        shown: batches for panels: those held out, or training chips where there are none.
    """

    sampler: PassSampler
    batches: StepBatches
    budget: Budget
    train: tuple[LevelReader, LevelReader]
    held_out: FixedBatches
    shown: FixedBatches


def sampler_of(config: TrainConfig, chips: Chips) -> PassSampler:
    """Return the order in which a run sees its chips.

    Args:
        config: with the method's defaults.
        chips: the chips.

    Raises:
        ChipsError: the method needs pairs and the chips have none.
    """
    return PassSampler(_sampler_of_passes(config, chips), config.accumulate)


def _sampler_of_passes(config: TrainConfig, chips: Chips) -> ChipSampler:
    """The order of the samples that all processes see in a pass."""
    crops = 0
    if config.norm == "scene":
        crops = config.scene_crops or max(SCENE_CROPS, config.ranks)
    batch = resolved(config.batch) * config.ranks
    if method_info(config.method).paired:
        ids = chips.train_a.scene_ids
        return pair_sampler(chips.pairs, config.seed, batch=batch, scene_ids=ids, crops=crops)
    if crops:
        a, b = chips.train_a.by_scene(), chips.train_b.by_scene()
        return SceneSampler(a, b, crops, config.seed)
    return Sampler(len(chips.train_a), len(chips.train_b), batch, config.seed)


def geometry_of(config: TrainConfig) -> Geometry:
    """Return the scales and angles that crops may have."""
    return Geometry(config.zoom, config.rotate)


def radiometric_of(config: TrainConfig) -> RadiometricOptions:
    """Return what may happen to the values of crops."""
    names = [field.name for field in fields(RadiometricOptions)]
    return RadiometricOptions(**{name: getattr(config, name) for name in names})


SCENE_CROPS = 4
"""Crops of one scene in a step of norm "scene" unless said otherwise."""


def make_feed(
    config: TrainConfig,
    chips: Chips,
    budget: Budget,
    ranks: Ranks | None = None,
    *,
    cuda: bool = False,
) -> Feed:
    """Put together what a run reads.

    Args:
        config: resolved.
        chips: the chips.
        budget: what chips are kept in.
        ranks: who trains together, each on its part of every batch; None: nobody else does.
        cuda: batches move to a CUDA device, from page-locked memory; they are turned there.

    Raises:
        ChipsError: the method needs pairs and the chips have none.
    """
    train = _readers(chips.train_a, chips.train_b, budget)
    val = _readers(chips.val_a, chips.val_b, budget)
    sampler, crop = sampler_of(config, chips), resolved(config.crop)
    if ranks is not None:
        sampler = sampler.part(ranks.rank, ranks.size)
    together = config.scene_crops or 1
    geometry, radiometric = geometry_of(config), radiometric_of(config)
    batches: StepBatches
    held_out: FixedBatches
    shown: FixedBatches
    if method_info(config.method).paired:
        # The truth stays as it is.
        looks = (radiometric, None) if config.direction != "b2a" else (None, radiometric)
        batches = PairedBatches(
            *train,
            sampler,
            crop=crop,
            flip=config.flip,
            pin=cuda,
            turn_later=cuda,
            geometry=geometry,
            radiometric=looks,
            pairs=chips.pairs,
            same_scene=config.norm == "scene",
        )
        held_out = FixedPairs(*val, chips.val_pairs, crop, together)
        shown = held_out if len(held_out) else FixedPairs(*train, chips.pairs, crop, together)
    else:
        labels = chips.labels if method_info(config.method).labelled else None
        batches = Batches(
            *train,
            sampler,
            crop=crop,
            flip=config.flip,
            pin=cuda,
            turn_later=cuda,
            geometry=geometry,
            radiometric=radiometric,
            labels=labels,
            same_scene=config.norm == "scene",
        )
        held_out = FixedCrops(*val, crop, together)
        shown = held_out if len(held_out) else FixedCrops(*train, crop, together)
    return Feed(sampler, batches, budget, train, held_out, shown)


def _readers(a: ChipSet, b: ChipSet, budget: Budget) -> tuple[LevelReader, LevelReader]:
    """Readers of both sides; one for both where a method looks at one domain."""
    first = LevelReader(a, budget)
    return first, first if b is a else LevelReader(b, budget)
