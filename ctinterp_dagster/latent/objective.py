"""Training of the denoiser on pairs of latents."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.latent.patches import LatentBatch, LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.model.diffusion import Prediction, add_noise, training_target
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, run_loop

_VALIDATION_SAMPLES = 32


class DenoisingObjective(nn.Module):
    """Mean square error of what the denoiser predicts.

    Source: Ho et al. 2020, eq. 14; weights over time as in `diffusion.training_target`.
    """

    def __init__(self, denoiser: Denoiser, prediction: Prediction) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.prediction = prediction

    def forward(self, condition: Tensor, target: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            condition: (b, channel, z, y, x).
            target: the same shape, what is denoised.
            noise: the same shape, standard normal.
            t: (b,) in [0, 1].
        """
        output = self.denoiser(add_noise(target, noise, t), condition, t)
        return functional.mse_loss(output.float(), training_target(target, noise, t, self.prediction))


def train_denoiser(
    denoiser: Denoiser,
    train: Sequence[LatentPair],
    validation: Sequence[LatentPair],
    *,
    prediction: Prediction,
    patch: PatchSettings,
    settings: LoopSettings,
    checkpoint: Path | None = None,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> list[StepRecord]:
    """Train a denoiser in place; it ends with the averaged weights.

    Args:
        denoiser: the network.
        train: cases to learn from.
        validation: other patients' cases, may be empty; 32 patches of them on a grid of t give `val_loss`.
        prediction: what the network predicts.
        patch: what a training patch is.
        settings: how to optimise.
        checkpoint: file to resume from and to write, as in `run_loop`.
        on_step: told of every step.

    Returns:
        A record a step.

    Raises:
        TrainingError: as `run_loop`, or no training cases.
    """
    fixed: list[LatentBatch] = []
    if validation:
        count = max(1, _VALIDATION_SAMPLES // settings.batch_size)
        fixed = LatentPatches(validation, patch, settings.batch_size).fixed(count, settings.seed)
    return run_loop(
        DenoisingObjective(denoiser, prediction),
        LatentPatches(train, patch, settings.batch_size),
        settings,
        validation=fixed,
        checkpoint=checkpoint,
        on_step=on_step,
    )
