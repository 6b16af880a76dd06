"""The pairs of a run: those it learns from, and those that tell whether its meaning is right."""

from __future__ import annotations

import logging

from geocyclegan.chips.pairs import Pairs, find_pairs
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips, StepBatches
from geocyclegan.training.feed import geometry_of
from geocyclegan.training.levels import Budget, LevelReader
from geocyclegan.training.pairs import (
    FixedPairs,
    HintedBatches,
    PairedBatches,
    fixed_pairs,
    pair_sampler,
)
from geocyclegan.training.pairset import PairSet
from geocyclegan.training.ranks import Ranks
from geocyclegan.training.sampler import PassSampler

log = logging.getLogger(__name__)


def hinted(
    batches: StepBatches,
    config: TrainConfig,
    chips: Chips,
    budget: Budget,
    ranks: Ranks | None = None,
    *,
    cuda: bool = False,
) -> HintedBatches:
    """Put the pairs of a resolved configuration beside its unpaired batches.

    Args:
        batches: the unpaired ones.
        config: resolved.
        chips: with the pairs, where there are any.
        budget: memory to keep chips in.
        ranks: who trains together, each on its part of the pairs; None: nobody else does.
        cuda: batches move to a CUDA device, from page-locked memory; they are turned there.
    """

    def paired(pairs: PairSet, seed: int) -> PairedBatches:
        sampler = pair_sampler(
            pairs.pairs,
            seed,
            batch=(config.batch or 1) * config.ranks,
            scene_ids=pairs.a.scene_ids,
            crops=config.scene_crops or 0,
        )
        ours = PassSampler(sampler)
        if ranks is not None:
            ours = ours.part(ranks.rank, ranks.size)
        readers = LevelReader(pairs.a, budget), LevelReader(pairs.b, budget)
        # Both sides are a truth here, so their values stay as they are.
        return PairedBatches(
            *(*readers, ours),
            crop=config.crop or 0,
            flip=config.flip,
            pin=cuda,
            turn_later=cuda,
            geometry=geometry_of(config),
            pairs=pairs.pairs,
            same_scene=config.norm == "scene",
        )

    return HintedBatches(
        batches,
        None if chips.hints is None else paired(chips.hints.train, config.seed),
        config.pair_every or 1,
        # Another seed, so that one folder given twice comes in two orders.
        None if chips.weak is None else paired(chips.weak.train, config.seed ^ 1),
        config.accumulate,
    )


def known_pairs(config: TrainConfig, chips: Chips, budget: Budget) -> FixedPairs | None:
    """Return pairs on which translations can be compared with the truth, if there are any.

    Held-out pairs of `--pairs` first, then held-out chips of the run that happen to be pairs, then
    held-out weak pairs, and last those that training itself is told.
    """
    if not config.val_every:
        return None
    own = PairSet(chips.folder, chips.val_a, chips.val_b, _own_pairs(chips))
    candidates = [own]
    if chips.hints is not None:
        candidates = [chips.hints.val, own]
    if chips.weak is not None:
        candidates.append(chips.weak.val)
    candidates += [hints.train for hints in (chips.hints, chips.weak) if hints is not None]
    crop, together = config.crop or 0, config.scene_crops or 1
    for pairs in candidates:
        if len(pairs):
            log.info("translations are compared with the truth on pairs of %s", pairs.folder)
            return fixed_pairs(pairs, budget, crop, together)
    return None


def _own_pairs(chips: Chips) -> Pairs:
    """The pairs among a run's own held-out chips; nothing asks them to be of one size."""
    if chips.val_a.size != chips.val_b.size:
        return ()
    return find_pairs(chips.folder, chips.val_a, chips.val_b)
