"""What an epoch of training costs of few scans of real size and of many; run by hand, in the root.

    python -m benchmarks.many_volumes 100 1000 10000

Scans are four volumes of noise of 250x512x512 (0.5 GiB), under as many names as told by hard links. An epoch draws as
many slabs as there are scans. Each number has a process of its own. Memory is that of the process without pages of
files, which the system takes back where it needs room.
"""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.params import load_params
from ctinterp_dagster.pipeline.common.cases import Case, write_cases
from ctinterp_dagster.pipeline.trainings.training import thin_volumes
from ctinterp_dagster.pipeline.trainings.warm_start import slab_settings
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.training.batches import seeded

SHAPE, DISTINCT = (250, 512, 512), 4


def make(layout: Layout, count: int) -> None:
    """Write so many scans as ingest does."""
    (layout.ingest / "volumes").mkdir(parents=True)
    rng = np.random.default_rng(0)
    cases = [Case(f"scan-{n:05d}", f"scan-{n:05d}", "train") for n in range(count)]
    for case in cases[:DISTINCT]:
        hu = rng.integers(-1000, 1000, SHAPE).astype(np.float32)
        write_volume(Volume(hu, (1.0, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3)), case.thin(layout))
    for number, case in enumerate(cases[DISTINCT:]):
        os.link(cases[number % DISTINCT].thin(layout), case.thin(layout))
    write_cases(layout.ingest / "cases.csv", cases)


def measure(layout: Layout, count: int) -> None:
    """Print memory and times of one process."""
    section = load_params(Path("params.yaml")).expect
    process, start = psutil.Process(), time.monotonic()
    slabs = ThickSlabs(thin_volumes(layout, "train"), slab_settings(section), section.batch_size)
    slabs.fingerprint()
    read_s, batches = time.monotonic() - start, count // section.batch_size
    start = time.process_time()
    for step in range(batches):
        slabs.batch(slabs.plan(seeded(0, step)))
    epoch_s = time.process_time() - start
    memory = process.memory_info()
    own = (memory.rss - memory.shared) / 2**20
    click.echo(f"| {count:,} | {own:.0f} | {read_s:.1f} | {epoch_s:.1f} | {epoch_s / batches * 1e3:.1f} |")


@click.command
@click.argument("counts", nargs=-1, type=int, required=True)
def main(counts: tuple[int, ...]) -> None:
    """Print a table, a row for each number of scans."""
    columns = ["scans", "MiB", "s to start", "CPU s an epoch", "ms a batch"]
    click.echo(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            make(layout := Layout(Path(folder)), count)
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(layout, count))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
