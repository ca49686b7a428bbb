"""The toy project in `dagster dev`, with the instance file of the checkout: what an operator sees."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctinterp_dagster.orchestration.dvc import DvcProject
from tests.orchestration.server import TERMINATE, Server, wait_for

Edit = Callable[[DvcProject, str, str, str], None]
Shell = Callable[..., str]

CHECKOUT = Path(__file__).parents[2]
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets, build_dvc_sensor
project = DvcProject.at(Path.cwd())
defs = dg.Definitions(
    assets=build_dvc_assets(project),
    jobs=[dg.define_asset_job("all_stages")],
    sensors=[build_dvc_sensor(project)],
    resources={"dvc": DvcCliResource(project_dir=str(project.root))},
    executor=dg.in_process_executor,
)
"""


@pytest.fixture
def server(toy: DvcProject, edit: Edit) -> Iterator[Server]:
    edit(toy, "dvc.yaml", "  score:", "  report:")
    shutil.copy(CHECKOUT / "dagster.yaml", toy.root)
    (toy.root.parent / "toy_definitions.py").write_text(DEFINITIONS)
    running = Server(toy.root, "-f", str(toy.root.parent / "toy_definitions.py"), PYTHONPATH=str(CHECKOUT))
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
    run = server.launch("all_stages")
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
    run = server.launch("all_stages")
    wait_for(lambda: (toy.root / "pid").exists() and (toy.root / "pid").read_text())
    server.ask(TERMINATE, r=run)
    wait_for(lambda: server.status(run) == "CANCELED")
    pid = (toy.root / "pid").read_text()
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    shell(toy.root, "git", "checkout", "-q", "prepare.py")
    shell(toy.root, "dvc", "repro", "-q")


@pytest.mark.slow
def test_a_run_keeps_the_next_one_waiting_to_its_end(server: Server, toy: DvcProject, edit: Edit) -> None:
    wait = "pathlib.Path('waits').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.1)"
    edit(toy, "score.py", "import base64, json, pathlib", f"import base64, json, pathlib, time\n{wait}")
    first = server.launch("all_stages")
    wait_for((toy.root / "waits").exists)  # in its last stage, which holds no slot of a pool
    second = server.launch("all_stages")

    def looks() -> int:
        return (toy.root.parent / "dev.log").read_text().count("won't launch more")

    seen = looks()
    wait_for(lambda: looks() > seen + 1 or server.status(second) != "QUEUED")
    assert server.status(second) == "QUEUED"
    (toy.root / "go").touch()
    for run in (first, second):
        server.finish(run)
