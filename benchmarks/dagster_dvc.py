"""What the Dagster-DVC library costs beside DVC: `python -m benchmarks.dagster_dvc [--files 1000]`, JSON lines.

A project is made in a temporary folder: a tracked folder of files, and four stages in a row that each copy it. Measured
are reading the project, definitions from it and from a state, and a run of all stages that finds nothing to do, with a
step a stage and with a single one; beside them `dvc repro` of the same. Wall clock and CPU seconds, children included.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import dagster as dg

from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets
from ctinterp_dagster.orchestration.dvc.state import read_state, write_state

STAGES = 4
COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"


@contextmanager
def measured(what: str, files: int) -> Iterator[None]:
    """Print the wall and CPU seconds of a block as one JSON line."""
    cpu, wall = cpu_s(), time.perf_counter()
    yield
    spent = {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(cpu_s() - cpu, 2)}
    print(json.dumps({"what": what, "files": files, **spent}), flush=True)


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


@click.command
@click.option("--files", default=1000, help="files in the tracked folder, and in each stage's output")
def main(files: int) -> None:
    """Measure."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        project = DvcProject(Path(folder))
        make(project.root, files)
        resources = {"dvc": DvcCliResource(project_dir=folder)}
        project.read()
        with measured("reading the project", files):
            index = project.read()
        with measured("definitions from the project", files):
            dg.Definitions(assets=build_dvc_assets(project), resources=resources).resolve_asset_graph()
        write_state(index, project.root / "state")
        with measured("definitions from a state", files):
            assets = build_dvc_assets(project, index=read_state(project.root / "state"))
            dg.Definitions(assets=assets, resources=resources).resolve_asset_graph()
        with measured("dvc repro, nothing to do", files):
            subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=folder, check=True)
        for single_step in (False, True):
            with measured(f"{'one step' if single_step else f'{STAGES} steps'}, nothing to do", files):
                assets = build_dvc_assets(project, index=index, single_step=single_step)
                dg.materialize(assets, instance=instance, resources=resources)


if __name__ == "__main__":
    main()
