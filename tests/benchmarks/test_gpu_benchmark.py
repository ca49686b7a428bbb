"""The benchmark of a GPU, on the CPU with tiny sizes, and with no more libraries than a bare GPU machine has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ABSENT = ("pydantic", "nibabel", "SimpleITK", "pydicom", "ruamel", "dagster", "dagster_pipes", "dvc", "monai")
BARE = f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.argv[0] = 'gpu'; "
RUN = "runpy.run_module('benchmarks.gpu', run_name='__main__')"


def bare(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_what_it_needs_is_imported_without_the_libraries_of_files_and_pipeline() -> None:
    run = bare(BARE + "import benchmarks.gpu.__main__, benchmarks.gpu.worker")
    assert run.returncode == 0, run.stderr


def test_unknown_sections_are_refused(tmp_path: Path) -> None:
    run = bare(BARE + RUN, "--small", "--out", str(tmp_path), "--only", "parity,gossip")
    assert run.returncode == 2
    assert "gossip" in run.stderr


def test_every_section_runs(tmp_path: Path) -> None:
    run = bare(BARE + RUN, "--small", "--out", str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["section"] for row in rows} == {"training", "parity", "inference", "torchrun", "ceilings"}
    assert (tmp_path / "expectation.safetensors").stat().st_size < 16 << 20
    assert (tmp_path / "expectation.csv").read_text().startswith("step,loss,")
    numbers = {f"{row['section']}/{row['part']}": row for row in rows}
    assert numbers["torchrun/strict"]["bit_equal"]
    assert numbers["parity/restore"]["fp32_hu"] == 0  # the device is the CPU
    assert 0 < numbers["parity/restore"]["bf16_hu"] < 20
    assert run.stdout.splitlines()[-1].startswith(f"{len(rows)} parts done, 0 left out, 0 failed;")


def test_a_failure_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    spoil = "import benchmarks.gpu.parity as p; p.networks = lambda small: {'broken': None, 'whole': lambda d: 1 / 0}; "
    run = bare(BARE + spoil + RUN, "--small", "--out", str(tmp_path), "--only", "parity")
    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stdout
    assert "2 failed: parity/broken, parity/whole" in run.stdout.splitlines()[-1]


def test_a_training_stage_starts_without_simpleitk() -> None:
    without = "import sys; sys.modules['SimpleITK'] = None; "
    run = bare(without + "import ctinterp_dagster.pipeline.expect, benchmarks.gpu.train")
    assert run.returncode == 0, run.stderr
