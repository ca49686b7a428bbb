"""What the pipeline costs beside its own work: `python benchmarks/pipeline.py [--scans 1000]`, results as JSON lines.

A copy of the project is made in a temporary folder, with small simulated scans (24 slices of 16 x 16) in data/raw, of
which eight are for validation and eight for testing, and the smoke preset. Times are wall clock; CPU seconds, of the
child processes, stand beside them, because a busy machine stretches the first and not the second.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ctinterp_dagster.cli.preset import PRESETS, override
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.phantom import phantom

ROOT = Path(__file__).parent.parent
HELD_OUT = 8  # scans each for validation and for testing
SMALL = {"expect": {"slab_zyx": [4, 16, 16]}}  # than a scan
TRACK = (sys.executable, "-c", "from ctinterp_dagster.cli.main import main; main()", "scans", "add")
BEFORE_TRAINING = ("ingest", "thicken", "encode")
IMPORT = "import sys; import ctinterp_dagster.definitions; assert 'torch' not in sys.modules"
MATERIALIZE = """
import sys, dagster as dg
from ctinterp_dagster.definitions import defs
with dg.DagsterInstance.get() as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in sys.argv[1:]]
    assert job.execute_in_process(instance=instance, asset_selection=keys).success
"""


@contextmanager
def measured(what: str, **about: Any) -> Iterator[None]:
    """Print the wall and CPU seconds of a block as one JSON line."""
    cpu, wall = cpu_s(), time.perf_counter()
    yield
    spent = {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(cpu_s() - cpu, 2)}
    print(json.dumps({"what": what, **about, **spent}), flush=True)


def cpu_s() -> float:
    """CPU seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(root: Path, *command: str) -> None:
    """Run a Python module or command in the project."""
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "DAGSTER_HOME": str(root / ".dagster"),
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def project(root: Path, scans: int) -> Callable[[int], None]:
    """Make the copy with its scans; what adds one more."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    (root / "dvc.lock").unlink(missing_ok=True)
    values = yaml.safe_load((root / "params.yaml").read_text())
    override(values, yaml.safe_load((PRESETS / "smoke.yaml").read_text()))
    override(values, SMALL)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    for command in (("git", "init", "-q"), ("git", "add", "-A"), ("git", "commit", "-qm", "begin")):
        run(root, *command)
    (root / ".dagster").mkdir()
    shutil.copy(root / "dagster.yaml", root / ".dagster")
    body = phantom(0, shape_zyx=(24, 16, 16), spacing_mm=(1.0, 10.0, 10.0), noise_hu=0.0)

    def add(number: int) -> None:
        noise = np.random.default_rng(number).normal(0, 10, body.hu.shape).astype(np.float32)
        write_volume(body.with_hu(body.hu + noise), root / place(number))

    for number in range(scans):
        add(number)
    rows = [listed(number) for number in range(scans + 1)]
    write_csv(root / "data" / "raw" / "scans.csv", rows, list(rows[0]))
    run(root, *TRACK)
    return add


def listed(number: int) -> dict[str, str]:
    """The row of a scan in scans.csv."""
    split = ("val" if number < HELD_OUT else "test") if number < 2 * HELD_OUT else "train"
    return {"file": f"{number:05d}.nii", "patient": f"p{number}", "split": split}


def place(number: int) -> str:
    """Where a scan lies."""
    return f"data/raw/{number:05d}.nii"


def benchmark(root: Path, scans: int) -> None:
    """Everything that the page reports, for one number of scans."""
    add = project(root, scans)
    dvc, python = (sys.executable, "-m", "dvc"), (sys.executable, "-c")
    with measured("import the definitions", scans=scans):
        run(root, *python, IMPORT)
    with measured("first run up to encode, dvc repro", scans=scans):
        run(root, *dvc, "repro", *BEFORE_TRAINING)
    with measured("first run of the rest, dvc repro", scans=scans):
        run(root, *dvc, "repro")
    with measured("nothing to do, dvc repro", scans=scans):
        run(root, *dvc, "repro")
    with measured("dvc status", scans=scans):
        run(root, *dvc, "status")
    stages = list(yaml.safe_load((root / "dvc.yaml").read_text())["stages"])
    with measured("nothing to do, all stages in Dagster", scans=scans, stages=len(stages)):
        run(root, *python, MATERIALIZE, *stages)
    with measured("nothing to do, one stage in Dagster", scans=scans):
        run(root, *python, MATERIALIZE, "thicken")
    with measured("nothing to do, the same stage, dvc repro --single-item", scans=scans):
        run(root, *dvc, "repro", "--single-item", "thicken")
    add(scans)
    with measured("one scan more, scans add and dvc repro --single-item", scans=scans, stages=BEFORE_TRAINING):
        run(root, *TRACK)
        run(root, *dvc, "repro", "--single-item", *BEFORE_TRAINING)
    few(root, scans)
    with measured("three scans from nothing, dvc repro --single-item", stages=BEFORE_TRAINING):
        run(root, *dvc, "repro", "--single-item", *BEFORE_TRAINING)


def few(root: Path, number: int) -> None:
    """Leave one scan each to train, validate and test, and nothing that was made of any."""
    kept = [0, HELD_OUT, number]
    for other in set(range(number)) - set(kept):
        (root / place(other)).unlink()
    write_csv(root / "data" / "raw" / "scans.csv", [listed(n) for n in kept], list(listed(number)))
    run(root, *TRACK)
    for stage in BEFORE_TRAINING:
        shutil.rmtree(root / "data" / stage)


def main() -> None:
    """Measure for each number of scans that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1000])
    for scans in parser.parse_args().scans:
        with tempfile.TemporaryDirectory() as folder:
            benchmark(Path(folder), scans)


if __name__ == "__main__":
    main()
