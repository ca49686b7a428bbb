"""Which thin volumes explain the thick one? Mean and standard deviation of every model and test case."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ctinterp_dagster.imports import code_version
from ctinterp_dagster.interpolation import Interpolator, Measurement, Settings, doubts, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import trained
from ctinterp_dagster.params import Params, ThickTask
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.pipeline.cases import REAL, read_cases
from ctinterp_dagster.pipeline.real import real_pairs
from ctinterp_dagster.records import CaseFolder
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A thick scan to restore: its case, its estimates' folder, its files, and how to read it."""

    case: str
    folder: str
    inputs: tuple[Path, ...]
    load: Callable[[], Measurement]


def tasks(params: Params, layout: Layout) -> Iterator[Task]:
    """The thickened test cases, and the real thick scans that have a test case as their truth."""
    for case in read_cases(layout, "test"):
        for task in params.thicken.tasks:
            path = case.thick(layout, task.name)
            yield Task(case.case, task.name, (path,), partial(thickened, path, task))
    for pair, measurement in real_pairs(layout):
        inputs = (pair.thick(layout), layout.ingest / "volumes" / f"{pair.thin}.nii")
        yield Task(pair.case, REAL, inputs, partial(lambda it: it, measurement))


def thickened(path: Path, task: ThickTask) -> Measurement:
    """A synthetic thick scan, without its truth."""
    return contiguous(read_scan(path).volume, task.factor, task.profile)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the estimate and its standard deviation in HU for every model, test case and task."""
    section = params.generate
    settings = Settings(section.sampler, section.steps, section.samples, params.base.seed, section.memory_gib)
    recipe = {
        "generate": section.model_dump(),
        "base": params.base.model_dump(),
        "code": code_version(Path(__file__)),
    }
    folder = CaseFolder(layout.generate, recipe)
    jobs, made = [], 0
    for stage in trained().values():
        interpolator = load_checkpoint(layout.trained(stage), params.base.device)
        for task in tasks(params, layout):

            def make(paths: list[Path], task: Task = task, with_: Interpolator = interpolator) -> None:
                measurement = task.load()
                estimate = with_(measurement, settings)
                assert estimate.std is not None  # there is at least one sample
                write_volume(estimate.mean, paths[0])
                write_volume(estimate.std, paths[1])
                logger.info("case=%s residual_hu=%.3f", task.case, estimate.residual_hu)
                for said in doubts(measurement, torch.from_numpy(estimate.mean.hu)):
                    logger.warning("case=%s task=%s doubtful: %s", task.case, task.folder, said)

            job = f"{stage}/{task.folder}/{task.case}"
            ran = folder.make(job, [*task.inputs, layout.trained(stage)], [f"{job}.nii", f"{job}.std.nii"], make)
            made += ran
            jobs.append(job)
            word = "made" if ran else "unchanged"
            logger.info("case=%s task=%s model=%s %s", task.case, task.folder, stage, word)
    folder.keep_only(jobs)
    return {"cases": len(jobs) // len(trained()), "made": made}
