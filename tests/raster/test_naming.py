"""Scenes of one name in many folders must not write over each other's products."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.raster.naming import distinct_names


@pytest.mark.parametrize(
    ("scenes", "names"),
    [
        (["/p1/x.tif", "/p1/y.tif"], ["x", "y"]),
        (["/p1/x.tif", "/p2/x.tif", "/p1/y.tif"], ["p1_x", "p2_x", "y"]),
        (["/p1/in/x.tif", "/p2/in/x.tif"], ["p1_x", "p2_x"]),
        (["/p1/X.tif", "/p2/x.tif"], ["p1_X", "p2_x"]),
        (["https://host/p1/x.tif", "/d/p2/x.tif"], ["p1_x", "p2_x"]),
        (["NETCDF:/d/p1/e.nc:t2m", "NETCDF:/d/p2/e.nc:t2m"], ["p1_e_t2m", "p2_e_t2m"]),
        (["/a/e/B02.tif+/a/e/B03.tif", "/b/e/B02.tif+/b/e/B03.tif"], ["a_e", "b_e"]),
    ],
)
def test_the_nearest_folders_that_differ(scenes: list[str], names: list[str]) -> None:
    assert distinct_names(scenes) == names


def test_a_hash_where_no_folder_tells_them_apart() -> None:
    one, two, three = distinct_names(["/a/p/x.tif", "/a/q/x.tif", "/b/p/x.tif"])
    assert len({one, two, three}) == 3
    assert all(name.startswith("x_") for name in (one, two, three))
    beside = distinct_names(["/p1/x.tif", "/p2/x.tif", "/z/p1_x.tif"])
    assert len(set(beside)) == 3
    assert beside[1] == "p2_x"


PATHS = st.lists(
    st.lists(st.sampled_from(["a", "B", "b", "c_x"]), min_size=1, max_size=3).map(
        lambda parts: "/".join(["", *parts, "x.tif"])
    ),
    unique=True,
    min_size=1,
    max_size=6,
)


@given(PATHS)
def test_names_differ_whatever_the_order(scenes: list[str]) -> None:
    names = dict(zip(scenes, distinct_names(scenes), strict=True))
    assert len({name.casefold() for name in names.values()}) == len(scenes)
    turned = scenes[::-1]
    assert dict(zip(turned, distinct_names(turned), strict=True)) == names
