"""The loss of the latent denoiser."""

from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.model.forward_process import Prediction, add_noise, training_target


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

        Returns:
            A number, mean square over all voxels.
        """
        output = self.denoiser(add_noise(target, noise, t), condition, t)
        return functional.mse_loss(output.float(), training_target(target, noise, t, self.prediction))
