"""What a run leaves behind for inference: its model bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from geocyclegan.bundle import save_bundle
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips
from geocyclegan.training.levels import LevelReader
from geocyclegan.training.state import TrainingState
from geocyclegan.training.statistics import regime, training_statistics


def write_model(
    folder: Path,
    config: TrainConfig,
    chips: Chips,
    state: TrainingState,
    train: tuple[LevelReader, LevelReader],
    losses: Mapping[str, float],
) -> None:
    """Write a bundle of the generators as they are, with the statistics of the training set.

    Args:
        folder: the bundle.
        config: resolved.
        chips: the domains.
        state: the generators.
        train: training chips of A and of B.
        losses: the latest ones.

    Raises:
        ChipsError: a chip cannot be read.
        OutputError: the bundle cannot be written.
    """
    crop = resolved(config.crop)
    statistics = training_statistics(state.generators, train, crop, state.device)
    save_bundle(
        folder,
        method=config.method,
        generators={k: (resolved(config.generator), net) for k, net in state.generators.items()},
        makers=state.makers,
        domains={"a": chips.train_a.domain, "b": chips.train_b.domain},
        tile=crop,
        normalization=regime(config),
        statistics=statistics,
        training={
            "steps": state.step,
            "scenes": {"a": list(chips.train_a.scenes), "b": list(chips.train_b.scenes)},
            "chips": chips.to_json(),
            "options": config.to_dict(),
            "losses": dict(losses),
            "skipped_chips": list(state.skips.names),
            "device": str(state.device),
            "torch": str(torch.__version__),
        },
    )
