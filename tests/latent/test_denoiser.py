import pytest
import torch
from torch.testing import assert_close

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.model.blocks import pixel_norm, time_features


def randomised(denoiser: Denoiser, std: float = 0.2) -> Denoiser:
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return denoiser.requires_grad_(requires_grad=False)


@pytest.fixture
def small() -> Denoiser:
    return randomised(Denoiser(2, 3, channels=(4, 8, 8), blocks=1))


def inputs(*size: int, batch: int = 1, channels: tuple[int, int] = (2, 3)) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    noisy, condition = (torch.randn(batch, c, *size, generator=generator) for c in channels)
    return noisy, condition, torch.linspace(0.2, 0.9, batch)


def test_an_untrained_denoiser_adds_nothing() -> None:
    torch.manual_seed(0)
    assert_close(Denoiser(2, 3, channels=(4, 8), blocks=1)(*inputs(4, 6, 8)), torch.zeros(1, 2, 4, 6, 8))


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 6, 7), (8, 8, 8), (3, 17, 2)])
def test_any_size_goes_in_and_comes_out(small: Denoiser, size: tuple[int, int, int]) -> None:
    assert small(*inputs(*size)).shape == (1, 2, *size)


def test_padding_at_the_far_end_does_not_reach_what_is_far_from_it(small: Denoiser) -> None:
    noisy, condition, t = inputs(4, 8, small.reach.halo[2] + 5)
    longer = [torch.nn.functional.pad(x, (0, 8)) for x in (noisy, condition)]
    assert_close(small(*longer, t)[..., :1], small(noisy, condition, t)[..., :1], rtol=1e-5, atol=1e-6)


def test_nothing_beyond_the_halo_is_seen_and_something_near_its_edge_is(small: Denoiser) -> None:
    size = 2 * small.reach.halo[2] + 8
    noisy, condition, t = inputs(4, 4, size)
    noisy.requires_grad_()
    small(noisy, condition, t)[..., size // 2].square().sum().backward()
    seen = noisy.grad.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten() - size // 2
    assert small.reach.halo[2] - 2 * small.multiple <= int(seen.abs().max()) <= small.reach.halo[2]


def test_samples_of_a_batch_do_not_see_each_other(small: Denoiser) -> None:
    noisy, condition, t = inputs(4, 6, 8, batch=3)
    alone = [small(noisy[i : i + 1], condition[i : i + 1], t[i : i + 1]) for i in range(3)]
    assert_close(small(noisy, condition, t), torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_noise_condition_and_time_all_matter(small: Denoiser, changed: int) -> None:
    before = list(inputs(4, 6, 8))
    after = list(before)
    after[changed] = after[changed] + 0.05
    assert float((small(*after) - small(*before)).abs().max()) > 1e-4


def test_pixel_norm_gives_each_voxel_unit_mean_square_and_survives_zeros() -> None:
    x = torch.randn(2, 5, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 7
    x[0, :, 0, 0, 0] = 0
    mean_square = pixel_norm(x).square().mean(dim=1)
    assert mean_square[0, 0, 0, 0] == 0
    mean_square[0, 0, 0, 0] = 1
    assert_close(mean_square, torch.ones_like(mean_square), rtol=1e-3, atol=0)


def test_time_features_tell_near_times_apart() -> None:
    features = time_features(torch.tensor([0.5, 0.501, 1.0]))
    assert features.shape == (3, 64)
    assert float((features[0] - features[1]).norm()) > 0.1
    assert float(features.abs().max()) <= 1.0


def test_bf16_autocast_stays_near_float32(small: Denoiser) -> None:
    expected = small(*inputs(4, 6, 8))
    with torch.autocast("cpu", torch.bfloat16):
        got = small(*inputs(4, 6, 8))
    assert got.dtype == torch.bfloat16
    assert float((got.float() - expected).norm() / expected.norm()) < 0.05


def test_the_default_width_has_about_three_million_parameters() -> None:
    assert sum(p.numel() for p in Denoiser(4, 4).parameters()) == 2_769_092


@pytest.mark.parametrize("bad", [{"channels": ()}, {"channels": (8, 0)}, {"blocks": 0}, {"latent_channels": 0}])
def test_impossible_widths_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ParamsError, match="a denoiser needs positive widths, got"):
        Denoiser(**{"latent_channels": 2, "condition_channels": 2, "channels": (4, 8), "blocks": 1} | bad)
