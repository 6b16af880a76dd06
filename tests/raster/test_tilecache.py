from __future__ import annotations

import gc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.raster.tilecache import Tile, TileCache
from geocyclegan.raster.windows import Window


class Owner:
    pass


def tile(value: int) -> Tile:
    """100 bytes."""
    return np.full((3, 5, 5), value, np.uint8), np.ones((5, 5), np.bool_)


def window(col: int) -> Window:
    return Window(0, col, 5, 5)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=30))
def test_what_is_found_is_what_was_put_and_room_is_bounded(steps: list[tuple[int, int]]) -> None:
    cache = TileCache(450)
    owners = [Owner() for _ in range(3)]
    numbers = [cache.owner(owner) for owner in owners]
    for who, col in steps:
        found = cache.get(numbers[who], window(col))
        assert found is None or (found[0] == 10 * who + col).all()
        if found is None:
            cache.put(numbers[who], window(col), tile(10 * who + col))
        assert cache.get(numbers[who], window(col)) is not None
        assert cache.held_bytes <= 450


def test_the_oldest_goes_first_and_one_that_is_too_large_stays() -> None:
    cache = TileCache(200)
    owner = Owner()
    number = cache.owner(owner)
    for col in (0, 1):
        cache.put(number, window(col), tile(col))
    cache.get(number, window(0))
    cache.put(number, window(2), tile(2))
    assert [cache.get(number, window(col)) is not None for col in (0, 1, 2)] == [True, False, True]
    large = TileCache(10)
    large.put(number, window(0), tile(0))
    assert large.get(number, window(0)) is not None


def test_tiles_go_with_their_owner() -> None:
    cache = TileCache(1000)
    owner, other = Owner(), Owner()
    mine, theirs = cache.owner(owner), cache.owner(other)
    for number in (mine, theirs):
        cache.put(number, window(0), tile(0))
        cache.put(number, window(1), tile(1))
    cache.drop(mine)
    assert cache.held_bytes == 200
    cache.put(mine, window(0), tile(0))
    del other
    gc.collect()
    cache.put(mine, window(1), tile(1))
    assert cache.held_bytes == 200
    assert cache.get(theirs, window(0)) is None
