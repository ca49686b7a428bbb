"""What would a thick-slice scan have seen? Thin volumes to synthetic thick ones."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ctinterp_dagster.imports import code_version
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, ThickTask
from ctinterp_dagster.physics.grids import thicken
from ctinterp_dagster.pipeline.cases import Case, read_cases
from ctinterp_dagster.records import CaseFolder
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/thicken/<task>/<case>.nii` for every ingested case and task.

    Slices at the far end that do not fill a thick one are left out, as in evaluation.
    """
    recipe = {"code": code_version(Path(__file__))}
    folder = CaseFolder(layout.thicken, recipe)
    made = 0
    jobs = [(case, task) for case in read_cases(layout) for task in params.thicken.tasks]
    for case, task in jobs:

        def make(paths: list[Path], case: Case = case, task: ThickTask = task) -> None:
            write_volume(thicken(read_scan(case.thin(layout)).volume, task.factor, task.profile), paths[0])

        job = f"{task.name}/{case.case}"
        ran = folder.make(job, [case.thin(layout)], [f"{job}.nii"], make)
        made += ran
        logger.info("case=%s task=%s %s", case.case, task.name, "made" if ran else "unchanged")
    folder.keep_only(f"{task.name}/{case.case}" for case, task in jobs)
    return {"cases": len(jobs), "made": made}
