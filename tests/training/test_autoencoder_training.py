import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import tiny
import torch
from torch.testing import assert_close

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, Posterior
from ctinterp_dagster.training.autoencoder import (
    CropBatch,
    ReconstructionObjective,
    VolumeCrops,
    measure_reconstruction,
)
from ctinterp_dagster.training.batches import seeded
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import StepRecord, run_loop

SETTINGS = replace(tiny.SETTINGS, batch_size=1, steps=2)


def network() -> MaisiAutoencoder:
    torch.manual_seed(0)
    return MaisiAutoencoder(channels=(4, 4, 8), latent_channels=2, norm_groups=2)


def balls(count: int, seed: int) -> list[ThinVolume]:
    """Bright balls in air, HU."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * 3, indexing="ij"))
    centres = torch.randint(6, 14, (count, 3, 1, 1, 1), generator=generator)
    return [volume(((grid - centre).square().sum(0) < 30.0).short() * 1200 - 1000) for centre in centres]


def volume(hu: torch.Tensor) -> ThinVolume:
    return ThinVolume(hu, (1.0, 1.0, 1.0))


def train(**changes: object) -> tuple[MaisiAutoencoder, list[StepRecord]]:
    autoencoder = network()
    settings = replace(SETTINGS, **changes)
    crops, unseen = (VolumeCrops(volumes, (12, 16, 16), 1, 2) for volumes in (balls(2, seed=1), balls(1, seed=2)))
    objective = ReconstructionObjective(autoencoder, 1e-7)
    rows = run_loop(objective, crops, settings, validation=unseen.fixed(8, settings.seed))
    return autoencoder, rows


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_the_validation_loss_falls(mixed_precision: str) -> None:
    untrained = train(steps=1, learning_rate=0.0, mixed_precision=mixed_precision)[1][-1].val_loss
    trained = train(steps=10, learning_rate=5e-3, ema_decay=0.5, mixed_precision=mixed_precision)[1][-1].val_loss
    assert trained < 0.5 * untrained


def drawn(source: VolumeCrops) -> CropBatch:
    return source.batch(source.plan(seeded(0)))


def test_two_trainings_end_with_the_same_bits() -> None:
    assert tiny.weights_hash(train()[0]) == tiny.weights_hash(train()[0])


def test_the_loss_is_l1_of_values_and_differences_and_the_divergence_by_hand() -> None:
    objective = ReconstructionObjective(network(), kl_weight=0.01)
    crop, noise = drawn(VolumeCrops(balls(1, seed=0), (8, 12, 16), 2, 2))
    posterior = objective.autoencoder.encode(crop)
    latent = posterior.mean + posterior.log_variance.mul(0.5).exp() * noise
    error = objective.autoencoder.decode(latent) - crop
    gradients = (
        (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
        + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        + (error[..., 1:] - error[..., :-1]).abs().mean()
    )
    standard = torch.distributions.Normal(0.0, 1.0)
    believed = torch.distributions.Normal(posterior.mean, posterior.log_variance.mul(0.5).exp())
    divergence = torch.distributions.kl_divergence(believed, standard).sum() / 2
    assert_close(objective(crop, noise), error.abs().mean() + gradients + 0.01 * divergence)


def test_crops_depend_on_their_seed_and_lie_in_the_volume_mirrored_or_not() -> None:
    ramp = (200 * torch.arange(8)[:, None, None] - 1000 + torch.zeros(8, 9, 10)).short()
    source = VolumeCrops([volume(ramp)], (4, 4, 8), 50, latent_channels=3)
    crop, noise = drawn(source)
    assert crop.shape == (50, 1, 4, 4, 8)
    assert noise.shape == (50, 3, 1, 1, 2)
    assert torch.equal(crop, drawn(source)[0])
    steps = crop.mul(10).round().int()
    assert set(steps.diff(dim=2).unique().tolist()) == {-1, 1}
    assert set(steps.unique().tolist()) == set(range(8))


def test_a_volume_smaller_than_the_crop_is_replicated_at_its_far_end() -> None:
    short = volume(torch.randint(-1000, 1000, (3, 8, 8)).short())
    crop = drawn(VolumeCrops([short], (4, 8, 8), 1, latent_channels=1))[0][0, 0]
    assert torch.equal(crop[3], crop[2]) or torch.equal(crop[0], crop[1])


def test_the_fingerprint_tells_volumes_apart() -> None:
    volumes = balls(2, seed=0)
    prints = [VolumeCrops(chosen, (4, 4, 4), 1, 1).fingerprint() for chosen in (volumes, volumes, volumes[:1])]
    assert prints[0] == prints[1] != prints[2]


class Shifted:
    """Stands for an autoencoder: decodes 100 HU too much, and its first latent channel knows nothing."""

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter([torch.zeros(1)])

    def encode(self, x: torch.Tensor, memory_gib: float) -> Posterior:
        mean = torch.cat([torch.zeros_like(x), x + 1], dim=1)
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, latent: torch.Tensor, size_zyx: tuple[int, int, int], memory_gib: float) -> torch.Tensor:
        return latent[:, 1:] - 1 + 0.05


def test_reconstruction_is_measured_in_windows_of_hu_and_a_collapsed_channel_is_counted_out() -> None:
    hu = torch.tensor([-1000, -500, 0, 200]).short().expand(2, 3, 4)
    measured = measure_reconstruction(Shifted(), [hu, hu], 1.0)
    assert measured.psnr_db == pytest.approx(20 * math.log10(2000 / 100))
    assert measured.psnr_soft_db == pytest.approx(10 * math.log10(400**2 / ((100**2 + 40**2) / 4)), rel=1e-5)
    assert measured.active_channels == 1


def test_without_volumes_there_is_nothing_to_measure() -> None:
    with pytest.raises(TrainingError, match="no volume to measure the autoencoder on"):
        measure_reconstruction(network(), [], 1.0)


def test_no_volume_is_refused() -> None:
    with pytest.raises(TrainingError, match="no volume to train on: check the splits"):
        VolumeCrops([], (4, 4, 4), 1, 1)


def test_a_crop_that_four_does_not_divide_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"patch_zyx must be multiples of 4, got \(4, 4, 6\)"):
        VolumeCrops(balls(1, seed=0), (4, 4, 6), 1, 1)


def test_bf16_on_a_crop_whose_latent_has_two_slices_is_refused() -> None:
    settings = replace(SETTINGS, mixed_precision="bf16")
    with pytest.raises(TrainingError, match="on 2 slices would get wrong gradients in bf16"):
        run_loop(ReconstructionObjective(network(), 0.0), VolumeCrops(balls(1, seed=0), (8, 16, 16), 1, 2), settings)
