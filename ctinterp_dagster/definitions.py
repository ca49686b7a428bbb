"""The only entry of Dagster: `dg dev` in the checkout finds it through pyproject.toml."""

import logging
from pathlib import Path

import dagster as dg

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.alert import build_failure_sensor
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets, build_dvc_sensor
from ctinterp_dagster.orchestration.gate import build_gate_checks
from ctinterp_dagster.orchestration.publish import build_published
from ctinterp_dagster.orchestration.retrain import build_retrain_job, build_retrain_schedule
from ctinterp_dagster.orchestration.scans import RAW, build_raw, build_scan_sensor, build_take_in_job, scan_asset
from ctinterp_dagster.orchestration.settings import OperateSettings
from ctinterp_dagster.params import load_section

project = DvcProject.at(Path.cwd())
index = project.read()
stages = [asset for asset in build_dvc_assets(project, index=index) if getattr(asset, "key", None) != RAW]
take_in_scans = build_take_in_job(index)


def operation() -> dg.Definitions:
    """What operate.yaml says runs by itself; where it cannot be used, an asset that says why, and the rest stays."""
    try:
        settings = load_section(OperateSettings, project.root / "operate.yaml")
    except (MissingInputError, ParamsError) as error:
        logging.getLogger("dagster").error("%s", error)  # noqa: TRY400 (one line, no traceback)
        description = f"**{error}.** Nothing runs by itself: correct the file, then *Deployment*, *Reload*."
        return dg.Definitions(assets=[dg.AssetSpec("operate_yaml", description=description, group_name="release")])
    retrain = build_retrain_job(index)
    return dg.Definitions(
        assets=[build_published(project.root, settings.publish)],
        jobs=[retrain],
        schedules=[build_retrain_schedule(project, retrain, settings.retrain)],
        sensors=[
            build_scan_sensor(project, take_in_scans, settings.scans),
            build_failure_sensor(project.root, settings.alert),
        ],
    )


defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[*stages, build_raw(project), scan_asset],
        asset_checks=build_gate_checks(Layout(project.root)),
        jobs=[take_in_scans],
        sensors=[build_dvc_sensor(project, index=index)],
        resources={"dvc": DvcCliResource(project_dir=str(project.root))},
        executor=dg.in_process_executor,  # stages take turns as processes of their own: one more a step costs seconds
    ),
    operation(),
)
