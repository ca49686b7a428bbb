"""Narrow networks with random weights."""

import torch

from ctinterp_dagster.latent.diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.nullspace.basis import FEATURES, MODES
from ctinterp_dagster.nullspace.diffusion import ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion


def narrow_latent() -> LatentDiffusion:
    torch.manual_seed(0)
    config = ModelConfig(
        autoencoder_channels=(4, 8, 8),
        norm_groups=4,
        latent_channels=4,
        denoiser_channels=(8, 8, 16),
        denoiser_blocks=1,
        prediction="v",
        target="residual",
        conditioning="encoded_interpolation",
        scale_factor=1.3,
        target_scale=2.0,
    )
    model = LatentDiffusion(config).eval()
    torch.nn.init.normal_(model.denoiser.conv_out.weight, std=0.05)
    return model


def narrow_nullspace() -> NullSpaceDiffusion:
    torch.manual_seed(0)
    widths = (8, 8, 8)
    expectation = ExpectationConfig(FEATURES, MODES, widths, 1, widths)
    model = NullSpaceDiffusion(NullSpaceConfig(expectation, widths, 1, "v")).eval()
    for network in (model.expectation.mean, model.expectation.spread, model.denoiser):
        torch.nn.init.normal_(network.conv_out.weight, std=0.05)
    return model
