"""Scores, early ends, the best model, and distances that need no network of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.bundle import load_bundle
from geocyclegan.errors import OptionError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.distances import PATCH, kernel_distance, patches, sliced_wasserstein
from geocyclegan.training.logs import CsvLog
from geocyclegan.training.loop import train
from geocyclegan.training.schedule import Schedule
from geocyclegan.training.score import Scores, score_of

MakeConfig = Callable[..., TrainConfig]


def test_less_is_better_and_the_first_of_equals_is_best() -> None:
    scores = Scores((2, 4, 6, 8), (3.0, 1.0, float("nan"), 1.0))
    assert scores.best == 4
    assert scores.waited() == 2
    assert scores.until(3) == Scores((2,), (3.0,))
    assert (Scores().best, Scores().waited()) == (None, 0)


def test_truth_counts_before_likeness() -> None:
    likeness = {"cycle_a": 9.0, "swd_a2b": 0.2, "swd_b2a": 0.4, "kernel_a2b": 5.0}
    assert score_of(likeness) == pytest.approx(0.3)
    truth = {"r_a2b": 0.5, "r_a2b_swapped": 0.1, "r_a2b_B04": 0.0}
    assert score_of(likeness | truth) == pytest.approx(0.5)
    assert score_of({"cycle_a": 1.0}) is None


def test_sliced_wasserstein_of_a_shift() -> None:
    """A shift by d moves each projection by d · direction."""
    torch.manual_seed(0)
    x = torch.randn(300, 12)
    assert sliced_wasserstein(x, x) == 0.0
    assert sliced_wasserstein(x, x[torch.randperm(300)]) == pytest.approx(0.0, abs=1e-12)
    shift = torch.zeros(12)
    shift[3] = 2.0
    found = sliced_wasserstein(x, x + shift)
    # The mean of |component| of a random direction in 12 dimensions, times 2.
    directions = torch.nn.functional.normalize(torch.randn(100_000, 12), dim=1)
    assert found == pytest.approx(2 * directions[:, 3].abs().mean().item(), rel=0.15)
    assert sliced_wasserstein(x, x + 2 * shift) == pytest.approx(2 * found)
    # Sets of different sizes, drawn alike, are near.
    assert sliced_wasserstein(x, torch.randn(500, 12)) < found / 3


@given(shift=st.floats(0.2, 2.0), seed=st.integers(0, 100))
def test_distances_see_a_shift(shift: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(200, 6, generator=random) for _ in range(2))
    assert kernel_distance(x, y + 2 * shift) > kernel_distance(x, y)
    assert sliced_wasserstein(x, y + 2 * shift) > sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y) == pytest.approx(sliced_wasserstein(y, x))


def test_the_kernel_distance_is_unbiased() -> None:
    torch.manual_seed(0)
    found = [kernel_distance(torch.randn(40, 4), torch.randn(40, 4)) for _ in range(200)]
    mean, spread = torch.tensor(found).mean().item(), torch.tensor(found).std().item()
    assert abs(mean) < 4 * spread / 200**0.5
    assert min(found) < 0 < max(found)


def test_patches_see_valid_pixels_only() -> None:
    images = torch.rand(2, 3, 24, 24)
    valid = torch.ones(2, 1, 24, 24, dtype=torch.bool)
    valid[0, :, :, 12:] = False
    valid[1] = False
    images[~valid.expand_as(images)] = float("nan")
    found = patches(images, valid, seed=1)
    assert found.shape == (64, 3 * PATCH * PATCH)
    assert torch.isfinite(found).all()
    assert torch.equal(found, patches(images, valid, seed=1))
    assert len(patches(images[1:], valid[1:], seed=1)) == 0
    assert len(patches(torch.rand(1, 1, PATCH, PATCH), None, seed=0)) == 1


def test_validation_has_distances_that_fall_as_translations_get_real(tiny: MakeConfig) -> None:
    run = train(tiny(steps=4, precision="32")).run
    steps, values = CsvLog(run / "validation.csv", 4).column("score")
    assert steps == (4,)
    header = (run / "validation.csv").read_text().splitlines()[0].split(",")
    assert {"swd_a2b", "swd_b2a", "kernel_a2b", "kernel_b2a", "score"} <= set(header)
    assert values[0] > 0
    assert load_bundle(run / "best").training["steps"] == 4


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Let validations say what a test wants, by step."""

    def say(values: list[float]) -> None:
        import geocyclegan.training.report as report

        def told(method: Any, *args: Any) -> dict[str, float]:
            return {"swd_a2b": values[told.reporter._state.step - 1]}  # type: ignore[attr-defined]

        look = report.Reporter.look

        def remember(self: report.Reporter, *args: Any) -> None:
            told.reporter = self  # type: ignore[attr-defined]
            look(self, *args)

        monkeypatch.setattr(report.Reporter, "look", remember)
        monkeypatch.setattr(report, "validate", told)

    return say


