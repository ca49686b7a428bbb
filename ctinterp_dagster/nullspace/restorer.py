"""Restoring with a null-space diffusion: what it adds to up(y) thickens to nothing, whatever the networks say."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.model.restore_settings import Prior, Settings
from ctinterp_dagster.model.sampler import Diffusion
from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.nullspace.sample_noise import missing_variance
from ctinterp_dagster.nullspace.units import COEFFICIENT
from ctinterp_dagster.physics.measurement import Measurement

PRIOR_SAMPLES = 2
"""How much the regression's own spread counts beside that of the samples. Chosen on the validation patients."""


class NullSpaceRestorer:
    """Draws thin volumes with a null-space diffusion.

    Where pixels are finer than the scanner resolves, the networks see means of 2x2, as large as the pixels that they
    learned; their coefficients are interpolated in the plane, which A does not see.

    Where the thick slices tell of more noise than the first sample has in flat tissue, the spread of the coefficients
    is widened in quadrature, by the same everywhere: it tells in quiet tissue, and hardly at edges.

    Attributes:
        restores: the class of its models.
        low_precision: True: docs/performance.md has the loss of bf16 and int8.
        starts_from_regression: True.
        missing_hu2: variance of the noise that the samples drawn so far were given in addition, HU squared.

    Source: cubic convolution, Keys 1981, IEEE Trans. Acoust. Speech Signal Process. 29(6).
    """

    restores: ClassVar[type[Diffusion]] = NullSpaceDiffusion
    low_precision: ClassVar[bool] = True
    starts_from_regression: ClassVar[bool] = True

    def __init__(self, model: NullSpaceDiffusion, measurement: Measurement, settings: Settings) -> None:
        """Prepare what the networks are shown; all on the model's device.

        Args:
            model: whose networks are used.
            measurement: its thick slices and operator.
            settings: how to sample, with what memory and precision.
        """
        self.model, self.settings, self.measurement = model, settings, measurement
        self.missing_hu2 = 0.0
        self.quantized = settings.mixed_precision == "int8"
        self.space = NullSpace(measurement.operator, model.config.expectation.modes)
        thick_hu = measurement.thick_hu.to(model.device)
        self.base_hu = self.space.base(thick_hu)
        self.pixels = measurement.oversampling
        seen_hu = functional.avg_pool2d(thick_hu, self.pixels, ceil_mode=True)
        self.features = self.space.features(seen_hu)[None]
        z_mm, y_mm, x_mm = measurement.thick.spacing_mm
        self.geometry = self.space.geometry((z_mm, self.pixels * y_mm, self.pixels * x_mm))[None].to(model.device)

    @cached_property
    def expected(self) -> Tensor:
        """The expected coefficients, (1, modes, z, y, x) in units of 100 HU."""
        with self.settings.autocast(self.features.device):
            return self.model.expectation.expect(
                self.features,
                self.geometry,
                self.settings.memory_gib,
                mirror=self.settings.mirror,
                quantized=self.quantized,
            )

    @cached_property
    def log_spread(self) -> Tensor:
        """Logarithm of the standard deviation of the coefficients, (1, modes, z, y, x); only samples need it."""
        with self.settings.autocast(self.features.device):
            return self.model.expectation.spread_about(
                self.expected, self.features, self.geometry, self.settings.memory_gib, quantized=self.quantized
            )

    @property
    def work(self) -> float:
        """What the networks are to do for the mean and all samples, in the units that `model.tiles.watched` is told."""
        evaluations = self.settings.samples * self._steps
        return self.model.work(evaluations, mirror=self.settings.mirror) * math.prod(self.features.shape[2:])

    def mean(self) -> Tensor:
        """The expected thin volume, (z, y, x) HU."""
        return self._volume(self.expected)

    def prior(self) -> Prior:
        """Variance to be expected of the samples drawn, (z, y, x) HU squared, and how many samples it is worth."""
        spread = COEFFICIENT.to_hu(self._at_pixels(self.log_spread[0]).exp())
        return Prior(self.space.expand_variance(spread.square().add_(self._widening_hu2)), PRIOR_SAMPLES)

    def draws(self) -> Iterator[Tensor]:
        """Samples of the posterior, (z, y, x) HU, one after the other."""
        self.missing_hu2 = 0.0
        for index in range(self.settings.samples):
            with self.settings.autocast(self.features.device):
                drawn = self.model.draw(
                    self.features,
                    self.geometry,
                    (self.expected, self.log_spread),
                    steps=self._steps,
                    seed=self.settings.seed + index,
                    sampler=self.settings.sampler,
                    memory_gib=self.settings.memory_gib,
                    quantized=self.quantized,
                )
            if index == 0:
                about = self.measurement.thick.hu, self.measurement.operator
                self.missing_hu2 = missing_variance(*about, self.mean(), self._volume(drawn), self.prior().variance)
            yield self._volume(self._widened(drawn))

    @property
    def _steps(self) -> int:
        return self.settings.steps or self.model.usual_steps

    @property
    def _widening_hu2(self) -> float:
        """Variance of each coefficient that gives thin slices `missing_hu2`, HU squared."""
        return self.missing_hu2 / float(np.square(self.space.basis).sum(axis=1).mean())

    def _widened(self, drawn: Tensor) -> Tensor:
        """Coefficients (1, modes, z, y, x) farther from those expected, as far as noise is missing."""
        if not self.missing_hu2:
            return drawn
        part = COEFFICIENT.variance_from_hu2(self._widening_hu2) * (-2 * self.log_spread).exp()
        return self.expected + (1 + part).sqrt_() * (drawn - self.expected)

    def _volume(self, coefficients: Tensor) -> Tensor:
        return self.base_hu + self.space.expand(COEFFICIENT.to_hu(self._at_pixels(coefficients[0])))

    def _at_pixels(self, seen: Tensor) -> Tensor:
        """Values of each thick voxel that the networks see, (modes, z, y', x'), at those of the scan, (..., y, x)."""
        if self.pixels == 1:
            return seen
        height, width = self.base_hu.shape[1:]
        return functional.interpolate(seen, scale_factor=self.pixels, mode="bicubic")[..., :height, :width]
