"""The best linear autoencoder keeps what it should, and nothing more."""

import torch
from torch import Tensor

from benchmarks.linear_autoencoder import LinearAutoencoder, from_blocks, to_blocks

BLOCK_ZYX = (2, 4, 4)


def volume_hu(seed: int) -> Tensor:
    """(8, 16, 16) HU of noise within the window."""
    return 200.0 * torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)


def test_as_many_channels_as_a_block_has_voxels_lose_nothing() -> None:
    hu = volume_hu(0)
    kept = LinearAutoencoder.fit([hu, volume_hu(1)], BLOCK_ZYX).through(hu)
    torch.testing.assert_close(kept, hu, atol=0.01, rtol=0.0)


def test_blocks_that_are_multiples_of_one_pattern_need_one_channel() -> None:
    pattern = volume_hu(0)[:2, :4, :4].flatten()
    strengths = torch.rand(4, 4, 4, 1, generator=torch.Generator().manual_seed(2))
    hu = from_blocks(strengths * pattern, BLOCK_ZYX)
    kept = LinearAutoencoder.fit([hu], BLOCK_ZYX).first(1).through(hu)
    torch.testing.assert_close(kept, hu, atol=0.05, rtol=0.0)


def test_of_unseen_volumes_more_channels_keep_more() -> None:
    smooth = [torch.nn.functional.avg_pool3d(volume_hu(seed)[None], 3, 1, 1)[0] for seed in (0, 1, 2)]
    fitted = LinearAutoencoder.fit(smooth[:2], BLOCK_ZYX)
    errors = [float((fitted.first(n).through(smooth[2]) - smooth[2]).square().mean()) for n in (1, 4, 16, 31)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_a_block_of_the_latent_is_made_of_neighbours() -> None:
    hu = torch.arange(8 * 16 * 16.0).reshape(8, 16, 16)
    blocks = to_blocks(hu, BLOCK_ZYX)
    assert torch.equal(blocks[1, 2, 3], hu[2:4, 8:12, 12:16].flatten())
    assert torch.equal(from_blocks(blocks, BLOCK_ZYX), hu)
