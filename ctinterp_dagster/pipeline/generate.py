"""Which thin volumes explain the thick one? Mean, standard deviation and a sample, of every model and test case."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.import_closure import code_version
from ctinterp_dagster.interpolation import Interpolator, Settings, doubts, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import judged, trained
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScan, ThickScans
from ctinterp_dagster.records import CaseFolder, CaseJob, whole_file
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the estimate, its standard deviation and a sample in HU for every model, test case and task.

    The first thick scan and what the judged model made of it are drawn in `reports/generate/before-after.png`.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        How many thick scans there are, and how many were restored now, of all models.

    Raises:
        MissingInputError: a scan or a model is not there.
        CheckpointError: a model cannot be read.
        ParamsError: `generate.memory_gib` does not suffice.
    """
    section = params.generate
    settings = Settings(section.sampler, section.steps, section.samples, params.base.seed, section.memory_gib)
    recipe = {
        "generate": section.model_dump(),
        "base": params.base.model_dump(),
        "code": code_version(Path(__file__)),
    }
    folder = CaseFolder(layout.generate, recipe)
    scans = ThickScans(params.thicken.tasks, layout)
    done = folder.make_all(jobs(scans, settings, params.base.device))
    folder.keep_only(done.cases)
    first = next(iter(scans))
    thick, thin = (read_scan(path).volume for path in (first.thick, first.estimate(judged().stage)))
    with whole_file(layout.report("generate") / "before-after.png") as partial_file:
        partial_file.write_bytes(before_after(thick, thin))
    return {"cases": len(done.cases) // len(trained()), "made": done.made}


def jobs(scans: ThickScans, settings: Settings, device: str) -> Iterator[CaseJob]:
    """Every thick scan of the test set, by every model.

    Args:
        scans: of the test set.
        settings: of the restoration.
        device: auto, cpu or cuda.

    Yields:
        A job for each scan and model.

    Raises:
        MissingInputError: a model is not there, or ingest has not run.
        CheckpointError: a model cannot be read.
    """
    models = {stage: scans.layout.trained(stage) for stage in trained().values()}
    interpolators = {stage: load_checkpoint(model, device) for stage, model in models.items()}
    for scan in scans:
        for stage, interpolator in interpolators.items():
            places = [place(stage) for place in (scan.estimate, scan.deviation, scan.sample)]
            outputs = [path.relative_to(scan.generated).as_posix() for path in places]
            about = f"case={scan.case} task={scan.task} model={stage}"
            action = partial(write_estimate, scan, interpolator, settings, about)
            yield CaseJob(
                outputs[0].removesuffix(".nii"), [scan.thick, scan.truth, models[stage]], outputs, action, about
            )


def write_estimate(
    scan: ThickScan, interpolator: Interpolator, settings: Settings, about: str, paths: list[Path]
) -> None:
    """Restore a thick scan, as `CaseJob.action`: mean, standard deviation and the first sample.

    Args:
        scan: the thick scan.
        interpolator: a model.
        settings: how it samples, once at least.
        about: what the log calls it.
        paths: of the three.
    """
    measurement = replace(scan.measurement(), truth=None)
    samples: list[Tensor] = []

    def keep_first(index: int, drawn: Tensor) -> None:
        if not index:
            samples.append(drawn.cpu())

    estimate = interpolator.restore(measurement, settings, on_sample=keep_first)
    assert estimate.std is not None  # there is at least one sample
    write_volume(estimate.mean, paths[0])
    write_volume(estimate.std, paths[1])
    write_volume(estimate.mean.with_hu(samples[0].numpy()), paths[2])
    for doubt in doubts(measurement, torch.from_numpy(estimate.mean.hu)):
        logger.warning("%s doubtful: %s", about, doubt)
