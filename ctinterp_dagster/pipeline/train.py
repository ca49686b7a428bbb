"""Which denoiser? Diffusion in the null space, around what `expect` found: the model that is judged and released."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.diffusion import Expectation, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.nullspace.objective import NoisySlabs, NullSpaceObjective, loss_by_time
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.common import training, warm_start
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.training.device_volumes import ThinVolume


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/train/model.safetensors`, its metrics, its curve, and its loss by noise in `by_time.csv`.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `loss` and `val_loss` of the denoiser.

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
    sections = [params.base, params.loop, params.expect, section]
    name = training.identity(Path(__file__), sections, [*files, *([start] if start else [])])
    if start:
        warm_start.load_part(model.denoiser, "denoiser", start, expectation.config)
        warm_start.must_predict(section.prediction, start)
    model.expectation = expectation
    settings = training.loop_settings(section, params.expect.batch_size, params.loop, params.base)

    def noisy(volumes: Sequence[ThinVolume]) -> NoisySlabs:
        slabs = ThickSlabs(volumes, warm_start.slab_settings(params.expect), params.expect.batch_size)
        return NoisySlabs(slabs, expectation.config.modes)

    batches = noisy(training.thin_volumes(layout, "train", params.expect.weights))
    validation = training.fixed_batches(
        noisy, training.thin_volumes(layout, "val"), warm_start.VALIDATION_SLABS, settings
    )
    objective = NullSpaceObjective(model)
    with training.train(objective, batches, validation, settings, folder=layout.train, name=name) as history:
        metrics = training.final_losses(history)
        if training.is_main_process():
            rows = loss_by_time(objective, validation) if validation else []
            write_csv(reports / "by_time.csv", rows, ["t", "loss"])
            model.save(layout.trained("train"))
            training.write_reports(reports, history, metrics, model.denoiser)
    return metrics
