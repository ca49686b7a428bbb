"""Dagster as deploy/dagster.yaml sets it up: history in Postgres, two code servers, one DVC writer at a time."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.deploy.conftest import Shell, surroundings

DEPLOY = Path(__file__).parents[2] / "deploy"
BINARIES = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
SERVERS = ("left", "right")
PASSWORD = "of-the-test"

STAGE = """
import time
with open({log!r}, "a") as log:
    log.write(f"begin {{time.time()}}\\n")
    log.flush()
    time.sleep(4)
    log.write(f"end {{time.time()}}\\n")
open("made", "w").write("made")
"""
STAGES = "stages: {make: {cmd: python make.py, deps: [make.py], outs: [made], meta: {dagster: {pool: dvc}}}}"
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets
project = DvcProject.at(Path.cwd())
defs = dg.Definitions(
    assets=build_dvc_assets(project),
    jobs=[dg.define_asset_job("everything", dg.AssetSelection.all())],
    resources={"dvc": DvcCliResource(project_dir=str(project.root))},
)
"""
LAUNCH = """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams:$p){
    __typename ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}"""
STATES = "{runsOrError{... on Runs{results{status}}}}"
LOADED = "{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


@contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[Path]:
    """A server in the background; its log."""
    log = folder / f"{command[0]}-{time.monotonic_ns()}.log"
    environment = os.environ | surroundings(folder) | variables
    with log.open("w") as handle:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=handle, stderr=handle)
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def postgres() -> Iterator[dict[str, str]]:
    """A Postgres server of Debian's, as an ordinary user; the variables that deploy/dagster.yaml reads."""
    folder, port = Path(f"/tmp/ctinterp-postgres-{os.getpid()}"), str(free_port())
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    user = []
    if os.geteuid() == 0:
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    binaries = BINARIES[0]
    make = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "dagster", "-A", "scram-sha-256",
            "--pwfile", str(folder / "password"), "--no-sync"]  # fmt: skip
    subprocess.run([*user, *make], cwd=folder, check=True, capture_output=True)
    control = [*user, str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    start = [*control, "-l", str(folder / "log"), "-o", options, "start"]
    subprocess.run(start, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    try:
        variables = {"HOST": "127.0.0.1", "PORT": port, "USER": "dagster", "PASSWORD": PASSWORD, "DB": "postgres"}
        yield {f"DAGSTER_POSTGRES_{name}": value for name, value in variables.items()}
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)


def ask(port: int, query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def all_loaded(port: int) -> bool:
    try:
        entries = ask(port, LOADED)["workspaceOrError"]["locationEntries"]
    except OSError:
        return False
    kinds = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    assert "PythonError" not in kinds
    return kinds == ["RepositoryLocation"] * len(SERVERS)


def launch(port: int, location: str) -> None:
    selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "jobName": "everything"}
    answer = ask(port, LAUNCH, p={"selector": selector, "mode": "default", "runConfigData": {}})
    assert answer["launchPipelineExecution"]["__typename"] == "LaunchRunSuccess", answer


def code_server(folder: Path, shell: Shell, log: Path, port: int, variables: dict[str, str]) -> Any:
    """A checkout of its own with a code server of its own: DVC's lock does not reach from one to the other."""
    folder.mkdir()
    shell(folder, "git", "init", "--quiet")
    shell(folder, "dvc", "init", "--quiet")
    (folder / "make.py").write_text(STAGE.format(log=str(log)))
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "definitions.py").write_text(DEFINITIONS)
    command = ["dagster", "api", "grpc", "-f", "definitions.py", "-h", "127.0.0.1", "-p", str(port)]
    return running([*command, "--location-name", folder.name], folder, **variables)


@pytest.mark.slow
@pytest.mark.skipif(not BINARIES, reason="needs Debian's postgresql")
def test_runs_of_two_code_servers_take_turns_at_dvc_and_their_history_is_in_postgres(
    postgres: dict[str, str], tmp_path: Path, shell: Shell
) -> None:
    home, log = tmp_path / "home", tmp_path / "turns"
    home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", home)
    ports = {name: free_port() for name in SERVERS}
    entries = [{"grpc_server": {"host": "127.0.0.1", "port": p, "location_name": n}} for n, p in ports.items()]
    (home / "workspace.yaml").write_text(json.dumps({"load_from": entries}))
    variables = postgres | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(DEPLOY.parent)}
    web = free_port()
    workspace = ["-w", str(home / "workspace.yaml")]
    left, right = (code_server(tmp_path / n, shell, log, ports[n], variables) for n in SERVERS)
    with left, right:
        wait_for(lambda: all(answers(port) for port in ports.values()))  # as compose.yaml's depends_on
        with (
            running(["dagster-webserver", "-h", "127.0.0.1", "-p", str(web), *workspace], home, **variables),
            running(["dagster-daemon", "run", *workspace], home, **variables),
        ):
            wait_for(lambda: all_loaded(web))
            for name in SERVERS:
                launch(web, name)

            def states() -> list[str]:
                return [run["status"] for run in ask(web, STATES)["runsOrError"]["results"]]

            wait_for(lambda: set(states()) <= {"SUCCESS", "FAILURE"})
            assert states() == ["SUCCESS"] * len(SERVERS)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["begin", "end"] * len(SERVERS)
    assert [(tmp_path / name / "made").read_text() for name in SERVERS] == ["made"] * len(SERVERS)
    with psycopg2.connect(
        host="127.0.0.1", port=postgres["DAGSTER_POSTGRES_PORT"], user="dagster", password=PASSWORD, dbname="postgres"
    ) as connection, connection.cursor() as cursor:  # fmt: skip
        cursor.execute("select status from runs")
        assert cursor.fetchall() == [("SUCCESS",)] * len(SERVERS)
