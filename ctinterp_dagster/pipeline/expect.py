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
from ctinterp_dagster.pipeline.training import (
    final_losses,
    fixed_batches,
    identity,
    is_main_process,
    loop_settings,
    thin_volumes,
    trained,
    write_reports,
)
from ctinterp_dagster.pipeline.warm_start import VALIDATION_SLABS, average_with, load_part, slab_settings, start_file
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import mean_loss


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/expect/expectation.safetensors`, its metrics and its curve."""
    section = params.expect
    torch.manual_seed(params.base.seed)
    channels = section.channels
    network = Expectation(ExpectationConfig(FEATURES, MODES, channels, section.blocks, narrower(channels), GEOMETRY))
    start = start_file(section.start, layout)
    files = [layout.ingest / "cases.csv", layout.ingest / "manifest.json", *([start] if start else [])]
    name = identity(Path(__file__), [params.base, params.loop, section], files)
    if start:
        load_part(network, "expectation", start, network.config)
    settings = loop_settings(section, section.batch_size, params.loop, params.base)

    def slabs(volumes: Sequence[ThinVolume]) -> ThickSlabs:
        return ThickSlabs(volumes, slab_settings(section), section.batch_size)

    train = slabs(thin_volumes(layout, "train", section.weights))
    validation = fixed_batches(slabs, thin_volumes(layout, "val"), VALIDATION_SLABS, settings)
    objective = ExpectationObjective(network, LossWeights(**section.loss.model_dump()))
    with trained(objective, train, validation, settings, folder=layout.expect, name=name) as history:
        metrics = final_losses(history)
        if start and section.start_share:
            average_with(network, "expectation", start, network.config, section.start_share)
            metrics |= {"val_loss": mean_loss(objective, validation)} if validation else {}
        if is_main_process():
            network.save(layout.expectation)
            write_reports(layout.report("expect"), history, metrics, network)
    return metrics
