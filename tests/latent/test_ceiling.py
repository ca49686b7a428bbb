from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.conditioning import residual_ceiling
from ctinterp_dagster.latent.ceiling import autoencoder_ceiling
from ctinterp_dagster.model.autoencoder import Posterior
from ctinterp_dagster.params import ThickTask
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.encode import latent_scales


class Blind:
    """Stands for an autoencoder that keeps a share of the values, 0 for nothing and 1 for all."""

    def __init__(self, share: float) -> None:
        self.share = share

    def parameters(self) -> list[Tensor]:
        return iter([torch.zeros(1)])

    def encode(self, x: Tensor, memory_gib: float) -> Posterior:
        return Posterior(self.share * x, torch.zeros_like(x))

    def decode(self, latent: Tensor, size_zyx: tuple[int, int, int], memory_gib: float) -> Tensor:
        return latent


def volume() -> Tensor:
    return 400 * torch.rand(20, 6, 7, generator=torch.Generator().manual_seed(0)) - 200


def test_a_perfect_autoencoder_gives_the_truth_inside_maisis_window() -> None:
    hu = torch.tensor([-1500.0, -20.0, 700.0, 2500.0]).expand(2, 3, 4)
    expected = hu.clip(-1000, 1000)
    assert torch.allclose(autoencoder_ceiling(Blind(1.0), hu, 1.0), expected, atol=1e-3)


def test_residual_decoding_of_the_true_latent_is_the_truth_or_the_base() -> None:
    thin, operator = volume(), ThickeningOperator.from_factor(20, 5, "gaussian")
    thick = operator.forward(thin)
    all_kept = residual_ceiling(Blind(1.0), thin, thick, operator, 1.0)
    none_kept = residual_ceiling(Blind(0.0), thin, thick, operator, 1.0)
    assert torch.allclose(all_kept, thin, atol=0.05)
    assert torch.allclose(none_kept, cubic_projected(thick, operator), atol=0.05)
    assert float((none_kept - thin).abs().mean()) > 50


def test_latents_are_scaled_by_their_own_measured_deviation(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    thin = 3 * torch.randn(4, 10, 10, 10, generator=generator) + 2
    for k, shift in enumerate((0.0, 1.0)):
        latents = {"box-x2.5/thin": thin + shift, "box-x2.5/base": 0.5 * thin}
        save_file(latents, tmp_path / f"{k}.safetensors")
    measured = latent_scales(sorted(tmp_path.iterdir()), [ThickTask(factor=2.5, profile="box")])
    both = torch.cat([thin, thin + 1]).double()
    assert measured["latent_std"] == pytest.approx(float(both.std(correction=0)), rel=1e-6)
    assert measured["residual_std"] == pytest.approx(float((both - 0.5 * torch.cat([thin, thin])).std(correction=0)))
