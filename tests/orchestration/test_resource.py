"""Stages as processes: ended with the run, waiting for each other, never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dvc.repo import Repo

from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets, invocation

Edit = Callable[[DvcProject, str, str, str], None]
Shell = Callable[..., str]

GUARD = Path(invocation.__file__).with_name("guard.py")

# A stage of three processes, the last of which does not listen to SIGTERM.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path("stubborn").touch()
    time.sleep(60)
child = subprocess.Popen([sys.executable, __file__, "child"])
while not pathlib.Path("stubborn").exists():
    time.sleep(0.01)
pathlib.Path("pid").write_text(str(child.pid))  # from here: inside Popen all signals are blocked, SIGTERM waits there
child.wait()
"""

DRIVER = """
import pathlib, sys, dagster as dg
from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets
project = DvcProject.at(pathlib.Path.cwd())
dg.materialize(
    build_dvc_assets(project),
    resources={"dvc": DvcCliResource(project_dir=str(project.root), grace_s=0.5)},
    selection=[dg.AssetKey("prepare")],
)
"""


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def pid_in(file: Path) -> int:
    wait_for(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_guard_passes_on_the_exit_code_and_the_output() -> None:
    with subprocess.Popen(
        [sys.executable, GUARD, "1", sys.executable, "-c", "print('said'); raise SystemExit(7)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as guard:
        assert guard.stdout.read() == "said\n"
        assert guard.wait() == 7


def test_the_guard_ends_a_stubborn_grandchild_when_its_holder_lets_go(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    guard = subprocess.Popen(
        [sys.executable, GUARD, "2", sys.executable, "stubborn.py"], cwd=tmp_path, stdin=subprocess.PIPE
    )
    grandchild = pid_in(tmp_path / "pid")
    assert alive(grandchild)
    guard.stdin.close()
    assert guard.wait() - 128 in (signal.SIGTERM, signal.SIGKILL)  # a machine may be too busy to end it in the grace
    wait_for(lambda: not alive(grandchild))


def test_the_guard_asks_first_even_where_its_starter_ignores_what_it_asks_with(tmp_path: Path) -> None:
    wait = "import pathlib, time; pathlib.Path('pid').write_text('1'); time.sleep(600)"
    guard = subprocess.Popen(
        [sys.executable, GUARD, "60", sys.executable, "-c", wait],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),  # noqa: PLW1509 (what a shell does)
    )
    pid_in(tmp_path / "pid")
    guard.stdin.close()
    assert guard.wait() == 128 + signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_ending_the_run_ends_the_stage_and_leaves_the_project_usable(
    end: signal.Signals, toy: DvcProject, shell: Shell
) -> None:
    (toy.root / "prepare.py").write_text(STUBBORN)
    environment = os.environ | {"PYTHONPATH": str(Path(invocation.__file__).parents[3])}
    run = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=toy.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stage = pid_in(toy.root / "pid")
    run.send_signal(end)
    run.wait(60)
    assert run.returncode != 0
    wait_for(lambda: not alive(stage))
    shell(toy.root, "git", "checkout", "-q", "prepare.py")
    shell(toy.root, "dvc", "repro", "-q")
    with Repo(str(toy.root)) as repo:
        assert repo.status() == {}


@pytest.mark.slow
def test_a_stage_that_another_dvc_uses_waits_and_says_who_uses_it(
    toy: DvcProject, edit: Edit, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(invocation, "_BUSY_WAIT_S", 0.2)
    edit(
        toy, "prepare.py", "import pathlib", "import time; open('started', 'w').close(); time.sleep(4); import pathlib"
    )
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "prepare"], cwd=toy.root)
    wait_for((toy.root / "started").exists)
    result = dg.materialize(
        build_dvc_assets(toy),
        resources={"dvc": DvcCliResource(project_dir=str(toy.root))},
        selection=[dg.AssetKey("prepare")],
    )
    assert other.wait() == 0
    assert result.asset_materializations_for_node("prepare")[0].metadata["dvc/ran"].value is False
    assert f"prepare waits: its files are in use by (PID {other.pid}): " in capfd.readouterr().err


@pytest.mark.slow
def test_a_stage_that_stays_in_use_fails_with_the_name_of_its_user(toy: DvcProject, edit: Edit) -> None:
    edit(
        toy, "prepare.py", "import pathlib", "import time; open('started', 'w').close(); time.sleep(60); import pathlib"
    )
    other = subprocess.Popen(
        [sys.executable, GUARD, "0", sys.executable, "-m", "dvc", "repro", "-q", "prepare"],
        cwd=toy.root,
        stdin=subprocess.PIPE,
    )
    wait_for((toy.root / "started").exists)
    result = dg.materialize(
        build_dvc_assets(toy),
        resources={"dvc": DvcCliResource(project_dir=str(toy.root), busy_timeout_s=0)},
        selection=[dg.AssetKey("prepare")],
        raise_on_error=False,
    )
    other.stdin.close()
    other.wait(10)
    failure = result.failure_data_for_node("prepare").user_failure_data
    assert failure.description.startswith("prepare did not run: for 0 s its files were in use by (PID ")


def test_every_line_of_a_stage_is_a_log_event(toy: DvcProject, edit: Edit, capfd: pytest.CaptureFixture[str]) -> None:
    edit(toy, "prepare.py", "import pathlib", "print('step=1 loss=0.5')\nimport pathlib")
    dg.materialize(
        build_dvc_assets(toy),
        resources={"dvc": DvcCliResource(project_dir=str(toy.root))},
        selection=[dg.AssetKey("prepare")],
    )
    assert "prepare - step=1 loss=0.5" in capfd.readouterr().err


def test_what_dvc_advises_at_a_terminal_is_not_logged(toy: DvcProject, capfd: pytest.CaptureFixture[str]) -> None:
    (toy.root / "dvc.lock").unlink()
    dg.materialize(
        build_dvc_assets(toy),
        resources={"dvc": DvcCliResource(project_dir=str(toy.root))},
        selection=[dg.AssetKey("prepare")],
    )
    logged = capfd.readouterr().err
    assert "prepare - Generating lock file 'dvc.lock'" in logged
    assert not any(word in logged for word in ("track the changes", "git add", "autostage", "dvc push"))


def test_a_stage_runs_with_the_python_that_runs_dagster(
    toy: DvcProject, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if ".venv" not in p))
    edit(toy, "prepare.py", "import pathlib", "import sys; open('python', 'w').write(sys.prefix)\nimport pathlib")
    dg.materialize(
        build_dvc_assets(DvcProject.at(toy.root)),
        resources={"dvc": DvcCliResource(project_dir=str(toy.root))},
        selection=[dg.AssetKey("prepare")],
    )
    assert (toy.root / "python").read_text() == sys.prefix
