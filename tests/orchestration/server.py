"""Dagster's server in a folder, asked through GraphQL, and a browser that looks at it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASSETS = "{assetNodes{assetKey{path} staleStatus assetMaterializations(limit:1){runId}}}"
LOCATIONS = "{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}"
REPOSITORY = "{repositoriesOrError{... on RepositoryConnection{nodes{name location{name}}}}}"
LAUNCH = """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams:$p){
    ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}"""
TERMINATE = "mutation($r: String!){terminateRun(runId:$r){__typename}}"
STATUS = "query($r: ID!){runOrError(runId:$r){... on Run{status}}}"
ERRORS = """query($r: ID!){logsForRun(runId:$r){... on EventConnection{events{
    ... on ExecutionStepFailureEvent{stepKey error{message}}}}}}"""
RUNS = "query($j: String!){runsOrError(filter:{pipelineName:$j}){... on Runs{results{runId status tags{key value}}}}}"
START_SENSOR = """mutation($s: SensorSelector!){startSensor(sensorSelector:$s){
    ... on Sensor{name} ... on PythonError{message}}}"""
START_SCHEDULE = """mutation($s: ScheduleSelector!){startSchedule(scheduleSelector:$s){
    ... on ScheduleStateResult{scheduleState{status}} ... on PythonError{message}}}"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)


class Server:
    """`dg dev` in a project, or `dagster dev` with the definitions of a file."""

    def __init__(self, root: Path, *definitions: str, **environment: str) -> None:
        self.root, self.port = root, free_port()
        program = Path(sys.executable).with_name("dagster" if definitions else "dg")
        command = [program, "dev", *definitions, "--host", "127.0.0.1", "--port", str(self.port)]
        with (root.parent / "dev.log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            record = json.load(answer)
        assert "errors" not in record, record
        return record["data"]

    def loaded(self) -> bool:
        assert self.process.poll() is None, (self.root.parent / "dev.log").read_text()
        try:
            entries = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        kinds = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
        assert "PythonError" not in kinds, (self.root.parent / "dev.log").read_text()
        return kinds == ["RepositoryLocation"]

    def assets(self) -> dict[str, Any]:
        return {"/".join(node["assetKey"]["path"]): node for node in self.ask(ASSETS)["assetNodes"]}

    def stale(self) -> set[str]:
        return {key for key, node in self.assets().items() if node["staleStatus"] != "FRESH"}

    def repository(self) -> dict[str, str]:
        node = self.ask(REPOSITORY)["repositoriesOrError"]["nodes"][0]
        return {"repositoryLocationName": node["location"]["name"], "repositoryName": node["name"]}

    def launch(self, job: str, *assets: str) -> str:
        """Start a run of a job, or of some of its assets; its id."""
        chosen = {"assetSelection": [{"path": key.split("/")} for key in assets]} if assets else {}
        selector = self.repository() | {"jobName": job} | chosen
        answer = self.ask(LAUNCH, p={"selector": selector, "mode": "default", "runConfigData": {}})
        assert "run" in answer["launchPipelineExecution"], answer
        return str(answer["launchPipelineExecution"]["run"]["runId"])

    def status(self, run: str) -> str:
        return str(self.ask(STATUS, r=run)["runOrError"]["status"])

    def finish(self, run: str, seconds: float = 1800) -> None:
        """Wait until a run has succeeded; its errors if it does not."""
        wait_for(lambda: self.status(run) in {"SUCCESS", "FAILURE", "CANCELED"}, seconds)
        errors = [event for event in self.ask(ERRORS, r=run)["logsForRun"]["events"] if event]
        assert self.status(run) == "SUCCESS", errors

    def runs(self, job: str) -> list[dict[str, Any]]:
        return list(self.ask(RUNS, j=job)["runsOrError"]["results"])

    def start_sensor(self, name: str) -> None:
        answer = self.ask(START_SENSOR, s=self.repository() | {"sensorName": name})["startSensor"]
        assert answer == {"name": name}

    def start_schedule(self, name: str) -> None:
        answer = self.ask(START_SCHEDULE, s=self.repository() | {"scheduleName": name})["startSchedule"]
        assert answer == {"scheduleState": {"status": "RUNNING"}}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
