"""The two ways of showing the thick scan to the denoiser lie on the thin latent's grid, centre on centre."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.interpolation import operator_for
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.latent.diffusion import Conditioning, LatentDiffusion
from ctinterp_dagster.latent.restorer import LatentRestorer
from ctinterp_dagster.model.restore_settings import Settings
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import Volume
from tests.networks import narrow_latent


def pooled(unit: Tensor) -> Tensor:
    """Stands for the encoder: a latent voxel is the mean of the four along each axis, centred on 4 k + 1.5."""
    padding = [extent for size in reversed(unit.shape[2:]) for extent in (0, -size % 4)]
    return functional.avg_pool3d(functional.pad(unit, padding, mode="replicate"), 4)


@pytest.mark.parametrize("kind", ["encoded_interpolation", "interpolated_latent"])
@pytest.mark.parametrize(("thick_depth", "thin_depth"), [(48, 248), (48, 240), (52, 156), (20, 40)])
def test_a_ramp_in_the_thin_volume_is_the_same_ramp_in_the_condition(
    kind: Conditioning, thick_depth: int, thin_depth: int
) -> None:
    spacing = thin_depth / thick_depth
    operator = operator_for(thick_depth, spacing, spacing, 1.0, "box")
    assert len(operator.thin_positions) == thin_depth
    ramp = torch.linspace(-500, 500, thin_depth)
    thick = operator.forward(ramp[:, None, None].expand(-1, 4, 4))
    condition = conditions_of(thick, operator, pooled, kind).condition
    expected = pooled(((ramp + 1000) / 2000)[None, None, :, None, None].expand(-1, -1, -1, 4, 4))
    assert condition.shape == expected.shape
    # Away from the ends, where interpolation has only one side.
    inner = slice(int(6 * spacing) // 4 + 1, -int(6 * spacing) // 4 - 1)
    step = float(expected[0, 0, 1, 0, 0] - expected[0, 0, 0, 0, 0])
    assert float((condition - expected)[:, :, inner].abs().max()) < 0.02 * step


def voxels(factor: int, depth: int = 30) -> tuple[Tensor, Tensor]:
    """(1, channel, z/4, y/4, x/4) shown of noise, and (z, y, x) HU of its interpolation."""
    operator = ThickeningOperator.from_factor(depth, factor, "box")
    thick = 300 * torch.randn(depth // factor, 6, 8, generator=torch.Generator().manual_seed(0))
    conditions = conditions_of(thick, operator, pooled, "interpolated_voxels")
    return conditions.condition, conditions.base_hu


def test_the_voxels_of_the_interpolation_are_shown_with_its_latent() -> None:
    condition, base_hu = voxels(5)
    config = replace(narrow_latent().config, latent_channels=1, conditioning="interpolated_voxels")
    assert condition.shape == (1, config.condition_channels, 8, 2, 2)
    z, y, x = 13, 5, 2  # voxel (1, 1, 2) of block (3, 1, 0)
    expected = (float(base_hu[z, y, x]) / 2000) / 0.25
    assert float(condition[0, 1 + 1 * 16 + 1 * 4 + 2, 3, 1, 0]) == pytest.approx(expected, abs=1e-5)
    assert float(condition[0, 1 + 2 * 4, 0, 1, 0]) == -2.0  # air beyond the last row


def test_latent_slices_are_told_their_place_in_the_thick_ones() -> None:
    cosine, sine, distance, peak = voxels(5)[0][0, -4:, :, 0, 0]
    turns = torch.atan2(sine, cosine) / (2 * torch.pi)
    # The middles of latent slices are at 1.5, 5.5, ...; those of thick ones at 2, 7, ...: (1.5 - 2) / 5 = -0.1 turns.
    torch.testing.assert_close(turns[:5], torch.tensor([-0.1, -0.3, 0.5, 0.3, 0.1]), atol=1e-5, rtol=0)
    assert distance.unique().tolist() == pytest.approx([1.0])
    assert peak.unique().tolist() == pytest.approx([1.0])
    assert voxels(3)[0][0, -2, :, 0, 0].unique().tolist() == pytest.approx([5 / 3])


def test_a_model_that_is_shown_voxels_restores_and_explains_the_thick_slices() -> None:
    config = replace(narrow_latent().config, conditioning="interpolated_voxels")
    torch.manual_seed(0)
    model = LatentDiffusion(config)
    torch.nn.init.normal_(model.denoiser.conv_out.weight, std=0.05)
    operator = ThickeningOperator.from_factor(20, 5, "box")
    thick_hu = 200 * torch.randn(4, 12, 12, generator=torch.Generator().manual_seed(1))
    volume = Volume(thick_hu.numpy(), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    restorer = LatentRestorer(model.eval(), Measurement(volume, operator), Settings(samples=0))
    mean = restorer.mean()
    torch.testing.assert_close(operator.forward(mean), thick_hu, atol=0.05, rtol=0)
    assert float((mean - restorer.conditions.base_hu).abs().max()) > 1.0


def test_only_the_latent_of_a_condition_is_scaled() -> None:
    config = replace(narrow_latent().config, scale_factor=3.0)
    condition = torch.ones(2, 10, 1, 1, 1)
    assert config.scale_condition(condition)[0, :, 0, 0, 0].tolist() == [3.0] * 4 + [1.0] * 6
