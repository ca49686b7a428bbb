"""Restoring with a latent diffusion: residual decoding around the projected cubic interpolation.

x_hat = P(up(y) + D(z_hat) - D(E(up(y)))), with up the projected cubic interpolation, E and D the autoencoder, z_hat
drawn by the diffusion model given E(up(y)), and P the projection on A x = y. The errors of the autoencoder cancel in
the difference, and a denoiser that adds nothing leaves the classical estimate. All this is done on the grid of the
whole factor at or above the one asked for; the slices asked for are means of its slices, projected.
"""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.latent.diffusion import LatentDiffusion
from ctinterp_dagster.model.restore_settings import Prior, Settings
from ctinterp_dagster.model.sampler import Diffusion
from ctinterp_dagster.model.tiles import WATCHER
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.physics.operator import apply_along_z
from ctinterp_dagster.scan.window import MAISI


class LatentRestorer:
    """Draws thin volumes with a latent diffusion.

    Attributes:
        restores: the class of its models.
        low_precision: False: what bf16 and int8 lose was not measured.
        starts_from_regression: False.
        missing_hu2: 0; samples are given no noise in addition.
        work: one for each sample.
    """

    restores: ClassVar[type[Diffusion]] = LatentDiffusion
    low_precision: ClassVar[bool] = False
    starts_from_regression: ClassVar[bool] = False
    missing_hu2 = 0.0

    def __init__(self, model: LatentDiffusion, measurement: Measurement, settings: Settings) -> None:
        """Encode what was measured; all on the model's device.

        Args:
            model: whose networks are used.
            measurement: its thick slices and operator.
            settings: how to sample, with what memory and precision.
        """
        thick_hu, operator = measurement.thick_hu.to(model.device), measurement.operator
        self.model, self.thick_hu, self.operator, self.settings = model, thick_hu, operator, settings
        cells = operator.divided(operator.whole_factor)
        self.means = operator.means_of(cells)
        self.conditions = conditions_of(thick_hu, cells, self._encode, model.config.conditioning)
        self.decoded_base = self._decode(self.conditions.base)
        self.work = float(settings.samples)

    def mean(self) -> Tensor:
        """The one-step estimate, (z, y, x) HU: that nearest the posterior mean which a single evaluation gives."""
        return self._draw(steps=1, seed=self.settings.seed)

    def prior(self) -> Prior:
        """Zeros (z, y, x), worth no sample: no variance but that of the samples is known."""
        return Prior(self.conditions.base_hu.new_zeros(self.operator.n_thin, *self.thick_hu.shape[1:]), 0)

    def draws(self) -> Iterator[Tensor]:
        """Samples of the posterior, (z, y, x) HU, one after the other."""
        for index in range(self.settings.samples):
            yield self._draw(steps=self.settings.steps or self.model.usual_steps, seed=self.settings.seed + index)
            WATCHER.get()(1.0)

    def _draw(self, *, steps: int, seed: int) -> Tensor:
        with self.settings.autocast(self.thick_hu.device):
            latent = self.model.sample(
                condition=self.conditions.condition,
                base=self.conditions.base,
                steps=steps,
                seeds=[seed],
                sampler=self.settings.sampler,
                memory_gib=self.settings.memory_gib,
            )
        detail_hu = (self._decode(latent) - self.decoded_base) * MAISI.width_hu
        return self.operator.project(apply_along_z(self.means, self.conditions.base_hu + detail_hu), self.thick_hu)

    def _encode(self, unit: Tensor) -> Tensor:
        with self.settings.autocast(self.thick_hu.device):
            return self.model.encode(unit, memory_gib=self.settings.memory_gib).float()

    def _decode(self, latent: Tensor) -> Tensor:
        depth, height, width = self.conditions.base_hu.shape
        with self.settings.autocast(self.thick_hu.device):
            decoded = self.model.decode(latent, (depth, height, width), memory_gib=self.settings.memory_gib)
        return decoded[0, 0].float()
