"""The only entry of Dagster: `dagster dev` in the checkout finds it through pyproject.toml."""

from pathlib import Path

import dagster as dg

from ctinterp_dagster.orchestration.automation import build_weekly_retrain, repro_all, retrain
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets, build_dvc_sensor

project = DvcProject.at(Path.cwd())

defs = dg.Definitions(
    assets=build_dvc_assets(project),
    jobs=[repro_all, retrain],
    schedules=[build_weekly_retrain(project)],
    sensors=[build_dvc_sensor(project)],
    resources={"dvc": DvcCliResource(project_dir=str(project.root))},
)
