"""What moves while DVC records a stage is not taken for what the stage read."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctinterp_dagster.errors import MovedInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.stage_inputs import WITHDRAWN, being_recorded, inputs_of, outputs_of, unmoved, withdraw_if_moved
from tests.shell import shell

STAGE = """
import time
from pathlib import Path
from ctinterp_dagster.stage_inputs import unmoved
from ctinterp_dagster.layout import Layout
with unmoved(Layout(Path()), "thicken", time.time_ns()):
    Path("data/thicken").mkdir(exist_ok=True)
    Path("data/thicken/made").write_text(Path("data/ingest/scan").read_text())
"""
PIPELINE = """
stages:
  thicken:
    cmd: {command}
    deps: [data/ingest]
    params: [thicken]
    outs: [data/thicken: {{persist: true}}, made.json: {{cache: false, persist: true}}]
"""
RECORDED = "python stage.py && touch made.json"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """One stage, which copies what it reads."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    layout = Layout(tmp_path)
    (tmp_path / "data" / "ingest").mkdir(parents=True)
    (tmp_path / "data" / "ingest" / "scan").write_text("old")
    (tmp_path / "stage.py").write_text(STAGE)
    layout.params.write_text("{thicken: {factor: 5}}")
    layout.pipeline.write_text(PIPELINE.format(command=RECORDED))
    return layout


def repro(layout: Layout) -> str:
    """Run `dvc repro` until it and whatever it started are gone; what they said."""
    root = Path(__file__).parent.parent
    variables = os.environ | {
        "PYTHONPATH": str(root),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=layout.root,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_dvc_does_not_record_what_came_after_the_stage(project: Layout) -> None:
    """The stage has ended and looked for the last time; then a scan is replaced; then DVC hashes."""
    late = f"{RECORDED} && echo new > data/ingest/scan"
    project.pipeline.write_text(PIPELINE.format(command=late))
    shell(project.root, "dvc", "init", "--no-scm", "--quiet")
    said = repro(project)
    assert "inputs of thicken moved while DVC recorded it: run `dvc repro` again" in said
    assert (project.root / "data/thicken/made").read_text() == "old"
    assert "changed outs" in shell(project.root, "dvc", "status")
    project.pipeline.write_text(PIPELINE.format(command=RECORDED))
    assert "moved" not in repro(project)
    assert (project.root / "data/thicken/made").read_text() == "new\n"
    assert not (project.root / "data/thicken" / WITHDRAWN).exists()
    assert "up to date" in shell(project.root, "dvc", "status")


def hold(layout: Layout, process: int) -> Path:
    """Write DVC's table of who holds which output."""
    table = layout.root / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True)
    holder = {"pid": process, "cmd": "dvc repro"}
    table.write_text(json.dumps({"write": {str(layout.root / "data/thicken"): holder}, "read": {}}))
    return table


def test_a_stage_is_recorded_while_a_living_process_holds_its_output(project: Layout) -> None:
    assert not being_recorded(project, outputs_of(project, "thicken"))
    table = hold(project, os.getpid())
    assert being_recorded(project, outputs_of(project, "thicken"))
    table.write_text('{"write": ')
    assert being_recorded(project, outputs_of(project, "thicken"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    table.parent.joinpath("rwlock").unlink()
    table.parent.rmdir()
    hold(project, ended.pid)
    assert not being_recorded(project, outputs_of(project, "thicken"))


def test_outputs_stay_where_nothing_moved(project: Layout) -> None:
    (project.root / "data" / "thicken").mkdir()
    (project.root / "made.json").touch()
    seen = inputs_of(project, "thicken")
    assert withdraw_if_moved(project, "thicken", seen) == []
    assert not (project.root / "data" / "thicken" / WITHDRAWN).exists()
    project.params.write_text("{thicken: {factor: 4}}")
    assert withdraw_if_moved(project, "thicken", seen) == ["params.yaml: thicken"]
    assert (project.root / "data" / "thicken" / WITHDRAWN).exists()
    assert not (project.root / "made.json").exists()


def test_code_that_is_written_while_a_stage_loads_it_has_moved(project: Layout) -> None:
    (project.root / "data" / "ingest" / "code.py").touch()
    with unmoved(project, "thicken", loaded_ns=time.time_ns()):
        pass
    with (
        pytest.raises(MovedInputError, match=r"data/ingest/code.py changed while thicken ran"),
        unmoved(project, "thicken", loaded_ns=time.time_ns() - 10**12),
    ):
        pass


def test_code_has_not_moved_where_the_clock_went_back_after_it_was_written(
    project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "data" / "ingest" / "code.py").touch()
    year_ago_ns = time.time_ns() - 365 * 24 * 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: year_ago_ns + 10**9)
    with unmoved(project, "thicken", loaded_ns=year_ago_ns):
        pass
