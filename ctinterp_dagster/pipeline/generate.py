"""Which thin volumes explain the thick one? Posterior mean and standard deviation for every test case."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ctinterp_dagster.interpolate import Settings, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, Profile
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.cases import Case, read_cases
from ctinterp_dagster.records import CaseFolder, code_version
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the estimate and its standard deviation in HU for every test case and profile."""
    section, factor = params.generate, params.thicken.factor
    settings = Settings(section.sampler, section.steps, section.samples, params.base.seed, section.memory_gib)
    interpolator = load_checkpoint(layout.train / "model.safetensors", params.base.device)
    code = code_version("scan", "physics", "model", "interpolate.py", "pipeline/generate.py")
    recipe = {"generate": section.model_dump(), "base": params.base.model_dump(), "factor": factor, "code": code}
    folder = CaseFolder(layout.generate, recipe)
    made = 0
    residuals: list[float] = []
    jobs = [(case, profile) for case in read_cases(layout, "test") for profile in params.thicken.profiles]
    for case, profile in jobs:

        def make(paths: list[Path], case: Case = case, profile: Profile = profile) -> None:
            thick = read_scan(case.thick(layout, profile)).volume
            operator = ThickeningOperator.from_factor(thick.depth * factor, factor, profile)
            result = interpolator(thick, operator, settings)
            write_volume(result.thin, paths[0])
            write_volume(result.std, paths[1])
            residuals.append(result.residual_hu)

        inputs = [case.thick(layout, profile), layout.train / "model.safetensors"]
        outputs = [
            str(path.relative_to(layout.generate))
            for path in (case.estimate(layout, profile), case.deviation(layout, profile))
        ]
        ran = folder.make(f"{profile}/{case.case}", inputs, outputs, make)
        made += ran
        logger.info(
            "case=%s profile=%s %s", case.case, profile, f"residual_hu={residuals[-1]:.3f}" if ran else "unchanged"
        )
    folder.keep_only(f"{profile}/{case.case}" for case, profile in jobs)
    return {"cases": len(jobs), "made": made}
