"""One change at a time: short trainings of the null-space networks that differ in one thing each; run by hand.

usage: python -m benchmarks.ablation RESULTS [--steps 800] [--only NAME ...]

Run it where data/ingest is made. The recipe is that of params.yaml, from random weights, averaged over the last steps.
The Visible Human's head is not trained on; after training the middle of each validation patient and of that head, at
most 100x192x256 voxels, is thickened by 5 (box) and restored. RESULTS gets one line of JSON a change; changes that
stand there are not run again.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.average import middle
from benchmarks.quality import texture
from ctinterp_dagster.evaluation.metrics import Truth, score
from ctinterp_dagster.interpolation import RELEASED, Settings, load_checkpoint, thicken
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model import forward_process, sampler
from ctinterp_dagster.model.files import read_model
from ctinterp_dagster.nullspace import diffusion as nullspace
from ctinterp_dagster.nullspace import objective as objectives
from ctinterp_dagster.nullspace import restorer, slabs
from ctinterp_dagster.nullspace import slab_settings as slab_grids
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES, NullSpace
from ctinterp_dagster.nullspace.diffusion import (
    ExpectationConfig,
    NullSpaceConfig,
    NullSpaceDiffusion,
    narrower,
    widened,
)
from ctinterp_dagster.params import Params, load_params
from ctinterp_dagster.physics.interpolators import spline_weights
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.common.runner import make_deterministic
from ctinterp_dagster.pipeline.trainings.training import loop_settings, thin_volumes
from ctinterp_dagster.pipeline.trainings.warm_start import slab_settings
from ctinterp_dagster.scan.volume import DoubleArray, Volume
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import run_loop

HEAD = "vhf-head"
FACTOR = 5
SAMPLES, SAMPLE_STEPS = 2, 8
PLAIN = {"factors": (FACTOR,), "profiles": ("box",), "widths": (1.0,), "anisotropy": 0.0, "one_in": 0}


class LinearBase(NullSpace):
    """The base is projected linear interpolation."""

    @cached_property
    def upsampling(self) -> DoubleArray:
        """(n_thin, n_thick)."""
        linear = spline_weights(self.operator.n_thick, self.operator.thin_positions, order=1)
        inverse, a = self.operator.pseudo_inverse_matrix, self.operator.matrix
        return linear + inverse - inverse @ (a @ linear)


class LeastNormBase(NullSpace):
    """The base is the pseudo-inverse alone: for the box profile, each thick slice repeated."""

    @cached_property
    def upsampling(self) -> DoubleArray:
        """(n_thin, n_thick)."""
        return self.operator.pseudo_inverse_matrix


@dataclass(frozen=True)
class Change:
    """What a training has that the reference has not.

    Attributes:
        section: values of `expect`, or of `train` for a denoiser.
        augmentation: values of `expect.augmentation`.
        loss: values of `expect.loss`.
        constants: of modules, (module, name, value).
        space: the null space, with another base.
        seed: added to the seed.
        cases: how many volumes are trained on; None for all.
        network: what is trained: the expectation; a denoiser around the released one, or around 0; the released
            expectation, on the plane of each thick scan itself; or nothing, to score the released one.
    """

    section: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[tuple[Any, str, Any], ...] = ()
    space: type[NullSpace] = NullSpace
    seed: int = 0
    cases: int | None = None
    network: str = "expectation"


def linear_beta(t: Tensor) -> Tensor:
    """The alpha of Ho et al. 2020 (section 4) in continuous time: Song et al. 2021, eq. 32, beta from 0.1 to 20."""
    return (-0.25 * t.double() ** 2 * 19.9 - 0.5 * t.double() * 0.1).exp().to(t.dtype)


def linear_beta_sigma(t: Tensor) -> Tensor:
    """The sigma beside it."""
    return (1.0 - linear_beta(t.double()) ** 2).clamp_min(0.0).sqrt().to(t.dtype)


LINEAR_BETA = tuple(
    (module, name, value)
    for module in (forward_process, sampler)
    for name, value in (("alpha", linear_beta), ("sigma", linear_beta_sigma))
)
NOT_SHIFTED = ((nullspace, "SHIFT", 1.0),)
CHANGES = {
    "reference": Change(),
    "another seed": Change(seed=1),
    "base: linear": Change(space=LinearBase),
    "base: pseudo-inverse": Change(space=LeastNormBase),
    "half the width": Change({"channels": (24, 48, 64)}),
    "1.5 times the width": Change({"channels": (72, 144, 192)}),
    "two blocks a level": Change({"blocks": 2}),
    "2 of 6 volumes": Change(cases=2),
    "4 of 6 volumes": Change(cases=4),
    "nothing varies": Change(augmentation=PLAIN),
    "no noise": Change(augmentation={"noise_hu": 0.0}),
    "box profile only": Change(augmentation={"profiles": ("box",)}),
    "slices as thick as far apart": Change(augmentation={"widths": (1.0,)}),
    "factor 5 only": Change(augmentation={"factors": (5,)}),
    "one direction": Change(augmentation={"anisotropy": 0.0}),
    "one kernel": Change(augmentation={"sharpness": (0.0, 0.0)}),
    "one size": Change(augmentation={"magnification": 1.0}),
    "one pixel": Change(augmentation={"zoom": 1.0}),
    "soft tissue weighs three times as much": Change(loss={"soft_tissue": 90.0}),
    "no absolute error": Change(loss={"absolute": 0.0}),
    "denoiser: reference (x0, cosine, shifted)": Change(network="denoiser"),
    "denoiser: v": Change({"prediction": "v"}, network="denoiser"),
    "denoiser: times not shifted": Change(constants=NOT_SHIFTED, network="denoiser"),
    "denoiser: linear beta": Change(constants=LINEAR_BETA, network="denoiser"),
    "denoiser: twice the width": Change({"channels": (64, 128, 192)}, network="denoiser"),
    "denoiser: of c, without a mean": Change(network="denoiser around 0"),
    "released": Change(network="released"),
    "released, and its scan's own plane": Change(network="own plane"),
}


@contextlib.contextmanager
def changed(change: Change) -> Iterator[None]:
    """The modules as the change has them."""
    spaces = ((slab_grids, "NullSpace", change.space), (restorer, "NullSpace", change.space))
    forget()
    with contextlib.ExitStack() as stack:
        for module, name, value in (*change.constants, *spaces):
            stack.enter_context(patch.object(module, name, value))
        yield
    forget()


def forget() -> None:
    """What the slabs remember of the modules as they were."""
    for remembered in (slab_grids.space, slab_grids.grids, slab_grids.matrices_of):
        remembered.cache_clear()


def released() -> NullSpaceDiffusion:
    """The released model, that knows as many cosines and as much of the geometry as slabs have now."""
    file = read_model(RELEASED)
    config = file.config_as(NullSpaceConfig)
    expectation = replace(config.expectation, features=FEATURES, modes=MODES, geometry=GEOMETRY)
    model = NullSpaceDiffusion(replace(config, expectation=expectation))
    model.load_state_dict(widened(file.tensors, config.expectation, expectation))
    return model


def model_of(change: Change, params: Params) -> NullSpaceDiffusion:
    """The model before training."""
    section, denoiser = params.expect, params.train
    fresh = ExpectationConfig(FEATURES, MODES, section.channels, section.blocks, narrower(section.channels), GEOMETRY)
    whole = released()
    config = replace(
        whole.config,
        expectation=whole.config.expectation if change.network == "denoiser" else fresh,
        channels=denoiser.channels,
        blocks=section.blocks,
        prediction=denoiser.prediction,
        one_step=False,
    )
    model = NullSpaceDiffusion(config)
    if change.network == "denoiser":
        model.expectation.load_state_dict(whole.expectation.state_dict())
    return model


def trained(change: Change, params: Params, layout: Layout) -> NullSpaceDiffusion:
    """The model after training."""
    section = params.expect if change.network == "expectation" else params.train
    torch.manual_seed(params.base.seed)
    model = model_of(change, params)
    volumes = [volume for volume in thin_volumes(layout, "train", params.expect.weights) if volume.case != HEAD]
    batch_size = params.expect.batch_size
    drawn = slabs.ThickSlabs(volumes[: change.cases], slab_settings(params.expect), batch_size)
    settings = loop_settings(section, batch_size, params.loop, params.base)
    if change.network == "expectation":
        run_loop(expectation_objective(model, params), drawn, settings)
    else:
        noisy = objectives.NoisySlabs(drawn, MODES)
        run_loop(objectives.NullSpaceObjective(model), noisy, settings)
    return model.eval()


def expectation_objective(model: NullSpaceDiffusion, params: Params) -> objectives.ExpectationObjective:
    """The loss of the expectation, with the weights of the parameters."""
    return objectives.ExpectationObjective(model.expectation, objectives.LossWeights(**params.expect.loss.model_dump()))


def on_its_own_plane(params: Params, hu: Tensor, spacing_mm: tuple[float, float, float]) -> NullSpaceDiffusion:
    """The released model after training on the rows of the thick scan, which are as near as thin slices."""
    model = released()
    thick = ThickeningOperator.from_factor(len(hu), FACTOR, "box").forward(hu).round().to(torch.int16)
    rows = ThinVolume(thick.transpose(0, 1).contiguous(), (spacing_mm[1], FACTOR * spacing_mm[0], spacing_mm[2]))
    depth, _, width = params.expect.slab_zyx
    augmentation = params.expect.augmentation.model_copy(update=PLAIN)
    section = params.expect.model_copy(update={"slab_zyx": (depth, 16, width), "augmentation": augmentation})
    drawn = slabs.ThickSlabs([rows], slab_settings(section), 2)
    gentle = replace(loop_settings(section, 2, params.loop, params.base), learning_rate=1e-4)
    run_loop(expectation_objective(model, params), drawn, gentle)
    return model.eval()


def figures(
    model: NullSpaceDiffusion, hu: Tensor, spacing_mm: tuple[float, float, float], samples: int
) -> dict[str, Any]:
    """PSNR of the mean; with samples, of their mean and of one, and how rough one and the truth are."""
    thin = Volume(hu.numpy(), spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    measurement = contiguous(thicken(thin, FACTOR, "box"), FACTOR, "box")
    truth = Truth.of(hu.numpy(), factor=FACTOR)
    settings = Settings(steps=SAMPLE_STEPS, samples=samples)
    with torch.inference_mode():
        restored = restorer.NullSpaceRestorer(model, measurement, settings)
        mean, rough = restored.mean(), {}
        estimates = {"mean": mean}
        if samples:
            drawn, body = list(restored.draws()), torch.from_numpy(truth.body)
            estimates = {"mean of samples": torch.stack(drawn).mean(0), "sample": drawn[0]}
            rough = {"texture": {"truth": texture(hu - mean, body), "sample": texture(drawn[0] - mean, body)}}
    scores = {name: score(estimate.numpy(), truth, residual_hu=0.0) for name, estimate in estimates.items()}
    return {name: [s.psnr_db, s.psnr_soft_db, s.ssim, s.noise_ratio] for name, s in scores.items()} | rough


def run(name: str, params: Params, layout: Layout) -> dict[str, Any]:
    """Train with a change, and score."""
    change, start = CHANGES[name], time.perf_counter()
    where = "train" if "denoiser" in change.network else "expect"
    base = params.base.model_copy(update={"seed": params.base.seed + change.seed})
    parts = {
        "augmentation": params.expect.augmentation.model_copy(update=dict(change.augmentation)),
        "loss": params.expect.loss.model_copy(update=dict(change.loss)),
    }
    expect = params.expect.model_copy(update=parts | (dict(change.section) if where == "expect" else {}))
    train = params.train.model_copy(update=dict(change.section) if where == "train" else {})
    params = params.model_copy(update={"base": base, "expect": expect, "train": train})
    held_out = [*thin_volumes(layout, "val"), *(v for v in thin_volumes(layout, "train") if v.case == HEAD)]
    samples = SAMPLES if "denoiser" in change.network else 0
    with changed(change):
        model = load_checkpoint(device="cpu").model if change.network == "released" else None
        model = trained(change, params, layout) if change.network not in ("released", "own plane") else model
        cases = {}
        for volume in held_out:
            hu = middle(volume.hu.float())
            its = model or on_its_own_plane(params, hu, volume.spacing_mm)
            assert isinstance(its, NullSpaceDiffusion)
            cases[volume.case] = figures(its, hu, volume.spacing_mm, samples)
    return {"change": name, "seconds": round(time.perf_counter() - start), **cases}


@click.command
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--steps", default=800, help="of each training")
@click.option("--only", multiple=True, type=click.Choice(list(CHANGES)), help="these changes")
def main(results: Path, steps: int, only: tuple[str, ...]) -> None:
    """Run the changes that are not in RESULTS yet."""
    layout = Layout(Path.cwd())
    params = load_params(layout.params)
    make_deterministic(params.base)
    short = {"steps": steps, "warmup_steps": steps // 10, "ema_decay": 0.99}
    sections = {"expect": params.expect, "train": params.train}
    params = params.model_copy(update={name: section.model_copy(update=short) for name, section in sections.items()})
    done = {json.loads(line)["change"] for line in results.read_text().splitlines()} if results.exists() else set()
    for name in only or CHANGES:
        if name not in done:
            line = json.dumps(run(name, params, layout))
            with results.open("a") as file:
                file.write(line + "\n")
            click.echo(line)


if __name__ == "__main__":
    main()
