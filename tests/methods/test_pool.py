from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from geocyclegan.errors import BundleError, OptionError
from geocyclegan.methods.pool import ImagePool


def image(value: int) -> Tensor:
    return torch.full((1, 2, 4, 4), float(value))


def values(pool: ImagePool, start: int, stop: int) -> list[int]:
    return [int(pool.query(image(value))[0].mean()) for value in range(start, stop)]


def test_returns_what_it_gets_while_it_fills() -> None:
    assert values(ImagePool(5), 0, 5) == list(range(5))


def test_then_swaps_half_of_the_time() -> None:
    pool = ImagePool(10, seed=1)
    values(pool, 0, 10)
    shown = values(pool, 10, 1010)
    swapped = [at for at, value in enumerate(shown, start=10) if value != at]
    assert 430 < len(swapped) < 570
    assert all(shown[at - 10] < at for at in swapped)
    assert len(pool) == 10


def test_no_image_is_shown_twice_or_lost() -> None:
    pool = ImagePool(4, seed=2)
    shown = values(pool, 0, 60)
    held = {int(kept.mean()) for kept in pool.state_dict()["images"]}
    # The first ones are shown once as they come in and once more when they leave.
    assert set(shown) | held == set(range(60))
    assert all(shown.count(value) == 1 for value in range(4, 60) if value not in held)


def test_size_zero_is_no_pool() -> None:
    pool = ImagePool(0)
    assert values(pool, 0, 20) == list(range(20))
    assert len(pool) == 0


def test_masks_travel_with_their_images() -> None:
    pool = ImagePool(3, seed=3)
    for start in range(0, 60, 2):
        numbers = torch.arange(start, start + 2).view(2, 1, 1, 1)
        images = numbers.float().expand(2, 2, 6, 64)
        valid = (torch.arange(64) <= numbers).expand(2, 1, 6, 64)
        shown, masks = pool.query(images, valid)
        assert masks is not None
        expected = (torch.arange(64) <= shown[:, :1, :, :1]).expand(2, 1, 6, 64)
        assert torch.equal(masks, expected)


def test_images_with_and_without_masks_mix() -> None:
    """The pool holds one image that is all valid; it comes back beside others that are not."""
    pool = ImagePool(1, seed=0)
    pool.query(image(0))
    seen = set()
    for value in range(1, 20):
        shown, masks = pool.query(image(value).repeat(2, 1, 1, 1), torch.zeros(2, 1, 4, 4))
        assert masks is not None
        for one, mask in zip(shown, masks, strict=True):
            seen.add(int(one.mean()))
            assert mask.all() == (one.mean() == 0)
    assert 0 in seen


def test_gradients_and_memory_are_cut() -> None:
    pool = ImagePool(2)
    batch = torch.rand(2, 1, 4, 4, requires_grad=True) * 1
    shown, _ = pool.query(batch)
    assert not shown.requires_grad
    kept = pool.state_dict()["images"][0]
    assert kept.untyped_storage().nbytes() == kept.numel() * 4


def test_goes_on_from_a_safe_checkpoint() -> None:
    first, second = ImagePool(4, seed=5), ImagePool(4, seed=99)
    first.query(image(0), torch.ones(1, 1, 4, 4))
    values(first, 1, 9)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert values(second, 9, 60) == values(first, 9, 60)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(OptionError, match="pool_size is -1"):
        ImagePool(-1)
    full = ImagePool(3)
    values(full, 0, 3)
    with pytest.raises(BundleError, match="holds 3 images"):
        ImagePool(2).load_state_dict(full.state_dict())
    with pytest.raises(BundleError, match="damaged"):
        ImagePool(2).load_state_dict({"images": []})


def test_what_a_checkpoint_brought_moves_to_the_device_at_once() -> None:
    pool, again = ImagePool(3), ImagePool(3)
    pool.query(torch.rand(3, 2, 4, 4), torch.rand(3, 1, 4, 4) < 0.5)
    again.load_state_dict(pool.state_dict())
    again.query(torch.rand(1, 2, 4, 4, device="meta"))
    state = again.state_dict()
    assert {each.device.type for each in state["images"]} == {"meta"}
    assert {mask.device.type for mask in state["masks"] if mask is not None} == {"meta"}
