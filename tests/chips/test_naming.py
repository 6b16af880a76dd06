from __future__ import annotations

from geocyclegan.chips.naming import scene_id


def test_ids_are_file_names_that_differ() -> None:
    assert scene_id("/x/a b.tif", 256).startswith("a_b_")
    assert scene_id("/x/a.tif", 256) != scene_id("/y/a.tif", 256)
    assert scene_id("/x/a.tif", 256) != scene_id("/x/a.tif", 128)
