"""The schedule of retraining, and runs whose process is gone."""

import os
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from ctinterp_dagster.champion import Challenger, Registry, seen_scans
from ctinterp_dagster.decision import Decision, Metrics
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.dvc import DvcProject
from ctinterp_dagster.orchestration.launcher import LocalRunLauncher
from ctinterp_dagster.orchestration.retrain import build_retrain_schedule
from ctinterp_dagster.orchestration.settings import Retrain
from tests.orchestration.test_automation import a_job, ingested


def test_the_schedule_counts_the_scans_that_no_challenger_has_seen(
    dropped: DvcProject, stored: dg.DagsterInstance
) -> None:
    layout = Layout(dropped.root)
    settings = Retrain(cron="0 2 * * 0", timezone="UTC", min_new_scans=2)
    tick = build_retrain_schedule(dropped, a_job, settings)
    ingested(layout, {"a": "1", "b": "1"})
    request = tick(dg.build_schedule_context(instance=stored))
    assert request.tags["ctinterp/reason"] == "2 new scans"
    decision = Decision(promoted=False, findings=(), challenger="1" * 64)
    metrics = Metrics("1" * 64, "t", {}, shared_patients=0)
    judged = Challenger("1" * 64, 0, None, decision, metrics, seen_scans(layout), {}, "")
    Registry(layout.promote).record(judged)
    ingested(layout, {"a": "1", "b": "2"})
    skip = tick(dg.build_schedule_context(instance=stored))
    assert skip.skip_message == "1 new scans since the last challenger, 2 asked for"
    ingested(layout, {"a": "1", "b": "2", "c": "1"})
    assert tick(dg.build_schedule_context(instance=stored)).tags == request.tags


def test_the_schedule_waits_for_a_retraining_that_is_not_finished(
    dropped: DvcProject, stored: dg.DagsterInstance
) -> None:
    tick = build_retrain_schedule(dropped, a_job, Retrain(cron="0 2 * * 0", timezone="UTC", min_new_scans=1))
    ingested(Layout(dropped.root), {"a": "1"})
    run = stored.create_run_for_job(a_job, status=dg.DagsterRunStatus.STARTED)
    assert tick(dg.build_schedule_context(instance=stored)).skip_message == "a run of a_job is not finished"
    stored.report_run_failed(run)
    assert isinstance(tick(dg.build_schedule_context(instance=stored)), dg.RunRequest)


@pytest.mark.parametrize(("end", "told"), [("failed", "failure"), ("canceled", "canceled")])
def test_a_retraining_that_did_not_succeed_is_due_until_one_does(
    dropped: DvcProject, stored: dg.DagsterInstance, end: str, told: str
) -> None:
    tick = build_retrain_schedule(dropped, a_job, Retrain(cron="0 2 * * 0", timezone="UTC", min_new_scans=1))

    def look() -> str:
        answer = tick(dg.build_schedule_context(instance=stored))
        return answer.skip_message if isinstance(answer, dg.SkipReason) else answer.tags["ctinterp/reason"]

    nothing_new = "0 new scans since the last challenger, 1 asked for"
    assert look() == nothing_new
    a_job.execute_in_process(instance=stored)
    ended, later = (stored.create_run_for_job(a_job, status=dg.DagsterRunStatus.STARTED) for _ in range(2))
    getattr(stored, f"report_run_{end}")(later)
    assert look() == "a run of a_job is not finished"
    getattr(stored, f"report_run_{end}")(ended)  # began before the other
    assert look() == f"{told}: {ended.run_id[:8]}"
    a_job.execute_in_process(instance=stored)
    assert look() == nothing_new


def asked(instance: dg.DagsterInstance, pid: int) -> WorkerStatus:
    """What the launcher says of a run that began in a process."""
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    run = instance.create_run_for_job(a_job, status=DagsterRunStatus.STARTED)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING  # it has not said which process
    instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(pid))
    return launcher.check_run_worker_health(run).status


def test_a_run_whose_process_is_gone_is_told_from_one_that_goes_on(
    stored: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert asked(stored, gone.pid) == WorkerStatus.FAILED
    assert asked(stored, os.getpid()) == WorkerStatus.RUNNING
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 60)  # its number was given anew
    assert asked(stored, os.getpid()) == WorkerStatus.FAILED
