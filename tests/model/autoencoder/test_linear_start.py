"""An autoencoder that begins as a linear one keeps what its latent can hold, and all of it can learn."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.linear_start import begin_linear, least_squares, principal_components


def smooth_noise(count: int, seed: int, size: int = 32) -> Tensor:
    """(count, 1, z, y, x) in [0, 1]: coarse noise, and weaker noise of 4 voxels and finer."""
    generator = torch.Generator().manual_seed(seed)
    volume = torch.full((count, 1, size, size, size), 0.5)
    for grid, strength in ((size // 8, 0.2), (size // 4, 0.2), (size // 2, 0.05)):
        noise = torch.randn(count, 1, grid, grid, grid, generator=generator)
        volume += strength * functional.interpolate(noise, [size] * 3, mode="trilinear")
    return volume.clamp(0.0, 1.0)


@cache
def begun(latent: int, channels: tuple[int, int, int]) -> MaisiAutoencoder:
    torch.manual_seed(0)
    autoencoder = MaisiAutoencoder(channels, latent, norm_groups=1)
    begin_linear(autoencoder, smooth_noise(4, seed=1))
    return autoencoder.eval()


def linear_one(latent: int = 4, channels: tuple[int, int, int] = (8, 16, 16)) -> MaisiAutoencoder:
    return deepcopy(begun(latent, channels))


def error(autoencoder: MaisiAutoencoder, volume: Tensor) -> float:
    return inner_square(autoencoder.decode(autoencoder.encode(volume).mean) - volume)


def inner_square(difference: Tensor) -> float:
    """Mean square away from the ends, where convolutions see zeros."""
    return float(difference[..., 4:-4, 4:-4, 4:-4].square().mean())


@torch.inference_mode()
@pytest.mark.parametrize("channels", [(4, 8, 8), (8, 16, 16), (4, 8, 16), (8, 8, 8)])
def test_it_keeps_more_than_the_means_of_blocks_do_and_more_with_more_channels(channels: tuple[int, int, int]) -> None:
    unseen = smooth_noise(1, seed=2)
    means = functional.interpolate(functional.avg_pool3d(unseen, 4), scale_factor=4.0, mode="trilinear")
    one, four = (error(linear_one(latent, channels), unseen) for latent in (1, 4))
    assert four < 0.7 * one < 0.7 * inner_square(means - unseen)


@torch.inference_mode()
def test_the_norms_take_neither_the_mean_nor_the_spread_of_a_volume() -> None:
    autoencoder, volume = linear_one(), smooth_noise(1, seed=3)
    for other in (0.2 + 0.3 * volume, 0.9 - 0.8 * volume):
        mixed = autoencoder.decode(autoencoder.encode((volume + other) / 2).mean)
        parts = [autoencoder.decode(autoencoder.encode(part).mean) for part in (volume, other)]
        assert_close(mixed, sum(parts) / 2, atol=2e-3, rtol=0.0)  # 4 HU


@torch.inference_mode()
def test_it_is_the_same_slab_by_slab() -> None:
    autoencoder, volume = linear_one(), smooth_noise(1, seed=4)
    latent = autoencoder.encode(volume).mean
    assert_close(autoencoder.encode(volume, memory_gib=0.05).mean, latent, atol=1e-4, rtol=1e-4)
    assert_close(autoencoder.decode(latent, memory_gib=0.05), autoencoder.decode(latent), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_latent_has_unit_spread_and_little_noise() -> None:
    posterior = linear_one().encode(smooth_noise(4, seed=5))
    assert 0.5 < float(posterior.mean.std()) < 1.5
    assert float((posterior.log_variance / 2).exp().max()) < 0.03


def test_every_weight_learns() -> None:
    autoencoder, crops = linear_one().train(), smooth_noise(2, seed=6, size=16)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-3)
    before = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    for _ in range(3):
        posterior = autoencoder.encode(crops)
        latent = posterior.mean + (posterior.log_variance / 2).exp() * torch.randn_like(posterior.mean)
        (autoencoder.decode(latent) - crops).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [name for name, tensor in autoencoder.state_dict().items() if torch.equal(tensor, before[name])] == []


def test_least_squares_finds_a_convolution_again() -> None:
    kernels, bias, sources = torch.randn(2, 3, 3, 3, 3), torch.randn(2), torch.randn(2, 3, 12, 12, 12)
    found, offset = least_squares(sources, functional.conv3d(sources, kernels, bias, padding=1))
    assert_close(found, kernels, atol=1e-3, rtol=0.0)
    assert_close(offset, bias, atol=1e-3, rtol=0.0)


def test_principal_components_hold_all_of_what_has_so_many() -> None:
    mixing = torch.linalg.qr(torch.randn(16, 3)).Q
    coefficients = torch.randn(1, 3, 6, 6, 6)
    x = functional.conv_transpose3d(coefficients, mixing.T.reshape(3, 2, 2, 2, 2), stride=2)
    kernels = principal_components(x, 3)
    back = functional.conv_transpose3d(functional.conv3d(x, kernels, stride=2), kernels, stride=2)
    assert_close(back, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "autoencoder", [MaisiAutoencoder((4, 4, 8), 2, norm_groups=1), MaisiAutoencoder((8, 16, 16), 4, norm_groups=2)]
)
def test_what_cannot_be_linear_is_refused(autoencoder: MaisiAutoencoder) -> None:
    with pytest.raises(ParamsError, match="widen"):
        begin_linear(autoencoder, smooth_noise(1, seed=0))
