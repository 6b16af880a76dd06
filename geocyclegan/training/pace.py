"""Advice for runs that take hours on a CPU."""

from __future__ import annotations

import time

from geocyclegan.training.config import TrainConfig

_FIRST, _LAST = 2, 6
"""Steps between which the pace is taken; the first one prepares what the others find ready."""

_LONG = 2 * 3600.0
_NARROW = 16


class Pace:
    """Watches the first steps of a run, and says once what would make it shorter.

    Args:
        config: resolved.
        total: steps in total.
    """

    def __init__(self, config: TrainConfig, total: int) -> None:
        self._config, self._total = config, total
        self._seen, self._started = 0, 0.0

    def advice(self, step: int, now: float | None = None) -> str | None:
        """Return a line after some steps if what is left takes hours; None otherwise.

        Args:
            step: the one that was just done.
            now: seconds of a clock, for tests.
        """
        now = time.monotonic() if now is None else now
        self._seen += 1
        if self._seen == _FIRST:
            self._started = now
        if self._seen != _LAST:
            return None
        left = (now - self._started) / (_LAST - _FIRST) * (self._total - step)
        if left < _LONG:
            return None
        return (
            f"at this pace the {self._total - step} steps that are left take some"
            f" {left / 3600:.0f} hours on this CPU; shorter: {', '.join(self._ways())}; Ctrl-C"
            " saves what was reached"
        )

    def _ways(self) -> list[str]:
        config = self._config
        ways = []
        if config.generator == "resnet9":
            ways.append("--generator resnet6")
        if config.width > _NARROW:
            ways.append(f"a smaller --width than {config.width}")
        if config.crop is not None and config.crop > 128:
            ways.append(f"a smaller --crop than {config.crop}")
        return [*ways, "fewer --steps", "a machine with a GPU"]
