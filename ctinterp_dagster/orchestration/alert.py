"""A run that failed leaves a record, and tells a webhook if there is one."""

import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import dagster as dg

from ctinterp_dagster.orchestration.settings import Alert
from ctinterp_dagster.records import write_json

TIMEOUT_S = 10


def build_failure_sensor(root: Path, settings: Alert) -> dg.SensorDefinition:
    """A sensor on failed runs of any job; on from the start."""

    @dg.run_failure_sensor(
        name="failed_runs",
        description="Writes a record of each run that failed, and sends it to the webhook of operate.yaml.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def failed(context: dg.RunFailureSensorContext) -> None:
        record = {
            "run_id": context.dagster_run.run_id,
            "job": context.dagster_run.job_name,
            "tags": dict(context.dagster_run.tags),
            "message": context.failure_event.message or "",
            "steps": {
                event.step_key or "": event.step_failure_data.error_display_string
                for event in context.get_step_failure_events()
                if event.step_failure_data
            },
        }
        write_json(root / settings.folder / f"{context.dagster_run.run_id}.json", record)
        if settings.webhook:
            tell(settings.webhook, record, context)

    return failed


def tell(url: str, record: Mapping[str, object], context: dg.RunFailureSensorContext) -> None:
    """POST a record as JSON; a webhook that does not answer, or not in HTTP, is logged, the record on disk stays.

    Args:
        url: http or https.
        record: with `run_id`.
        context: of the sensor, for its log.
    """
    body = json.dumps(record).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 (the operator's own)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 (http and https only, see above)
            context.log.info("the webhook answered %s", answer.status)
    except (OSError, HTTPException) as error:
        context.log.error("the webhook could not be told of %s: %s", record["run_id"], error)  # noqa: TRY400 (no traceback)
