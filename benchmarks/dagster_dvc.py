"""What the Dagster-DVC library costs beside DVC.

    python -m benchmarks.dagster_dvc --files 1000 --against CHECKOUT

A project is made in a temporary folder: a tracked folder of files, and four stages in a row that each copy it. Measured
are reading the project, definitions from it and from a state, and a run of all stages that finds nothing to do, with a
step a stage and with a single one; beside them `dvc repro` of the same. JSON lines of wall and CPU seconds, children
included: of a process that looks at the project for the first time, then the median of what follows. With --against
another checkout of this repository is measured on the same project, in turns.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import dagster as dg

from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets

try:
    from ctinterp_dagster.orchestration.dvc.state import read_state, write_state
except ImportError:  # checkouts before states
    write_state = None

HERE = Path(__file__).resolve().parent.parent
STAGES = 4
COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"


def measure(what: str, act: Callable[[], Any], times: int) -> None:
    """Print the wall and CPU seconds of a call, as one JSON line."""
    wall_s, used_s = [], []
    for _ in range(times):
        cpu, wall = cpu_s(), time.perf_counter()
        act()
        wall_s.append(time.perf_counter() - wall)
        used_s.append(cpu_s() - cpu)
    spent = {"wall_s": round(statistics.median(wall_s), 2), "cpu_s": round(statistics.median(used_s), 3)}
    print(json.dumps({"what": what, **spent}), flush=True)


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make(root: Path, files: int) -> None:
    """The project, after `dvc repro`."""
    (root / "d0").mkdir()
    for number in range(files):
        (root / "d0" / f"{number}.txt").write_text(f"{number}\n")
    (root / "duplicate.py").write_text(COPY)
    stages = "".join(
        f"  s{n}: {{cmd: python duplicate.py d{n - 1} d{n}, deps: [duplicate.py, d{n - 1}], outs: [d{n}]}}\n"
        for n in range(1, STAGES + 1)
    )
    (root / "dvc.yaml").write_text(f"stages:\n{stages}")
    for command in ("init -q --no-scm", "add -q d0", "repro -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], cwd=root, check=True)


def look(root: Path, times: int) -> None:
    """Measure on a project that was made."""
    project = DvcProject(root)
    resources = {"dvc": DvcCliResource(project_dir=str(root))}

    def definitions(index: Any = None) -> None:
        dg.Definitions(assets=build_dvc_assets(project, index=index), resources=resources).resolve_asset_graph()

    measure("definitions from the project, the first of a process", definitions, 1)
    measure("reading the project", project.read, times)
    measure("definitions from the project", definitions, times)
    index = project.read()
    if write_state:
        write_state(index, root / "state")
        measure("definitions from a state", lambda: definitions(read_state(root / "state")), times)
    with dg.DagsterInstance.ephemeral() as instance:
        for single_step in (False, True) if write_state else (False,):
            assets = build_dvc_assets(project, index=index, **({"single_step": True} if single_step else {}))
            measure(
                f"{'one step' if single_step else f'{STAGES} steps'}, nothing to do",
                lambda assets=assets: dg.materialize(assets, instance=instance, resources=resources),
                2,
            )
    repro = [sys.executable, "-m", "dvc", "repro", "-q"]
    measure("dvc repro, nothing to do", lambda: subprocess.run(repro, cwd=root, check=True), 2)


@click.command
@click.option("--files", default=1000, help="files in the tracked folder, and in each stage's output")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="another checkout")
@click.option("--rounds", default=2, help="processes of each checkout")
@click.option("--times", default=9, help="looks of a process")
@click.option("--project", type=click.Path(path_type=Path), help="measure on this one, in this process")
def main(files: int, against: Path | None, rounds: int, times: int, project: Path | None) -> None:
    """Measure."""
    if project:
        look(project, times)
        return
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), files)
        for checkout in [HERE, *([against.resolve()] if against else [])] * rounds:
            print(json.dumps({"checkout": checkout.name, "files": files}), flush=True)
            command = [sys.executable, __file__, "--project", folder, "--times", str(times)]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True)


if __name__ == "__main__":
    main()
