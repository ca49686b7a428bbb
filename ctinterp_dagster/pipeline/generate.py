"""Which thin volumes explain the thick one? Mean, standard deviation and a sample, of every model and test case."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ctinterp_dagster.imports import code_version
from ctinterp_dagster.interpolation import Interpolator, Settings, doubts, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import trained
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.testset import ThickScan, thick_scans
from ctinterp_dagster.records import CaseFolder
from ctinterp_dagster.scan.io import write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the estimate, its standard deviation and a sample in HU for every model, test case and task."""
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
        for scan in thick_scans(params, layout):
            places = [place(layout, stage) for place in (scan.estimate, scan.deviation, scan.sample)]
            outputs = [path.relative_to(layout.generate).as_posix() for path in places]

            def make(
                paths: list[Path], scan: ThickScan = scan, with_: Interpolator = interpolator, stage: str = stage
            ) -> None:
                measurement = replace(scan.measurement(), truth=None)
                samples: list[Tensor] = []
                estimate = with_(measurement, settings, lambda i, drawn: None if i else samples.append(drawn.cpu()))
                assert estimate.std is not None  # there is at least one sample
                write_volume(estimate.mean, paths[0])
                write_volume(estimate.std, paths[1])
                write_volume(estimate.mean.with_hu(samples[0].numpy()), paths[2])
                about = f"case={scan.case} task={scan.task} model={stage}"
                logger.info("%s residual_hu=%.3f", about, estimate.residual_hu)
                for doubt in doubts(measurement, torch.from_numpy(estimate.mean.hu)):
                    logger.warning("%s doubtful: %s", about, doubt)

            job = outputs[0].removesuffix(".nii")
            ran = folder.make(job, [scan.thick, scan.truth, layout.trained(stage)], outputs, make)
            made += ran
            jobs.append(job)
            if not ran:
                logger.info("case=%s task=%s model=%s unchanged", scan.case, scan.task, stage)
    folder.keep_only(jobs)
    return {"cases": len(jobs) // len(trained()), "made": made}
