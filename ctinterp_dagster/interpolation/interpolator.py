"""Thick volume in, thin volume out: what the command line, the API and the generate stage share."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.errors import CheckpointError, ParamsError
from ctinterp_dagster.interpolation.api_wording import words_of_python
from ctinterp_dagster.interpolation.arguments import check_types
from ctinterp_dagster.interpolation.restorers import RESTORERS, Restorer
from ctinterp_dagster.model.device import out_of_memory, pick_device
from ctinterp_dagster.model.files import read_model
from ctinterp_dagster.model.quantized import is_exact
from ctinterp_dagster.model.restore_settings import MixedPrecision, Precision, Settings, quickest_precision
from ctinterp_dagster.model.sampler import Diffusion, Sampler
from ctinterp_dagster.model.tiles import watched
from ctinterp_dagster.physics.acquisition import Acquisition, Auto
from ctinterp_dagster.physics.grids import operator_for
from ctinterp_dagster.physics.measurement import Estimate, Measurement, Method
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.physics.recognition import recognise
from ctinterp_dagster.scan.volume import FloatArray, Volume

RELEASED = Path(__file__).parent.parent / "released" / "model.safetensors"
LATENT = "latent"
"""The name of the released latent diffusion, where a model's file may be given."""
UNKNOWN_MM = (5.0, 0.7, 0.7)  # what a network is told of thick slices whose spacing nobody gave

DEFAULT = Settings()

Spacing = tuple[float, float, float]


def nothing(*_: object) -> None:
    """What happens to what nobody asked for."""


class _Restored(NamedTuple):
    """Mean and standard deviation, (z, y, x) HU on the CPU; HU of noise that the samples got in addition."""

    hu: Tensor
    std_hu: Tensor | None
    added_noise_hu: float


