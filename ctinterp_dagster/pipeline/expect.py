"""Which thin volume is to be expected? A regression in the null space, the mean that the diffusion starts from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import Expectation, ExpectationConfig, narrower
from ctinterp_dagster.nullspace.objective import ExpectationObjective, LossWeights
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.trainings import training, warm_start
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import mean_loss


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/expect/expectation.safetensors`, its metrics and its curve.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `loss` and `val_loss`, where there are patients to validate on.

    Raises:
        MissingInputError: ingest has not run, or the file to start from is not there.
        CheckpointError: the file to start from cannot be read.
        ParamsError: a volume is smaller than a slab, or the model to start from has other widths.
        TrainingError: there is no training volume, or a loss is not finite.
    """
    section = params.expect
    torch.manual_seed(params.base.seed)
    channels = section.channels
    network = Expectation(ExpectationConfig(FEATURES, MODES, channels, section.blocks, narrower(channels), GEOMETRY))
    start = warm_start.start_file(section.start, layout)
    files = [layout.ingest / "cases.csv", layout.ingest / "manifest.json", *([start] if start else [])]
    name = training.identity(Path(__file__), [params.base, params.loop, section], files)
    if start:
        warm_start.load_part(network, "expectation", start, network.config)
    settings = training.loop_settings(section, section.batch_size, params.loop, params.base)

    def slabs(volumes: Sequence[ThinVolume]) -> ThickSlabs:
        return ThickSlabs(volumes, warm_start.slab_settings(section), section.batch_size)

    train = slabs(training.thin_volumes(layout, "train", section.weights))
    validation = training.fixed_batches(
        slabs, training.thin_volumes(layout, "val"), warm_start.VALIDATION_SLABS, settings
    )
    objective = ExpectationObjective(network, LossWeights(**section.loss.model_dump()))
    with training.train(objective, train, validation, settings, folder=layout.expect, name=name) as history:
        metrics = training.final_losses(history)
        if start and section.start_share:
            warm_start.average_with(network, "expectation", start, network.config, section.start_share)
            metrics |= {"val_loss": mean_loss(objective, validation)} if validation else {}
        if training.is_main_process():
            network.save(layout.expectation)
            training.write_reports(layout.report("expect"), history, metrics, network)
    return metrics
