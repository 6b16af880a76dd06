"""A suggestion for the learning rate: try rising ones on a copy that is thrown away.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017. The losses of
adversarial networks depend on each other, so the curve says where training begins to move and where
it breaks rather than what is best; hence a table, and a suggestion well below the break.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from geocyclegan.catalogue import method_info
from geocyclegan.device import choose_device
from geocyclegan.errors import OptionError, TrainingError
from geocyclegan.progress import Progress
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.feed import make_feed
from geocyclegan.training.hints import hinted
from geocyclegan.training.levels import Budget
from geocyclegan.training.pairs import HintedBatches
from geocyclegan.training.placing import settings_kept
from geocyclegan.training.resolve import resolve
from geocyclegan.training.schedule import set_rate
from geocyclegan.training.starting import config_on, end, skips_of, start
from geocyclegan.training.state import TrainingState

LOWEST, HIGHEST = 1e-6, 1e-1
STEPS = 80
_SMOOTH = 0.85
_BROKEN = 4.0


@dataclass(frozen=True)
class Trial:
    """What was seen.

    Attributes:
        rates: learning rates, ascending.
        losses: the smoothed sum of the optimisers' losses at each.
        suggestion: a third of the rate at which the loss fell steepest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def table(self, lines: int = 16) -> str:
        """Return some of the rates with their losses, one line each."""
        count = min(lines, len(self.rates))
        chosen = sorted(
            {round(i * (len(self.rates) - 1) / max(count - 1, 1)) for i in range(count)}
        )
        rows = [f"{self.rates[i]:10.2e}  {self.losses[i]:10.4f}" for i in chosen]
        return "\n".join([f"{'rate':>10}  {'loss':>10}", *rows])


@settings_kept()
def find_lr(config: TrainConfig, steps: int = STEPS) -> Trial:
    """Try learning rates from 1e-6 to 1e-1 on fresh networks; nothing is written.

    Args:
        config: what would be trained.
        steps: how many rates to try, one step each; it ends early where the loss explodes.

    Raises:
        OptionError: an option does not fit, or more than one process is asked for.
        ChipsError: chips are missing, mixed or damaged.
        TrainingError: the loss is not finite from the first step on.
    """
    device = choose_device(config.device)
    absent = config.max_bad
    chips = Chips.open(config.chips, method_info(config.method).sides, absent=absent)
    chips = chips.with_hints(config.pairs, config.weak_pairs, absent=absent)
    config = resolve(config_on(config, device), chips)
    if config.ranks > 1:
        raise OptionError(
            f"--find-lr: it runs in one process, and --devices asks for {config.ranks}"
        )
    fabric, ranks = start(config, device)
    budget = Budget(skips=skips_of(config))
    try:
        state = TrainingState(fabric, config.updated({"steps": steps}), chips)
        cuda = state.device.type == "cuda"
        feed = make_feed(config, chips, budget, cuda=cuda)
        batches = hinted(feed.batches, config, chips, budget, cuda=cuda)
        return _try(state, batches, config.accumulate, steps)
    finally:
        end(ranks)


def _try(state: TrainingState, batches: HintedBatches, passes: int, steps: int) -> Trial:
    rates: list[float] = []
    losses: list[float] = []
    running = 0.0
    with Progress(steps, "find-lr", "step") as progress:
        for step in range(steps):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(steps - 1, 1))
            set_rate(state.optimizers.values(), rate)
            state.advance(*(batches.load(step * passes + i) for i in range(passes)))
            seen = state.meter.take()
            loss = sum(seen[name] for name in seen.keys() & state.optimizers.keys())
            if not math.isfinite(loss):
                break
            running = _SMOOTH * running + (1 - _SMOOTH) * loss
            rates.append(rate)
            losses.append(running / (1 - _SMOOTH ** (step + 1)))
            progress.update()
            if losses[-1] > _BROKEN * min(losses):
                break
    if len(rates) < 3:
        raise TrainingError(
            "--find-lr: the loss is not finite from the start, at whatever rate; look at the chips"
        )
    return Trial(tuple(rates), tuple(losses), _suggest(rates, losses))


def _suggest(rates: list[float], losses: list[float]) -> float:
    """A third of the rate of the steepest fall over the logarithm of the rate."""
    falls = [before - after for before, after in zip(losses, losses[2:], strict=False)]
    return rates[falls.index(max(falls)) + 1] / 3
