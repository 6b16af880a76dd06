"""The lattice of statistics: what it says at a pixel depends on the pixel's place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.models.dense import CellMap, CellStatistics

ROWS, COLS = (16.0, 48.0, 72.0), (16.0, 48.0, 80.0, 112.0)


def make_cells(fewest: int = 1) -> tuple[CellMap, CellStatistics]:
    rng = np.random.default_rng(0)
    cells = CellMap(ROWS, COLS)
    layer = CellStatistics(cells)
    for row in range(len(ROWS)):
        cells.put(row, torch.from_numpy(rng.integers(fewest, 1000, len(COLS)).astype(float)))
        mean, var = rng.normal(0, 3, (len(COLS), 2)), rng.random((len(COLS), 2))
        layer.put(row, torch.from_numpy(mean), torch.from_numpy(var))
    return cells, layer


@given(
    st.integers(0, 20),
    st.integers(0, 28),
    st.integers(1, 20),
    st.integers(1, 25),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 1]),
)
def test_strips_are_rows_of_blocks(
    row: int, col: int, height: int, width: int, scale: int, fewest: int
) -> None:
    """What a GPU computes is what a CPU does, in other portions; some cells may be empty."""
    cells, layer = make_cells()
    if not fewest:
        cells.put(1, torch.tensor([0.0, 500.0, 0.0, 3.0]))
    x = torch.randn(2, height, width)
    at = row * scale, col * scale
    expected, found = layer._by_blocks(x, scale, at, 0.1), layer._by_strips(x, scale, at, 0.1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    cells.clear_blocks()
    assert not cells._strips


@given(
    st.integers(0, 20),
    st.integers(0, 28),
    st.integers(1, 20),
    st.integers(1, 25),
    st.sampled_from([1, 2, 4]),
)
def test_windows_agree_where_they_overlap(
    row: int, col: int, height: int, width: int, scale: int
) -> None:
    _, layer = make_cells()
    whole = torch.randn(2, 88 // scale, 128 // scale)
    # Without the guard of a variance that is almost 0, differences would only grow with x.
    full = layer.normalize(whole, scale, (0, 0), 0.1)
    rows = slice(row * 2 // scale, row * 2 // scale + height)
    cols = slice(col * 2 // scale, col * 2 // scale + width)
    part = whole[:, rows, cols]
    at = (rows.start * scale, cols.start * scale)
    torch.testing.assert_close(
        layer.normalize(part, scale, at, 0.1), full[:, rows, cols], atol=1e-5, rtol=1e-5
    )


def test_it_is_the_merger_of_the_four_cells() -> None:
    """Against samples drawn from the four cells in proportion to area and count."""
    cells = CellMap((0.5, 10.5), (0.5, 10.5))
    layer = CellStatistics(cells)
    counts = torch.tensor([[100.0, 0.0], [50.0, 200.0]])
    mean, var = torch.tensor([[1.0, 9.0], [-2.0, 4.0]]), torch.tensor([[1.0, 9.0], [0.5, 2.0]])
    for row in range(2):
        cells.put(row, counts[row])
        layer.put(row, mean[row][:, None], var[row][:, None])
    x = torch.zeros(1, 11, 11)
    out = layer.normalize(x, 1, (0, 0), 0.0)
    down, across = 3 / 10, 6 / 10
    area = torch.tensor(
        [[(1 - down) * (1 - across), (1 - down) * across], [down * (1 - across), down * across]]
    )
    weight = area * counts / (area * counts).sum()
    expected_mean = (weight * mean).sum()
    expected_var = (weight * (var + mean.square())).sum() - expected_mean.square()
    assert float(out[0, 3, 6]) == pytest.approx(
        float(-expected_mean / expected_var.sqrt()), rel=1e-5
    )
    assert float(out[0, 0, 0]) == pytest.approx(-1.0)


def test_it_is_continuous() -> None:
    """Seen eight times as fine, the steps from pixel to pixel are several times as small."""
    _, layer = make_cells(fewest=600)
    steps = []
    for zoom in (1, 8):
        fine = CellStatistics(CellMap([r * zoom for r in ROWS], [c * zoom for c in COLS]))
        for row in range(len(ROWS)):
            fine.cells.put(row, torch.tensor([600.0, 900.0, 700.0, 800.0]))
            mean, var = layer.row(row)
            fine.put(row, mean, var + 2)
        out = fine.normalize(torch.zeros(2, 88 * zoom, 128 * zoom), 1, (0, 0), 0.1)
        steps.append(max(float(out.diff(dim=axis).abs().max()) for axis in (1, 2)))
        # Beyond the outermost centres nothing changes.
        assert not out[:, : 15 * zoom, 0].diff(dim=1).any()
    assert 0 < steps[1] < steps[0] / 3


def test_empty_cells_have_no_say() -> None:
    cells, layer = make_cells()
    cells.put(1, torch.tensor([10.0, 0.0, 0.0, 10.0]))
    flat = torch.zeros(2, 88, 128)
    before = layer.normalize(flat, 1, (0, 0), 0.1)
    layer.put(1, *(torch.full((4, 2), value) for value in (1e6, 1e6)))
    cells.clear_blocks()
    after = layer.normalize(flat, 1, (0, 0), 0.1)
    # Between cells 1 and 2 of the middle row only the rows above and below speak.
    torch.testing.assert_close(after[:, 20:48, 49:79], before[:, 20:48, 49:79])
    assert torch.isfinite(before).all()


def test_rows_come_and_go() -> None:
    cells, layer = make_cells()
    assert cells.rows_around(0, 10) == range(0, 1)
    assert cells.rows_around(0, 30) == range(0, 2)
    assert cells.rows_around(50, 88) == range(1, 3)
    assert cells.rows_around(80, 88) == range(2, 3)
    assert cells.cols_around(20, 100) == range(0, 4)
    cells.drop_before(1)
    layer.drop_before(1)
    assert torch.isfinite(layer.normalize(torch.zeros(2, 20, 20), 1, (60, 0), 0.1)).all()
    with pytest.raises(ValueError, match="have not been measured"):
        layer.normalize(torch.zeros(2, 20, 20), 1, (20, 0), 0.1)
