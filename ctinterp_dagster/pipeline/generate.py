"""Which thin volumes explain the thick one? Mean and standard deviation of every model and test case."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ctinterp_dagster.interpolation import Interpolator, Settings, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, Profile
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.cases import ROWS, Case, read_cases
from ctinterp_dagster.records import CaseFolder, code_version
from ctinterp_dagster.scan.io import read_scan, write_volume

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the estimate and its standard deviation in HU for every model, test case and profile."""
    section, factor = params.generate, params.thicken.factor
    settings = Settings(section.sampler, section.steps, section.samples, params.base.seed, section.memory_gib)
    code = code_version("scan", "physics", "model", "interpolation", "pipeline/generate.py")
    recipe = {"generate": section.model_dump(), "base": params.base.model_dump(), "factor": factor, "code": code}
    folder = CaseFolder(layout.generate, recipe)
    made = 0
    jobs = [(case, profile) for case in read_cases(layout, "test") for profile in params.thicken.profiles]
    for model in ROWS.values():
        interpolator = load_checkpoint(layout.trained(model), params.base.device)
        for case, profile in jobs:

            def make(
                paths: list[Path], case: Case = case, profile: Profile = profile, with_: Interpolator = interpolator
            ) -> None:
                thick = read_scan(case.thick(layout, profile)).volume
                operator = ThickeningOperator.from_factor(thick.depth * factor, factor, profile)
                result = with_(thick, operator, settings)
                assert result.std is not None  # there is at least one sample
                write_volume(result.thin, paths[0])
                write_volume(result.std, paths[1])
                logger.info("residual_hu=%.3f", result.residual_hu)

            inputs = [case.thick(layout, profile), layout.trained(model)]
            outputs = [case.estimate(layout, model, profile), case.deviation(layout, model, profile)]
            names = [str(path.relative_to(layout.generate)) for path in outputs]
            ran = folder.make(f"{model}/{profile}/{case.case}", inputs, names, make)
            made += ran
            logger.info("case=%s profile=%s model=%s %s", case.case, profile, model, "made" if ran else "unchanged")
    folder.keep_only(f"{model}/{profile}/{case.case}" for model in ROWS.values() for case, profile in jobs)
    return {"cases": len(jobs), "made": made}
