"""CUT: the contrastive loss, its places, and bands that differ."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geocyclegan.errors import OptionError
from geocyclegan.methods import Batch, NetworkSpec, build_method
from geocyclegan.methods.cut import Cut
from geocyclegan.methods.patchnce import PatchEncoder, Places, choose_places, patch_nce
from geocyclegan.models.taps import Tap


def make(bands: tuple[int, int] = (2, 2), name: str = "cut", **options: object) -> Cut:
    torch.manual_seed(0)
    spec = NetworkSpec(
        *bands,
        generator_args={"width": 2, "blocks": 2},
        discriminator_args={"width": 2, "layers": 1},
    )
    method = build_method(name, spec, **options)
    assert isinstance(method, Cut)
    return method


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=random), dim=-1)


def all_of(count: int, samples: int = 2) -> Places:
    index = torch.arange(count).expand(samples, count)
    return Places(index, torch.ones(samples, count, dtype=torch.bool))


def test_the_loss_is_the_cross_entropy_over_the_places_of_an_image() -> None:
    query, key = unit(2, 5, 8), unit(2, 5, 8, seed=1)
    expected = torch.stack(
        [
            F.cross_entropy(query[i] @ key[i].T / 0.07, torch.arange(5), reduction="none")
            for i in range(2)
        ]
    ).mean()
    torch.testing.assert_close(patch_nce([query], [key], [all_of(5)]), expected)
    # What is known again costs next to nothing; what tells nothing costs log(places).
    same = patch_nce([query], [query], [all_of(5)])
    assert same < 0.05
    blank = torch.ones(2, 5, 8) / math.sqrt(8)
    torch.testing.assert_close(
        patch_nce([blank], [key], [all_of(5)]) >= math.log(5) - 0.5, torch.tensor(True)
    )


def test_places_that_are_not_there_do_not_count() -> None:
    query, key = unit(1, 6, 8), unit(1, 6, 8, seed=1)
    there = torch.tensor([[True, True, True, True, False, False]])
    masked = Places(torch.arange(6)[None], there)
    part = patch_nce([query[:, :4]], [key[:, :4]], [all_of(4, 1)])
    torch.testing.assert_close(patch_nce([query], [key], [masked]), part)
    nothing = Places(torch.arange(6)[None], there & False)
    assert patch_nce([query], [key], [nothing]) == 0.0


def test_places_are_valid_and_different() -> None:
    valid = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    valid[0, :, 4:8, 4:12] = True
    valid[1] = True
    taps = (Tap(0, 1, 3), Tap(4, 4, 8))
    fine, coarse = choose_places(taps, (2, 16, 16), valid, 40, torch.device("cpu"))
    assert fine.index.shape == (2, 40)
    assert coarse.index.shape == (2, 16)
    assert fine.there.sum(dim=1).tolist() == [32, 40]
    assert coarse.there.sum(dim=1).tolist() == [2, 16]
    for places, side in ((fine, 16), (coarse, 4)):
        for sample in range(2):
            chosen = places.index[sample][places.there[sample]]
            assert len(set(chosen.tolist())) == len(chosen)
            rows, cols = chosen // side, chosen % side
            scale = 16 // side
            assert valid[sample, 0, rows * scale, cols * scale].all()


def test_mirrored_places_show_the_same_pixels_in_a_mirrored_image() -> None:
    image = torch.arange(12.0).view(1, 3, 4)
    places = all_of(12, 1)
    mirrored = image.flip(2).flatten(1).gather(1, places.mirrored(4).index)
    assert torch.equal(mirrored, image.flatten(1))


@pytest.mark.parametrize("bands", [(2, 2), (2, 5), (5, 2), (1, 1)])
def test_bands_that_differ_have_a_stem_of_their_own(bands: tuple[int, int]) -> None:
    method = make(bands)
    encoder = method.encoder
    assert isinstance(encoder, PatchEncoder)
    assert (encoder.stem is None) == (bands[0] == bands[1])
    random = torch.Generator().manual_seed(1)
    batch = Batch(
        torch.rand(1, bands[0], 16, 16, generator=random) * 2 - 1,
        torch.rand(1, bands[1], 16, 16, generator=random) * 2 - 1,
    )
    losses = method.step(batch, method.optimizers(), torch.autograd.backward)
    assert {"g", "nce", "nce_identity", "generators", "d"} <= losses.keys()
    before = 0 if encoder.stem is None else encoder.stem.weight.detach().clone()
    method.step(batch, method.optimizers(), torch.autograd.backward)
    if encoder.stem is not None:
        assert isinstance(before, torch.Tensor)
        assert not torch.equal(encoder.stem.weight, before)
    # The generator is not registered twice.
    names = list(method.state_dict())
    assert not [name for name in names if name.startswith("encoder.") and "layers" in name]


def test_fastcut_is_cut_with_its_own_numbers() -> None:
    from geocyclegan.training.config import TrainConfig

    config = TrainConfig(method="fastcut").with_defaults()
    assert (config.lambda_nce, config.nce_identity, config.flip_equivariance) == (10.0, False, True)
    method = make(name="fastcut", lambda_nce=10.0, nce_identity=False, flip_equivariance=True)
    batch = Batch(torch.rand(1, 2, 16, 16), torch.rand(1, 2, 16, 16))
    losses = method.step(batch, method.optimizers(), torch.autograd.backward)
    assert "nce_identity" not in losses


def test_what_cannot_be() -> None:
    with pytest.raises(OptionError, match="patches is 1"):
        make(patches=1)
    with pytest.raises(OptionError, match="temperature is 0"):
        make(temperature=0.0)
    with pytest.raises(OptionError, match="lambda_nce is -1"):
        make(lambda_nce=-1.0)
