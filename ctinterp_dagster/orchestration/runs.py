"""What became of the runs of a job."""

import dagster as dg

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def under_way(instance: dg.DagsterInstance, job: str) -> bool:
    """Whether a run of a job waits or goes on."""
    return bool(instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=1))


def unsuccessful(instance: dg.DagsterInstance, job: str) -> dg.RunRecord | None:
    """The run of a job that ended last, if it failed or was ended; None if it succeeded, or there was none."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=ENDED), limit=1, order_by="end_time")
    return next((one for one in records if one.dagster_run.status != dg.DagsterRunStatus.SUCCESS), None)


def ending(record: dg.RunRecord) -> str:
    """How a run ended, and the beginning of its id, in few words: the list of runs has room for no more."""
    return f"{record.dagster_run.status.value.lower()}: {record.dagster_run.run_id[:8]}"
