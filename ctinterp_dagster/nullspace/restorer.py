"""Restoring with a null-space diffusion: what it adds to up(y) thickens to nothing, whatever the networks say."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ctinterp_dagster.model.settings import Settings
from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.nullspace.units import COEFFICIENT
from ctinterp_dagster.physics.measurement import Measurement

PRIOR_SAMPLES = 2
"""How much the regression's own spread counts beside that of the samples. Chosen on the validation patients."""


class NullSpaceRestorer:
    """Draws thin volumes with a null-space diffusion."""

    def __init__(
        self,
        model: NullSpaceDiffusion,
        measurement: Measurement,
        device: torch.device,
        settings: Settings,
    ) -> None:
        """Show the networks what was measured; all on the model's device.

        Args:
            model: whose networks are used.
            measurement: its thick slices and operator.
            device: that of the model.
            settings: how to sample, with what memory and precision.
        """
        self.model, self.settings = model, settings
        self.space = NullSpace(measurement.operator, model.config.expectation.modes)
        thick_hu = measurement.thick_hu.to(device)
        self.base_hu = self.space.base(thick_hu)
        self.features = self.space.features(thick_hu)[None]
        self.geometry = self.space.geometry(measurement.thick.spacing_mm)[None].to(device)
        with settings.autocast(device):
            self.expected = model.expectation.expect(
                self.features,
                self.geometry,
                settings.memory_gib,
                mirror=settings.mirror,
                quantized=settings.mixed_precision == "int8",
            )

    @cached_property
    def log_spread(self) -> Tensor:
        """Logarithm of the standard deviation of the coefficients, (1, modes, z, y, x); only samples need it."""
        with self.settings.autocast(self.features.device):
            return self.model.expectation.spread_about(
                self.expected, self.features, self.geometry, self.settings.memory_gib
            )

    def mean(self) -> Tensor:
        """The expected thin volume, (z, y, x) HU."""
        return self._volume(self.expected)

    def prior(self) -> tuple[Tensor, int]:
        """Variance that the regression expects, (z, y, x) HU squared, and how many samples it is worth."""
        return self.space.expand_variance((2 * self.log_spread[0]).exp() * COEFFICIENT.hu**2), PRIOR_SAMPLES

    def draws(self) -> Iterator[Tensor]:
        """Samples of the posterior, (z, y, x) HU, one after the other."""
        for index in range(self.settings.samples):
            with self.settings.autocast(self.features.device):
                drawn = self.model.draw(
                    self.features,
                    self.geometry,
                    (self.expected, self.log_spread),
                    steps=self.settings.steps,
                    seed=self.settings.seed + index,
                    sampler=self.settings.sampler,
                    memory_gib=self.settings.memory_gib,
                )
            yield self._volume(drawn)

    def _volume(self, coefficients: Tensor) -> Tensor:
        return self.base_hu + self.space.expand(COEFFICIENT.to_hu(coefficients[0]))
