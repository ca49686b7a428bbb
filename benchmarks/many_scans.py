"""What the number of scans costs ingest and DVC, whatever their size; run by hand, in the root.

    python -m benchmarks.many_scans 1000 2000 10000

Scans are noise of 20x16x16, as many patients, in a temporary project; what a scan of real size costs more is in
`benchmarks/scale.py`, and what training costs in `benchmarks/many_volumes.py`. Each step is a process of its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import yaml

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.volume import Volume

SHAPE = (20, 16, 16)
STAGE = {"cmd": "true", "deps": ["data/raw"], "outs": [{"data/ingest": {"persist": True}}]}
INGEST = """
from pathlib import Path
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import load_params
from ctinterp_dagster.pipeline import ingest
ingest.run(load_params(Path("params.yaml")), Layout(Path()))
"""
DVC = [sys.executable, "-m", "dvc"]
STEPS = {
    "dvc add, which hashes data/raw": [*DVC, "add", "-q", "data/raw"],
    "ingest": [sys.executable, "-c", INGEST],
    "ingest, nothing changed": [sys.executable, "-c", INGEST],
    "dvc repro, which hashes data/ingest": [*DVC, "repro", "-q"],
    "dvc repro, nothing changed": [*DVC, "repro", "-q"],
    "dvc status, nothing changed": [*DVC, "status", "-q"],
}


def make(layout: Layout, count: int) -> None:
    """Write so many scans as a user drops them, and what names their patients."""
    layout.raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [{"file": f"scan-{n:05d}.nii", "patient": f"patient-{n:05d}", "split": ""} for n in range(count)]
    for row in rows:
        hu = rng.integers(-1000, 1000, SHAPE).astype(np.float32)
        write_volume(Volume(hu, (1.0, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3)), layout.raw / row["file"])
    write_csv(layout.raw / "scans.csv", rows, list(rows[0]))
    layout.params.write_bytes(Path("params.yaml").read_bytes())
    layout.pipeline.write_text(yaml.safe_dump({"stages": {"ingest": STAGE}}))


def cost(command: list[str], root: Path) -> str:
    """Seconds, CPU seconds, and peak MiB of a command, as the cells of a table.

    Args:
        command: the program and its arguments.
        root: of the project, where it runs.

    Returns:
        The three cells, with bars between.

    Raises:
        ClickException: the command fails.
    """
    folders = {name: str(root / ".dvc" / "tmp" / name) for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR")}
    known = {"PYTHONPATH": str(Path.cwd()), "DVC_NO_ANALYTICS": "1", **folders}
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=root, env=os.environ | known, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"{' '.join(command[-2:])} ended with status {status}")
    seconds = time.monotonic() - start
    return f"{seconds:.1f} | {usage.ru_utime + usage.ru_stime:.1f} | {usage.ru_maxrss / 1024:.0f}"


@click.command
@click.argument("counts", nargs=-1, type=int, required=True)
def main(counts: tuple[int, ...]) -> None:
    """Print a table, a row for each step and number of scans."""
    click.echo("| step | scans | s | CPU s | MiB at most |\n|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make(Layout(root), count)
            cost([*DVC, "init", "--no-scm", "-q"], root)
            for step, command in STEPS.items():
                click.echo(f"| {step} | {count:,} | {cost(command, root)} |")


if __name__ == "__main__":
    main()