class Interpolator:
    """A loaded model that turns thick volumes into thin ones."""

    def __init__(self, model: Diffusion, device: str = "auto") -> None:
        """Move a model, of a kind in `RESTORERS`, to a device (`auto`, `cpu`, `cuda`)."""
        self._restorer = RESTORERS[model.kind]
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()

    def precision(self, asked: Precision) -> MixedPrecision:
        """What was asked for, and for `auto` the fastest whose loss is known."""
        if asked != "auto":
            return asked
        return quickest_precision(self.device) if self._restorer.low_precision else "no"

    def restore(
        self,
        measurement: Measurement,
        settings: Settings = DEFAULT,
        *,
        on_sample: Callable[[int, Tensor], None] = nothing,
        on_mean: Callable[[Tensor], None] = nothing,
        on_part: Callable[[float], None] = nothing,
    ) -> Estimate:
        """Posterior mean and standard deviation of the thin volume.

        The mean is the model's one-step estimate; samples tell how far from it the truth may lie. Few samples tell
        it of a single voxel badly, so where the model has an expectation of the variance it counts as some more.

        Source: scaled inverse chi squared prior of a variance about a known mean, Gelman et al. 2013, Bayesian Data
            Analysis, section 2.6.

        Args:
            measurement: what to restore.
            settings: how to sample; without samples there is no standard deviation.
            on_sample: told the index and the volume (z, y, x) of every sample, HU on the model's device.
            on_mean: told the mean, (z, y, x) HU on the CPU, before any sample is drawn; what it raises ends the work.
            on_part: told how much of the networks' work is done, 0 to 1; of a latent diffusion after each sample.

        Returns:
            Mean, standard deviation where samples were drawn, and residual, on the measurement's thin grid.

        Raises:
            ParamsError: the memory does not suffice, the processor or the model knows no int8, or the model draws no
                samples in one step.
        """
        self._check(settings)
        advice = f"lower memory_gib, which is {settings.memory_gib:g}, take mixed_precision bf16, or device cpu"
        done = 0.0
        with out_of_memory(ParamsError, advice), torch.inference_mode():
            restorer = self._restorer(self.model, measurement, settings)

            def tell(more: float) -> None:
                nonlocal done
                done += more
                on_part(done / restorer.work)

            with watched(tell):
                return measurement.estimate(*_mean_and_std(restorer, settings.samples, on_sample, on_mean))

    def _check(self, settings: Settings) -> None:
        if settings.samples and settings.steps == 1 < self.model.usual_steps:
            raise ParamsError(
                "steps is 1, and this model has no network that draws a sample in one evaluation: "
                f"give {self.model.usual_steps}, or at least 2"
            )
        if settings.mixed_precision != "int8":
            return
        if not self._restorer.low_precision:
            raise ParamsError(
                "mixed_precision int8 is for null-space models, this is a latent diffusion: use bf16 or no"
            )
        if self.device.type != "cpu" or not is_exact():
            where = "its device is a GPU" if self.device.type != "cpu" else "this processor has no instructions for it"
            raise ParamsError(f"mixed_precision int8 is for CPUs with AVX512-VNNI, AVX-VNNI or AMX; {where}: use auto")

    def by(self, settings: Settings) -> Method:
        """The method that restores with these settings."""
        return partial(self.restore, settings=settings)

    @property
    def starts_from_regression(self) -> bool:
        """Whether there is a regression, the mean of one pass that settings without `mirror` give."""
        return self._restorer.starts_from_regression

    def generate(
        self,
        thick_hu: Tensor | FloatArray,
        *,
        sampler: Sampler = "adams",
        num_inference_steps: int | None = None,
        target_depth: int,
        profile: Profile | Auto = "auto",
        seed: int = 0,
        spacing_mm: Spacing = UNKNOWN_MM,
    ) -> Tensor:
        """One sample at any depth, e.g. (50, 512, 512) to (250, 512, 512), in HU.

        Args:
            thick_hu: (k, y, x) HU.
            sampler: adams (second order), ddim, or ddpm, which alone draws new noise at each step.
            num_inference_steps: network evaluations; None for as many as the model takes. Of a model that draws no
                sample in one, 1 gives the mean.
            target_depth: thin slices, more than k.
            profile: slice profile of the thick scan, whose slices touch; `auto` has the noise tell it, and warns where
                it cannot.
            seed: of the sample.
            spacing_mm: of the thick volume, (z, y, x).

        Returns:
            (target_depth, y, x) HU, float32 on the CPU.

        Raises:
            ParamsError: `target_depth` is no more than the thick depth, there is no such sampler, or an argument has
                another type.
            GeometryError: `thick_hu` has not three axes.
        """
        check_types(locals())
        hu = np.ascontiguousarray(torch.as_tensor(thick_hu).detach().cpu().numpy(), np.float32)
        thick = Volume(hu, spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
        if target_depth <= thick.depth:
            raise ParamsError(f"target_depth={target_depth}: expected more than the {thick.depth} thick slices")
        target = thick.depth / target_depth
        with words_of_python() as say:
            found = recognise(hu, 1.0, Acquisition(profile), thin_mm=target)
        for sentence in found.warnings:
            warnings.warn(say(sentence), stacklevel=2)
        measurement = Measurement(thick, operator_for(thick.depth, 1.0, found.thickness_mm, target, found.profile))
        if num_inference_steps == 1 < self.model.usual_steps:
            return torch.from_numpy(self.restore(measurement, Settings(seed=seed)).mean.hu)
        kept: list[Tensor] = []
        settings = Settings(sampler=sampler, steps=num_inference_steps, samples=1, seed=seed)
        self.restore(measurement, settings, on_sample=lambda _, sample: kept.append(sample.cpu()))
        return kept[0]


def model_file(path: Path | str) -> Path:
    """The file of a model that is given by its path, or by the name `latent`."""
    return RELEASED.with_name("latent.safetensors") if str(path) == LATENT else Path(path)


def load_checkpoint(path: Path | str = RELEASED, device: str = "auto") -> Interpolator:
    """Load a model file, the released one by default.

    Args:
        path: a file that `save_model` wrote, or `latent` for the released latent diffusion.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The model on the device, ready to restore.

    Raises:
        ParamsError: no path is given.
        MissingInputError: the file is not there.
        CheckpointError: it is not a ctinterp model.
    """
    check_types(locals())
    file = read_model(model_file(path))
    if file.kind not in RESTORERS:
        raise CheckpointError(f"{path} holds a {file.kind}: expected {' or '.join(RESTORERS)}")
    return Interpolator(RESTORERS[file.kind].restores.of(file), device)


def _mean_and_std(
    restorer: Restorer, samples: int, on_sample: Callable[[int, Tensor], None], on_mean: Callable[[Tensor], None]
) -> _Restored:
    mean = restorer.mean()
    mean_hu = mean.cpu()
    on_mean(mean_hu)
    if not samples:
        return _Restored(mean_hu, None, 0.0)
    squares = torch.zeros_like(mean)
    for index, drawn in enumerate(restorer.draws()):
        squares += (drawn - mean).square()
        on_sample(index, drawn)
    variance, worth = restorer.prior()
    squares += worth * variance
    return _Restored(mean_hu, (squares / (worth + samples)).sqrt().cpu(), math.sqrt(restorer.missing_hu2))
