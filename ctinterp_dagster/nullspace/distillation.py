"""A network that draws a sample in one evaluation: it learns what the denoiser makes of noise in many."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.blocks import time_features
from ctinterp_dagster.model.forward_process import to_x0
from ctinterp_dagster.model.sampler import USUAL_STEPS, AdamsBashforth, solved
from ctinterp_dagster.nullspace.diffusion import SHIFT, NullSpaceDiffusion, denoiser_inputs
from ctinterp_dagster.nullspace.objective import NoisyBatch, Untrained

# The time and the factor at which the denoiser itself is nearest to its samples of many steps (experiment 34).
BEGIN_TIME, BEGIN_SCALE = 0.78, 2.7


def with_one_step(model: NullSpaceDiffusion) -> NullSpaceDiffusion:
    """The same model with a network for one step, which begins with the denoiser's weights.

    Shown pure noise as if it were data at time 0.78, release 0.6's denoiser times 2.7 explains 93 % of the variance of
    its samples of that noise before any training.

    Args:
        model: not changed; its networks are the new one's too.

    Returns:
        The model with `one_step`.

    Raises:
        ParamsError: its denoiser does not predict x0.
    """
    if model.config.prediction != "x0":
        raise ParamsError(f"the denoiser predicts {model.config.prediction}: one that predicts x0 can be distilled")
    grown = NullSpaceDiffusion(replace(model.config, one_step=True))
    tensors, geometry = dict(model.denoiser.state_dict()), model.config.expectation.geometry
    of_geometry, of_time = tensors["embed.0.weight"].split([geometry, tensors["embed.0.weight"].shape[1] - geometry], 1)
    tensors["embed.0.weight"] = of_geometry
    tensors["embed.0.bias"] = tensors["embed.0.bias"] + of_time @ time_features(of_time.new_tensor([BEGIN_TIME]))[0]
    tensors |= {name: BEGIN_SCALE * tensors[name] for name in ("conv_out.weight", "conv_out.bias")}
    assert grown.one_step
    grown.one_step.load_state_dict(tensors)
    grown.expectation, grown.denoiser = model.expectation, model.denoiser
    return grown


class DistillationObjective(nn.Module):
    """Mean square distance, in spreads, from what the denoiser makes of the same noise in `USUAL_STEPS` steps.

    Source: Luhman and Luhman 2021 (arXiv 2101.02388), eq. 9.
    """

    def __init__(self, model: NullSpaceDiffusion) -> None:
        """Train the network for one step of a model, as `with_one_step` gives it."""
        super().__init__()
        self.one_step = model.one_step
        self.model = Untrained(model)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss of a `NoisyBatch`, whose truth and times are not used."""
        batch = NoisyBatch(*tensors)
        model = self.model.on(batch.noise.device)
        assert model.one_step
        expectation = model.config.expectation
        features, geometry = batch.features[:, : expectation.features], batch.geometry
        with torch.no_grad():
            inputs = denoiser_inputs(features, *(part.float() for part in model.expectation(features, geometry)))
            target = self._target(model, inputs, geometry, batch.noise)
        drawn = model.one_step(torch.cat([batch.noise, inputs], dim=1), geometry[:, : expectation.geometry])
        return functional.mse_loss(drawn.float(), target)

    @staticmethod
    def _target(model: NullSpaceDiffusion, inputs: Tensor, geometry: Tensor, noise: Tensor) -> Tensor:
        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            output = model.denoise(noisy, inputs, geometry, t).float()
            return to_x0(output, noisy, t, model.config.prediction)

        return solved(predict_x0, noise, AdamsBashforth(), steps=USUAL_STEPS, shift=SHIFT)
