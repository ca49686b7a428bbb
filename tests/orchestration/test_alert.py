"""A run that fails leaves a record and tells whoever asked."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import dagster as dg
import pytest

from ctinterp_dagster.orchestration.alert import build_failure_sensor
from ctinterp_dagster.orchestration.settings import Alert


@dg.op
def broken() -> None:
    raise ValueError("the disk is full")


@dg.job
def a_broken_job() -> None:
    broken()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Hook(BaseHTTPRequestHandler):
    """Keeps what it was sent."""

    told: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def failed(root: Path, webhook: str, instance: dg.DagsterInstance) -> dict[str, object]:
    """The record of a run that failed."""
    result = a_broken_job.execute_in_process(instance=instance, raise_on_error=False)
    event = next(e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs", dagster_instance=instance, dagster_run=result.dagster_run, dagster_event=event
    ).for_run_failure()
    build_failure_sensor(root, Alert(folder="failures", webhook=webhook))(context)
    return json.loads((root / "failures" / f"{result.run_id}.json").read_text())


def test_a_failed_run_leaves_a_record_and_tells_the_webhook(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        record = failed(tmp_path, f"http://127.0.0.1:{server.server_port}/", instance)
        server.shutdown()
    assert record["job"] == "a_broken_job"
    assert "ValueError: the disk is full" in record["steps"]["broken"]
    assert Hook.told == [record]


def test_a_webhook_that_does_not_answer_does_not_lose_the_record(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert failed(tmp_path, "http://127.0.0.1:9/", instance)["job"] == "a_broken_job"


def test_a_webhook_that_hangs_up_does_not_lose_the_record(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    def hang_up() -> None:
        server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, daemon=True).start()
        port = server.getsockname()[1]
        assert failed(tmp_path, f"http://127.0.0.1:{port}/", instance)["job"] == "a_broken_job"
