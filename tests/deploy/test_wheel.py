"""The built wheel in an empty environment: what a researcher gets who only wants to interpolate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctinterp_dagster.scan.io import read_scan, write_volume
from tests.phantoms import phantom

ROOT = Path(__file__).parents[2]
NOT_NEEDED = {"dvc", "dagster", "monai", "hydra-core", "pytest", "matplotlib"}
MAX_IMPORT_S = 3.0

TIMED_IMPORT = """
import sys, time
start = time.process_time()
import ctinterp_dagster
assert callable(ctinterp_dagster.interpolate)
print(time.process_time() - start)
print(ctinterp_dagster.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel and what the wheel asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    run("git", "clone", "--quiet", ROOT, source, cwd=folder)  # so that no build/ of the checkout gets in
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("ctinterp-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    return python.parent


@pytest.mark.slow
def test_a_scan_is_interpolated_with_the_released_model(environment: Path, tmp_path: Path) -> None:
    write_volume(phantom(5, shape_zyx=(8, 48, 48), spacing_mm=(5.0, 7.0, 7.0), noise_hu=10.0), tmp_path / "thick.nii")
    shown = run(environment / "ctinterp", "interpolate", "thick.nii", "-o", "thin.nii.gz", cwd=tmp_path)
    assert "8 slices of 5 mm -> 40 of 1 mm" in shown
    assert read_scan(tmp_path / "thin.nii.gz").volume.hu.shape == (40, 48, 48)
    assert "released" in run(environment / "ctinterp", "info", cwd=tmp_path)
    assert "cubic" in run(environment / "ctinterp", "evaluate", "thin.nii.gz", "--methods", "cubic", cwd=tmp_path)
    for command in ("autoencoder", "champion", "evaluate", "scans", "preset", "summary"):
        assert "Usage" in run(environment / "ctinterp", command, "--help", cwd=tmp_path)


@pytest.mark.slow
def test_neither_the_pipeline_nor_the_test_oracle_is_needed(environment: Path, tmp_path: Path) -> None:
    listed = run(environment / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert {line.partition("==")[0].lower() for line in listed.splitlines()} & NOT_NEEDED == set()


@pytest.mark.slow
def test_the_api_is_imported_in_under_three_seconds(environment: Path, tmp_path: Path) -> None:
    run(environment / "python", "-c", TIMED_IMPORT, cwd=tmp_path)  # the first reads the disk and writes bytecode
    seconds, place = run(environment / "python", "-c", TIMED_IMPORT, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(environment.parent)
    assert float(seconds) < MAX_IMPORT_S
