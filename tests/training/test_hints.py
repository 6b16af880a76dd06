"""Runs with pairs: what they learn from, what they check, how they go on, what they refuse."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from geocyclegan.catalogue import METHODS
from geocyclegan.errors import BundleError, ChipsError, OptionError
from geocyclegan.methods import CycleGAN
from geocyclegan.methods.base import Batch
from geocyclegan.training.agreement import Correlation, agreement
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.evidence import Finding
from geocyclegan.training.feed import make_feed
from geocyclegan.training.hints import hinted as put_beside
from geocyclegan.training.hints import known_pairs
from geocyclegan.training.levels import Budget
from geocyclegan.training.loop import train
from geocyclegan.training.pairs import FixedPairs, fixed_pairs

MakeConfig = Callable[..., TrainConfig]
MakeTranslator = Callable[[Callable[[Tensor], Tensor]], CycleGAN]
SIZE = 32


def write_arrays(root: Path, names: dict[str, list[str]], seed: int = 0) -> Path:
    """Chips where B is two functions of A: its negative, and its square."""
    for folder, stems in names.items():
        (root / folder).mkdir(parents=True)
        for stem in stems:
            random = np.random.default_rng([seed, int(stem)])
            a = random.uniform(-1, 1, (1, SIZE // 4, SIZE // 4)).repeat(4, 1).repeat(4, 2)
            pixels = a if folder.endswith("a") else np.concatenate([-a, a * a])
            np.save(root / folder / f"{stem}.npy", pixels.astype(np.float32))
    return root


@pytest.fixture
def unpaired(tmp_path: Path) -> Path:
    """No name in both domains, but for the held-out chips."""
    names = {"train_a": list("0123"), "train_b": list("4567"), "val_a": ["8"], "val_b": ["9"]}
    return write_arrays(tmp_path / "chips", names)


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    names = {"train_a": ["10", "11"], "train_b": ["10", "11"]}
    names |= {"val_a": ["12", "13", "14"], "val_b": ["12", "13", "14"]}
    return write_arrays(tmp_path / "paired", names)


@pytest.fixture
def hinted(tiny: MakeConfig, unpaired: Path, paired: Path) -> MakeConfig:
    def make(**changes: Any) -> TrainConfig:
        return tiny(**{"chips": unpaired, "pairs": paired, "pair_every": 2} | changes)

    return make


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_with_pairs(hinted: MakeConfig, paired: Path) -> None:
    run = train(hinted(weak_pairs=paired)).run
    config = TrainConfig.load(run / "config.yaml")
    assert (config.pair_weight, config.pair_every, config.weak_weight) == (10.0, 2, 5.0)
    losses = rows(run / "log.csv")[-1]
    assert all(float(losses[name]) > 0 for name in ("pair_ab", "pair_ba", "weak_ab", "weak_ba"))
    validation = rows(run / "validation.csv")[-1]
    assert {"r_a2b", "r_b2a", "r_a2b_swapped", "r_a2b_band 1", "r_a2b_band 2"} <= set(validation)
    assert "r_b2a_band 1" not in validation
    expected = (float(validation["r_a2b_band 1"]) + float(validation["r_a2b_band 2"])) / 2
    assert float(validation["r_a2b"]) == pytest.approx(expected, abs=1e-5)


def test_pairs_are_in_every_second_step(
    hinted: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, step = [], CycleGAN.step

    def spy(self: CycleGAN, batch: Batch, *rest: Any) -> Any:
        seen.append(None if batch.pairs is None else (batch.pairs.a.mean(), batch.pairs.b.shape))
        return step(self, batch, *rest)

    monkeypatch.setattr(CycleGAN, "step", spy)
    train(hinted(steps=4))
    assert [each is None for each in seen] == [False, True, False, True]
    assert seen[0] is not None
    assert seen[0][1] == (1, 2, 24, 24)
    train(hinted(steps=2, pair_every=1, name="two"))
    assert [each is None for each in seen[4:]] == [False, False]


@pytest.mark.parametrize("every", [2, 3])
def test_accumulated_passes_are_not_steps(
    hinted: MakeConfig, unpaired: Path, paired: Path, every: int
) -> None:
    """Each pass of a step with pairs has pairs, and a plain run of as many batches has the same."""
    config = hinted(accumulate=2, pair_every=every, batch=1, scene_crops=None)
    chips = Chips.open(unpaired).with_hints(paired, None)
    plain = replace(config, accumulate=1, pair_every=1)
    one, two = (
        put_beside(make_feed(c, chips, Budget()).batches, c, chips, Budget())
        for c in (config, plain)
    )
    loaded = [one.load(number) for number in range(4 * every)]
    assert [each.pairs is not None for each in loaded] == (
        [True] * 2 + [False] * 2 * (every - 1)
    ) * 2
    seen = [each.pairs for each in loaded if each.pairs is not None]
    for number, pairs in enumerate(seen):
        expected = two.load(number).pairs
        assert expected is not None
        assert torch.equal(pairs.a, expected.a)
    said = ["the pairs" in one.names(number) for number in range(4 * every)]
    assert said == [each.pairs is not None for each in loaded]


def test_a_resumed_run_is_the_same(
    hinted: MakeConfig, tmp_path: Path, assert_same_run: Callable[[Path, Path], None]
) -> None:
    whole = train(hinted(name="whole", save_every=3)).run
    run = shutil.copytree(whole, tmp_path / "again" / "whole")
    (run / "checkpoints" / "step_0000008.pt").unlink()
    config = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    assert_same_run(train(config, resume=True).run, whole)


HINTED = [name for name, info in METHODS.items() if "pairs" in info.options]


def of_method(method: str, chips: Path, **changes: Any) -> dict[str, Any]:
    """The options of a tiny run of any method, on chips that get labels where it needs them."""
    options: dict[str, Any] = {"method": method, "discriminator": "patch70", "crop": 32}
    if "pool" not in METHODS[method].options:
        options["pool"] = None
    if METHODS[method].generators:
        options["generator"] = None
    if METHODS[method].labelled:
        (chips / "labels_a").mkdir()
        for path in (chips / "train_a").iterdir():
            classes = (1 + (np.load(path)[0] > 0)).astype(np.uint8)
            Image.fromarray(classes).save(chips / "labels_a" / f"{path.stem}.tif")
    return options | changes


@pytest.mark.parametrize("method", HINTED)
def test_every_unpaired_method_learns_from_pairs_and_goes_on(
    hinted: MakeConfig,
    unpaired: Path,
    paired: Path,
    tmp_path: Path,
    assert_same_run: Callable[[Path, Path], None],
    method: str,
) -> None:
    one_way = "direction" in METHODS[method].options
    options = of_method(method, unpaired, weak_pairs=paired, steps=5, save_every=3)
    config = hinted(**options, **({"direction": "b2a"} if one_way else {}), name="whole")
    whole = train(config).run
    ways = ("ba",) if one_way else ("ab", "ba")
    losses = rows(whole / "log.csv")[-1]
    assert {name for name in losses if name.startswith(("pair_", "weak_"))} == {
        f"{kind}_{way}" for kind in ("pair", "weak") for way in ways
    }
    assert all(float(losses[f"{kind}_{way}"]) > 0 for kind in ("pair", "weak") for way in ways)
    validation = rows(whole / "validation.csv")[-1]
    assert ("r_b2a" in validation, "r_a2b" in validation) == (True, not one_way)
    run = shutil.copytree(whole, tmp_path / "again" / "whole")
    (run / "checkpoints" / "step_0000005.pt").unlink()
    again = TrainConfig.load(run / "config.yaml").updated({"out": run.parent})
    assert_same_run(train(again, resume=True).run, whole)


def test_a_resume_with_other_pairs_is_refused(
    hinted: MakeConfig, tiny: MakeConfig, unpaired: Path, paired: Path
) -> None:
    config = hinted()
    train(config)
    (paired / "train_a" / "11.npy").rename(paired / "train_a" / "15.npy")
    (paired / "train_b" / "11.npy").rename(paired / "train_b" / "15.npy")
    with pytest.raises(BundleError, match="not those that the run run was started with"):
        train(config, resume=True)
    train(tiny(chips=unpaired, name="plain"))
    with pytest.raises(OptionError, match="--pair-weight 10"):
        train(tiny(chips=unpaired, name="plain", pairs=paired), resume=True)


def test_pairs_are_read_in_the_levels_of_the_run(unpaired: Path, tmp_path: Path) -> None:
    """Not in their own, which five chips would fit badly."""
    dim = tmp_path / "dim"
    for domain, bands in (("a", 1), ("b", 2)):
        (dim / f"train_{domain}").mkdir(parents=True)
        np.save(dim / f"train_{domain}" / "0.npy", np.full((bands, 32, 32), 0.1, np.float32))
    chips = Chips.open(unpaired).with_hints(dim, None)
    assert chips.hints is not None
    batch = fixed_pairs(chips.hints.train, Budget(), 24).load(0)
    expected = chips.train_a.domain.to_levels(np.full((1, 1, 1), 0.1, np.float32))
    torch.testing.assert_close(batch.a.mean(), torch.tensor(float(expected.item())))


def test_what_cannot_be_pairs(hinted: MakeConfig, unpaired: Path, paired: Path) -> None:
    with pytest.raises(ChipsError, match="geocyclegan chip A --pair B"):
        train(hinted(pairs=unpaired))
    swapped = paired.parent / "swapped"
    for one, other in (("a", "b"), ("b", "a")):
        shutil.copytree(paired / f"train_{one}", swapped / f"train_{other}")
    with pytest.raises(OptionError, match=r"its chips of A have 2 bands .* have 1 band"):
        train(hinted(pairs=swapped))
    small = write_arrays(paired.parent / "small", {"train_a": ["1"], "train_b": ["1"]})
    for path in small.rglob("*.npy"):
        np.save(path, np.load(path)[:, :16, :16])
    with pytest.raises(OptionError, match="its chips have 16 px, and crops have 24"):
        train(hinted(pairs=small))
    with pytest.raises(OptionError, match=r"--pair-weight 1.0: it goes with --pairs"):
        TrainConfig(pair_weight=1.0)
    assert not (unpaired.parent / "runs" / "run").exists()


def test_which_pairs_tell_the_meaning(tiny: MakeConfig, unpaired: Path, paired: Path) -> None:
    """Held-out ones first, and none where nothing is paired."""

    def found(config: TrainConfig) -> FixedPairs | None:
        chips = Chips.open(config.chips).with_hints(config.pairs, config.weak_pairs)
        return known_pairs(config, chips, Budget())

    assert found(tiny(chips=unpaired)) is None
    own = found(tiny(chips=paired))
    assert own is not None
    assert len(own) == 3
    hinted = found(tiny(chips=unpaired, pairs=paired))
    assert hinted is not None
    assert len(hinted) == 3
    shutil.rmtree(paired / "val_a")
    told = found(tiny(chips=unpaired, weak_pairs=paired))
    assert told is not None
    assert len(told) == 2
    assert found(tiny(chips=unpaired, pairs=paired, val_every=0)) is None


def test_correlation_is_that_of_numpy() -> None:
    random, correlation = torch.Generator().manual_seed(0), Correlation()
    x = torch.randn(4, 2, 6, 5, generator=random)
    y = torch.randn(4, 2, 6, 5, generator=random) + 0.5 * x
    y[:, 1] = 0.3
    valid = torch.rand(4, 1, 6, 5, generator=random) > 0.4
    for part in (slice(0, 1), slice(1, 4)):
        correlation.update(x[part], y[part], valid[part])
    chosen = valid[:, 0]
    expected = np.corrcoef(x[:, 0][chosen], y[:, 0][chosen])[0, 1]
    assert correlation.bands() == pytest.approx([expected, 0.0])
    assert correlation.mean() == pytest.approx(expected / 2)
    assert Correlation().bands() == []


def noise(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("there", "sign"),
    [
        (lambda x: torch.cat([-x, x * x], 1), None),
        (
            lambda x: torch.cat([x, -x * x], 1),
            r"A to B correlate negatively with the truth \(-1\.00\), on 3 pairs$",
        ),
        # What says nothing is no flip, and neither is what says next to nothing.
        (lambda x: torch.zeros_like(x).repeat(1, 2, 1, 1), None),
        (lambda x: torch.cat([0.03 * x + noise(x, 0), noise(x, 1)], 1), None),
    ],
)
def test_a_flip_is_noticed(
    there: Callable[[Tensor], Tensor],
    sign: str | None,
    paired: Path,
    translator: MakeTranslator,
) -> None:
    chips = Chips.open(paired)
    config = TrainConfig(chips=paired, crop=24)
    pairs = known_pairs(config, chips, Budget())
    assert pairs is not None
    domains = chips.train_a.domain, chips.train_b.domain
    found = agreement(translator(there), pairs, domains, torch.device("cpu"))
    assert found is not None
    assert found.columns.keys() == {"r_a2b", "r_a2b_swapped", "r_a2b_band 1", "r_a2b_band 2"}
    if sign is None:
        assert found.signs == ()
    else:
        (said,) = found.signs
        assert re.search(sign, said)
    assert agreement(translator(there), pairs, domains, torch.device("cpu"), lambda: True) is None


def test_a_warning_comes_once_and_at_the_end(
    hinted: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from geocyclegan.training import report

    def flipped(*_: Any) -> Finding:
        return Finding({"r_a2b": -0.5, "r_b2a": 0.5}, ("it is upside down",))

    monkeypatch.setattr(report, "agreement", flipped)
    monkeypatch.setattr(report, "EARLIEST_STEP", 3)
    with caplog.at_level(logging.WARNING):
        train(hinted(val_every=2))
    warnings = [r.getMessage() for r in caplog.records if "meaning may be flipped" in r.message]
    assert len(warnings) == 2
    assert warnings[0].startswith("step 4: it is upside down: the meaning may be flipped")
    assert warnings[1].startswith("step 8:")
    assert all("\n" not in line and "--pairs" in line for line in warnings)


def test_pairs_turn_the_sign(tiny: MakeConfig, unpaired: Path, paired: Path) -> None:
    """B's first band is the negative of A: two pairs say so within seconds."""
    config = tiny(chips=unpaired, steps=80, val_every=80, panel_every=0, lr=2e-3, decay=0.0)
    told = train(replace(config, pairs=paired, pair_weight=20.0, name="told")).run
    assert float(rows(told / "validation.csv")[-1]["r_a2b_band 1"]) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in HINTED if name != "cyclegan"])
def test_pairs_turn_the_sign_whatever_the_method(
    tiny: MakeConfig, unpaired: Path, paired: Path, method: str
) -> None:
    """Without pairs nothing says that B's first band is the negative of A."""
    options = of_method(method, unpaired, pairs=paired, pair_weight=20.0)
    config = tiny(chips=unpaired, steps=160, val_every=160, panel_every=0, lr=2e-3, **options)
    run = train(config).run
    assert float(rows(run / "validation.csv")[-1]["r_a2b_band 1"]) > 0.2
