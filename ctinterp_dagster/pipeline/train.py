"""Which denoiser? Diffusion in the null space, around what `expect` found: the model that is judged and released."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.diffusion import Expectation, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.nullspace.distillation import DistillationObjective, with_one_step
from ctinterp_dagster.nullspace.objective import NoisyBatch, NoisySlabs, NullSpaceObjective, loss_by_time
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.params import Optimisation, Params
from ctinterp_dagster.pipeline.trainings import training, warm_start
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import LoopSettings, StepRecord

ONE_STEP = "one_step"
"""The parameters of the network for one step; in `data/train` and `reports/train`, its checkpoint and reports."""


class Slabs(NamedTuple):
    """What both trainings see: training slabs, and those that validate."""

    train: NoisySlabs
    validation: Sequence[NoisyBatch]


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Train the denoiser, and the network that draws its samples in one evaluation.

    Written are `data/train/model.safetensors`, the metrics and curve of both, and the denoiser's loss by noise in
    `by_time.csv`.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `loss` and `val_loss` of the denoiser; with `one_step_` before them, of the other network where there is one.

    Raises:
        MissingInputError: ingest or expect has not run, or the file to start from is not there.
        CheckpointError: the expectation or the file to start from cannot be read.
        ParamsError: the model to start from has other widths or another prediction, or a volume is too small.
        TrainingError: a loss is not finite.
    """
    section, reports = params.train, layout.report("train")
    expectation = Expectation.load(layout.expectation)
    torch.manual_seed(params.base.seed)
    config = NullSpaceConfig(expectation.config, section.channels, params.expect.blocks, section.prediction)
    model = NullSpaceDiffusion(config)
    start = warm_start.start_file(section.start, layout)
    files = [layout.ingest / "cases.csv", layout.ingest / "manifest.json", layout.expectation]
    files += [start] if start else []
    sections = [params.base, params.loop, params.expect, section]
    name = training.identity(Path(__file__), sections, files, but=[ONE_STEP])
    if start:
        warm_start.load_part(model.denoiser, "denoiser", start, expectation.config)
        warm_start.must_predict(section.prediction, start)
    model.expectation = expectation
    settings = settings_of(section, params)
    slabs = slabs_of(params, layout, expectation.config.modes, settings)
    objective = NullSpaceObjective(model)
    with training.train(objective, *slabs, settings, folder=layout.train, name=name) as history:
        metrics = training.final_losses(history)
        if training.is_main_process():
            rows = loss_by_time(objective, slabs.validation) if slabs.validation else []
            write_csv(reports / "by_time.csv", rows, ["t", "loss"])
            training.write_reports(reports, history, metrics, model.denoiser)
        name = training.identity(Path(__file__), sections, files)
        with distilled(model, start, slabs, params, layout.train / ONE_STEP, name) as (whole, learned):
            losses = training.final_losses(learned)
            if training.is_main_process():
                whole.save(layout.trained("train"))
                training.write_reports(reports / ONE_STEP, learned, losses, whole.one_step or torch.nn.Module())
        if training.is_main_process():
            shutil.rmtree(layout.train / ONE_STEP, ignore_errors=True)
    return metrics | {f"{ONE_STEP}_{metric}": loss for metric, loss in losses.items()}


def settings_of(section: Optimisation, params: Params) -> LoopSettings:
    """How a network of this stage optimises, on the slabs of `expect`."""
    return training.loop_settings(section, params.expect.batch_size, params.loop, params.base)


def slabs_of(params: Params, layout: Layout, modes: int, settings: LoopSettings) -> Slabs:
    """The slabs of the thin volumes, thickened as `expect` does it, with noise and times.

    Args:
        params: of all stages.
        layout: where things are.
        modes: cosines a thick voxel.
        settings: how large batches are, and the seed.

    Returns:
        Those of the training patients, and always the same ones of the validation patients.

    Raises:
        MissingInputError: ingest has not run.
        ParamsError: a volume is too small.
    """

    def noisy(volumes: Sequence[ThinVolume]) -> NoisySlabs:
        slabs = ThickSlabs(volumes, warm_start.slab_settings(params.expect), params.expect.batch_size)
        return NoisySlabs(slabs, modes)

    unseen = training.thin_volumes(layout, "val")
    return Slabs(
        noisy(training.thin_volumes(layout, "train", params.expect.weights)),
        training.fixed_batches(noisy, unseen, warm_start.VALIDATION_SLABS, settings),
    )


@contextmanager
def distilled(
    model: NullSpaceDiffusion, start: Path | None, slabs: Slabs, params: Params, folder: Path, name: str
) -> Iterator[tuple[NullSpaceDiffusion, list[StepRecord]]]:
    """Train the network for one step on what the denoiser draws; the block is to write it, as in `training.train`.

    It begins with that of the model to start from, where that one has it, or else as `with_one_step` says.

    Args:
        model: with the trained denoiser.
        start: the file that the training began with, if any.
        slabs: those of the denoiser's training.
        params: of all stages.
        folder: where the checkpoint lies meanwhile.
        name: the training's `identity`.

    Yields:
        The model with that network, and the history; the model as it was and no history where it is to have none.

    Raises:
        ParamsError: the model to start from has another network.
        TrainingError: a loss is not finite.
        CheckpointError: the checkpoint cannot be read.
    """
    own = params.train.one_step
    if not own.steps:
        yield model, []
        return
    grown = with_one_step(model)
    assert grown.one_step
    if start and warm_start.has_part(ONE_STEP, start):
        warm_start.load_part(grown.one_step, ONE_STEP, start, model.config.expectation)
    section = params.train.model_copy(update={"steps": own.steps, "learning_rate": own.learning_rate})
    objective, settings = DistillationObjective(grown), settings_of(section, params)
    with training.train(objective, *slabs, settings, folder=folder, name=name) as history:
        yield grown, history
