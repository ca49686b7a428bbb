"""The two ways of showing the thick scan to the denoiser lie on the thin latent's grid, centre on centre."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.interpolation import operator_for
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.latent.diffusion import Conditioning


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
