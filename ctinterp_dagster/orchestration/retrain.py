"""Retraining by itself: when there are enough scans that no challenger has seen, or the last one did not succeed."""

from typing import Any

import dagster as dg

from ctinterp_dagster.champion import Registry, seen_scans
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.dvc import DvcIndex, DvcProject, select_stages
from ctinterp_dagster.orchestration.publish import PUBLISHED
from ctinterp_dagster.orchestration.runs import ending, under_way, unsuccessful
from ctinterp_dagster.orchestration.settings import Retrain


def build_retrain_job(index: DvcIndex) -> Any:
    """The job from the scans to the decision on the champion, its report and its commit."""
    stages = select_stages(index, "report")
    return dg.define_asset_job(
        "retrain",
        stages | dg.AssetSelection.assets(PUBLISHED),
        description="From the scans to the decision on the champion, its report, and a commit.",
    )


def new_scans(layout: Layout) -> list[str]:
    """The cases that no challenger has seen as they are now."""
    challengers = Registry(layout.promote).challengers
    seen = {case: version for challenger in challengers for case, version in challenger.seen.items()}
    return sorted(case for case, version in seen_scans(layout).items() if seen.get(case) != version)


def build_retrain_schedule(project: DvcProject, job: Any, settings: Retrain) -> dg.ScheduleDefinition:
    """A schedule that retrains when enough scans are new.

    A retraining that failed or was ended is due until one succeeds, also where the gate has seen its scans: a tick
    starts one run at most. DVC skips what the failed one has finished.

    Args:
        project: whose scans are counted.
        job: that retrains.
        settings: when, and from how many new scans on.

    Returns:
        The schedule, off until it is switched on.
    """
    layout = Layout(project.root)

    @dg.schedule(
        name="retrain_on_new_scans",
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        description=(
            f"Retrains when there are {settings.min_new_scans} scans that no challenger has seen, or when the last "
            "retraining did not succeed."
        ),
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if under_way(context.instance, job.name):
            return dg.SkipReason(f"a run of {job.name} is not finished")
        new = new_scans(layout)
        reason = f"{len(new)} new scans"
        if len(new) < settings.min_new_scans:
            failed = unsuccessful(context.instance, job.name)
            if failed is None:
                return dg.SkipReason(f"{reason} since the last challenger, {settings.min_new_scans} asked for")
            reason = ending(failed)
        context.log.info("%s is due (%s)", job.name, reason)
        return dg.RunRequest(tags={"ctinterp/trigger": "schedule", "ctinterp/reason": reason})

    return tick