def test_patience_ends_the_run_and_the_best_is_kept(
    tiny: MakeConfig,
    scored: Callable[[list[float]], None],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    scored([3.0, 1.0, 2.0, 2.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    options = {"steps": 10, "val_every": 1, "panel_every": 0, "save_every": 3, "patience": 2}
    result = train(tiny(**options))
    assert result.steps == 4
    assert "stopped at step 4 of 10: no better score in 2 validations" in caplog.text
    assert "the best is that of step 2" in caplog.text
    assert load_bundle(result.run / "best").training["steps"] == 2
    # `model` is where it ended, and inference finds either.
    assert load_bundle(result.run).training["steps"] == 4
    # Nothing has changed, so a resume has nothing to do.
    assert train(tiny(**options), resume=True).steps == 4
    # More patience, and the run goes on to where that ends.
    assert train(tiny(**options | {"patience": 3}), resume=True).steps == 8
    assert load_bundle(result.run / "best").training["steps"] == 5


def test_killed_between_validation_and_checkpoint_it_decides_the_same(
    tiny: MakeConfig,
    scored: Callable[[list[float]], None],
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    scored([5.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    options: dict[str, Any] = {
        "steps": 6,
        "val_every": 1,
        "panel_every": 6,
        "save_every": 2,
        "log_every": 1,
    }
    options |= {"schedule": "plateau", "patience": 4}
    whole = train(tiny(**options, name="whole")).run
    again = train(tiny(**options, name="again")).run
    for path in again.glob("checkpoints/step_0000006*"):
        path.unlink()
    assert_same_run(train(tiny(**options, name="again"), resume=True).run, whole)
    assert load_bundle(again / "best").training["steps"] == 2


def test_what_needs_validation_says_so() -> None:
    for options in ({"patience": 3}, {"schedule": "plateau"}):
        with pytest.raises(OptionError, match="give --val-every"):
            TrainConfig(val_every=0, **options)


@pytest.mark.parametrize("kind", ["linear", "cosine", "one-cycle", "constant"])
@given(total=st.integers(1, 5000))
def test_schedules_stay_in_range(kind: str, total: int) -> None:
    schedule = Schedule(kind, total)
    factors = [schedule.factor(step) for step in range(0, total + 1, max(total // 50, 1))]
    assert all(0.0 <= factor <= 1.0 for factor in factors)


def test_their_courses() -> None:
    cosine = Schedule("cosine", 100)
    assert [cosine.factor(s) for s in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert cosine.factor(100) == 0.0
    cycle = Schedule("one-cycle", 100)
    assert [cycle.factor(s) for s in (0, 30, 100)] == pytest.approx([1 / 25, 1.0, 1 / 250_000])
    assert cycle.factor(15) == pytest.approx((1 / 25 + 1) / 2)
    assert Schedule("constant", 100).factor(100) == 1.0
    plateau = Schedule("plateau", 100)
    assert plateau.factor(50, [1.0, 0.5]) == 1.0
    # The first is best, five do not better it by 1 %, and five more after that.
    worse = [1.0, *[0.995] * 5]
    assert plateau.factor(50, worse[:-1]) == 1.0
    assert plateau.factor(50, worse) == pytest.approx(0.2)
    assert plateau.factor(50, [*worse, *[0.995] * 5]) == pytest.approx(0.04)
    assert plateau.factor(50, [*worse, 0.5]) == pytest.approx(0.2)


def test_without_validation_chips_there_is_nothing_to_wait_for(
    tiny: MakeConfig, chips_folder: Path, tmp_path: Path
) -> None:
    import shutil

    for split in ("train_a", "train_b", "val_a"):
        shutil.copytree(chips_folder / split, tmp_path / "chips" / split)
    for options in ({"patience": 3}, {"schedule": "plateau"}):
        config = tiny(chips=tmp_path / "chips", **options)
        with pytest.raises(OptionError, match=r"has not both domains' validation chips"):
            train(config)
        assert not config.out.exists()
