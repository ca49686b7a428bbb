"""Latents are scaled for the denoiser, and its targets once more; both ways are the inverse of each other."""

import torch

from tests.networks import narrow_latent

LATENT = torch.tensor([[-3.7, 0.0, 0.01], [1.0, 2.5, 12.0]])


def test_a_scaled_latent_and_back_is_the_same_latent() -> None:
    config = narrow_latent().config
    torch.testing.assert_close(config.unscale(config.scale(LATENT)), LATENT)
    assert config.scale(torch.tensor(1 / config.scale_factor)) == 1


def test_a_target_and_back_is_the_same_latent() -> None:
    config = narrow_latent().config
    torch.testing.assert_close(config.from_target(config.to_target(LATENT)), LATENT)
    assert config.to_target(torch.tensor(1 / config.target_scale)) == 1
