"""What would a thick-slice scan have seen? Thin volumes to synthetic thick ones."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ctinterp_dagster.interpolation import thicken
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, Profile
from ctinterp_dagster.pipeline.cases import Case, read_cases
from ctinterp_dagster.records import CaseFolder, code_version
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/thicken/<profile>/<case>.nii` for every ingested case and profile.

    Slices at the far end that do not fill a group of `factor` are left out, as in evaluation.
    """
    section = params.thicken
    recipe = {
        "factor": section.factor,
        "code": code_version("physics", "scan", "interpolation", "pipeline/thicken.py"),
    }
    folder = CaseFolder(layout.thicken, recipe)
    made = 0
    jobs = [(case, profile) for case in read_cases(layout) for profile in section.profiles]
    for case, profile in jobs:

        def make(paths: list[Path], case: Case = case, profile: Profile = profile) -> None:
            write_volume(thicken(read_scan(case.thin(layout)).volume, section.factor, profile), paths[0])

        ran = folder.make(f"{profile}/{case.case}", [case.thin(layout)], [f"{profile}/{case.case}.nii"], make)
        made += ran
        logger.info("case=%s profile=%s %s", case.case, profile, "made" if ran else "unchanged")
    folder.keep_only(f"{profile}/{case.case}" for case, profile in jobs)
    return {"cases": len(jobs), "made": made}
