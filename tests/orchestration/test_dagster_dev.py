"""The toy project in `dagster dev`, with the instance file of the checkout: what an operator sees."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctinterp_dagster.orchestration.dvc import DvcProject

Edit = Callable[[DvcProject, str, str, str], None]
Shell = Callable[..., str]

CHECKOUT = Path(__file__).parents[2]

ASSETS = "{assetNodes{assetKey{path} staleStatus assetMaterializations(limit:1){runId}}}"
LOCATIONS = "{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}"
REPOSITORY = "{repositoriesOrError{... on RepositoryConnection{nodes{name location{name}}}}}"
LAUNCH = """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams:$p){
    ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}"""
TERMINATE = "mutation($r: String!){terminateRun(runId:$r){__typename}}"
STATUS = "query($r: ID!){runOrError(runId:$r){... on Run{status}}}"


class Server:
    """`dagster dev` in a folder, asked through GraphQL."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["dev", "-m", "ctinterp_dagster.definitions", "-h", "127.0.0.1", "-p", str(self.port)]
        with (root.parent / "dev.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dagster", *command],
                cwd=root,
                env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
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
        try:
            entries = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        kinds = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
        assert "PythonError" not in kinds
        return kinds == ["RepositoryLocation"]

    def assets(self) -> dict[str, Any]:
        return {"/".join(node["assetKey"]["path"]): node for node in self.ask(ASSETS)["assetNodes"]}

    def stale(self) -> set[str]:
        return {key for key, node in self.assets().items() if node["staleStatus"] != "FRESH"}

    def launch(self, job: str) -> str:
        repository = self.ask(REPOSITORY)["repositoriesOrError"]["nodes"][0]
        selector = {
            "repositoryLocationName": repository["location"]["name"],
            "repositoryName": repository["name"],
            "jobName": job,
        }
        answer = self.ask(LAUNCH, p={"selector": selector, "mode": "default", "runConfigData": {}})
        return str(answer["launchPipelineExecution"]["run"]["runId"])

    def status(self, run: str) -> str:
        return str(self.ask(STATUS, r=run)["runOrError"]["status"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)


@pytest.fixture
def server(toy: DvcProject, edit: Edit) -> Iterator[Server]:
    edit(toy, "dvc.yaml", "  score:", "  report:")
    shutil.copy(CHECKOUT / "dagster.yaml", toy.root)
    running = Server(toy.root)
    try:
        wait_for(running.loaded)
        yield running
    finally:
        running.stop()


@pytest.mark.slow
def test_an_operator_sees_runs_outside_edits_and_ends_a_run(
    server: Server, toy: DvcProject, edit: Edit, shell: Shell
) -> None:
    wait_for(lambda: server.stale() == {"report"})  # its lock entry has the old name
    shell(toy.root, "dvc", "repro", "-q")
    wait_for(lambda: server.stale() == set())

    edit(toy, "params.yaml", "rate: 0.5", "rate: 0.25")
    wait_for(lambda: server.stale() == {"fit/a", "fit/b"})  # the definitions were loaded again, by themselves
    run = server.launch("repro_all")
    wait_for(lambda: server.status(run) in {"SUCCESS", "FAILURE"})
    assert server.status(run) == "SUCCESS"
    wait_for(lambda: server.stale() == set())
    assert {
        node["assetMaterializations"][0]["runId"] for key, node in server.assets().items() if key != "data/raw.csv"
    } == {run}

    edit(
        toy,
        "prepare.py",
        "import pathlib",
        "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)",
    )
    run = server.launch("repro_all")
    wait_for(lambda: (toy.root / "pid").exists() and (toy.root / "pid").read_text())
    server.ask(TERMINATE, r=run)
    wait_for(lambda: server.status(run) == "CANCELED")
    pid = (toy.root / "pid").read_text()
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    shell(toy.root, "git", "checkout", "-q", "prepare.py")
    shell(toy.root, "dvc", "repro", "-q")
