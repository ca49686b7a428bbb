"""Many scans, many runs at once, and one run for a long time."""

import hashlib
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from ctinterp_dagster.interpolation import Measurement, Settings, load_checkpoint, operator_for
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline import ingest
from ctinterp_dagster.records import read_csv
from ctinterp_dagster.scan.io import find_scans, write_volume
from tests.conftest import smoke_params
from tests.phantoms import phantom

pytestmark = pytest.mark.slow

SCANS = 10_000
AT_ONCE = 24
REPEATS = 200
MIB = 2**20


def resident_mib() -> float:
    return float(psutil.Process().memory_info().rss) / MIB


def test_ten_thousand_scans_are_ingested_and_listed_in_flat_memory(layout: Layout) -> None:
    small = phantom(1, shape_zyx=(24, 16, 16), spacing_mm=(1.5, 9.0, 9.0), noise_hu=10.0)
    write_volume(small, layout.root / "one.nii")
    scan = bytearray((layout.root / "one.nii").read_bytes())
    for number in range(SCANS):  # no two with the same voxels, which would be one scan
        scan[-4:] = struct.pack("<hh", *divmod(number, 100))
        (layout.raw / f"scan-{number:05d}.nii").write_bytes(scan)
    params = smoke_params(layout.root)
    assert len(find_scans(layout.raw)) == SCANS
    before = resident_mib()
    start = time.process_time()
    assert ingest.run(params, layout)["cases"] == SCANS
    first_s, first_mib = time.process_time() - start, resident_mib() - before
    assert len(read_csv(layout.ingest / "cases.csv")) == SCANS
    start = time.process_time()
    ingest.run(params, layout)
    again_s, again_mib = time.process_time() - start, resident_mib() - before
    print(f"\n{first_s:.0f} CPU s, again {again_s:.0f}; memory +{first_mib:.0f} MiB, then +{again_mib:.0f} MiB")
    assert again_mib < first_mib + 20
    assert first_mib < 150


def test_two_dozen_interpolations_at_once_queue_and_none_is_wrong(tmp_path: Path) -> None:
    write_volume(phantom(5, shape_zyx=(8, 32, 32), spacing_mm=(5.0, 9.0, 9.0), noise_hu=10.0), tmp_path / "thick.nii")
    command = [str(Path(sys.executable).with_name("ctinterp")), "interpolate", "thick.nii", "--memory-gib", "6"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def start(number: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, "-o", f"thin-{number}.nii"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    runs = [start(number) for number in range(AT_ONCE)]
    answers = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * AT_ONCE, answers
    waited = sum("waiting for" in error for _, error in answers)
    hashes = {hashlib.sha256((tmp_path / f"thin-{n}.nii").read_bytes()).hexdigest() for n in range(AT_ONCE)}
    print(f"\n{waited} of {AT_ONCE} had to wait")
    assert len(hashes) == 1
    assert 0 < waited < AT_ONCE


def test_a_process_that_interpolates_all_day_does_not_grow() -> None:
    interpolator = load_checkpoint(device="cpu")
    thick = phantom(5, shape_zyx=(8, 24, 24), spacing_mm=(5.0, 9.0, 9.0), noise_hu=10.0)
    operator = operator_for(thick.depth, 5.0, 5.0, 1.0, "box")
    settings = Settings(steps=1, samples=1)
    first = interpolator.restore(Measurement(thick, operator), settings)
    memory = []
    for _ in range(REPEATS):
        again = interpolator.restore(Measurement(thick, operator), settings)
        memory.append(resident_mib())
    assert torch.equal(torch.from_numpy(again.mean.hu), torch.from_numpy(first.mean.hu))
    warm, end = memory[REPEATS // 4], memory[-1]
    print(f"\n{warm:.0f} MiB after {REPEATS // 4}, {end:.0f} MiB after {REPEATS}")
    assert end < warm + 20
