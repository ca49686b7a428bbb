"""What runs by itself or at one click: the jobs over the whole graph, and the weekly retraining."""

import dagster as dg

from ctinterp_dagster.orchestration.dvc import DvcProject

repro_all = dg.define_asset_job(
    "repro_all",
    dg.AssetSelection.all(),
    description="Every stage in order, as `dvc repro`: what did not change is skipped.",
)

retrain = dg.define_asset_job(
    "retrain",
    dg.AssetSelection.assets("report").upstream(),
    description="From the scans to the decision on the champion and its report.",
)


def build_weekly_retrain(project: DvcProject) -> dg.ScheduleDefinition:
    """Retrain on Sunday at 02:00 UTC if `dvc status` lists a stage; off until it is switched on."""

    @dg.schedule(
        job=retrain,
        cron_schedule="0 2 * * 0",
        execution_timezone="UTC",
        description="Retrains once a week if a scan, a parameter or the code changed.",
    )
    def weekly_retrain() -> dg.RunRequest | dg.SkipReason:
        changed = [stage.target for stage in project.stages().values() if stage.changed]
        if not changed:
            return dg.SkipReason("nothing changed since the last run: `dvc status` is clean")
        return dg.RunRequest(tags={"dvc/changed": ",".join(changed)})

    return weekly_retrain
