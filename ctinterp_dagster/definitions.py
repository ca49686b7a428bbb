"""The only entry of Dagster: `dagster dev` in the checkout finds it through pyproject.toml."""

from pathlib import Path

import dagster as dg

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.alert import build_failure_sensor
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets, build_dvc_sensor
from ctinterp_dagster.orchestration.gate import build_gate_checks
from ctinterp_dagster.orchestration.publish import build_published
from ctinterp_dagster.orchestration.retrain import build_retrain_job, build_retrain_schedule
from ctinterp_dagster.orchestration.scans import build_scan_sensor, build_take_in_job, scan_asset
from ctinterp_dagster.orchestration.settings import load_settings

project = DvcProject.at(Path.cwd())
index = project.read()
settings = load_settings(project.root / "operate.yaml")
take_in_scans, retrain = build_take_in_job(index), build_retrain_job(index)

defs = dg.Definitions(
    assets=[*build_dvc_assets(project, index=index), scan_asset, build_published(project.root, settings.publish)],
    asset_checks=build_gate_checks(Layout(project.root)),
    jobs=[take_in_scans, retrain],
    schedules=[build_retrain_schedule(project, retrain, settings.retrain)],
    sensors=[
        build_dvc_sensor(project, index=index),
        build_scan_sensor(project, take_in_scans, settings.scans),
        build_failure_sensor(project.root, settings.alert),
    ],
    resources={"dvc": DvcCliResource(project_dir=str(project.root))},
    executor=dg.in_process_executor,  # stages take turns and are processes of their own: one more a step costs seconds
)
