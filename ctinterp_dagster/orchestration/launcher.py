"""Runs whose process died with the machine: Dagster's own launcher leaves them started for ever."""

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus  # no public name; what a launcher answers with


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher, which also tells run monitoring whether the process of a run on this machine still lives."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: run monitoring asks, and marks the run of a dead process as failed."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the processes that the run said it is in live."""
        for event in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            pid = event.get_dagster_event().engine_event_data.metadata.get("pid")
            if pid and not _lives(int(str(pid.value)), event.timestamp):
                return CheckRunHealthResult(WorkerStatus.FAILED, f"process {pid.value} is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _lives(pid: int, since_s: float) -> bool:
    """Whether a process that was there at a time is there still; one of its number that began later is another."""
    try:
        began_s: float = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return began_s <= since_s
