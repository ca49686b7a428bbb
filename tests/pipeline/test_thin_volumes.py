"""Training volumes that stay in their files."""

import os
from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline.common.cases import Case, write_cases
from ctinterp_dagster.pipeline.trainings.training import thin_volumes, training_volume
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import FloatArray, Volume

SPACING = (1.0, 0.7, 0.7)


def noise(shape: tuple[int, int, int] = (20, 12, 14)) -> FloatArray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.float32)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_thousand_scans_hold_no_file_open(layout: Layout) -> None:
    """Linux lets a process open 1,024 files where nobody asked for more."""
    cases = [Case(f"scan-{n}", f"scan-{n}", "train") for n in range(1000)]
    first = cases[0].thin(layout)
    first.parent.mkdir(parents=True)
    write_volume(Volume(noise(), SPACING, (0.0, 0.0, 0.0), np.eye(3)), first)
    for case in cases[1:]:
        os.link(first, case.thin(layout))
    write_cases(layout.ingest / "cases.csv", cases)
    before = open_files()
    volumes = thin_volumes(layout, "train")
    assert len(volumes) == 1000
    assert open_files() <= before + 2
    assert np.array_equal(volumes[-1].hu.numpy(), noise())


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_a_volume_in_its_file_is_the_volume_that_is_read(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    direction = np.eye(3)[:, list(axes)] * (1, -1, 1)
    write_volume(Volume(noise(), SPACING, (1.0, 2.0, 3.0), direction), path := tmp_path / "scan.nii")
    stored, read = training_volume(path, 1.0, "scan"), read_scan(path).volume
    assert np.array_equal(stored.hu.numpy(), read.hu)
    assert stored.spacing_mm == read.spacing_mm


def test_a_volume_with_fractions_of_hu_is_read(tmp_path: Path) -> None:
    write_volume(Volume(noise() + 0.4, SPACING, (0.0, 0.0, 0.0), np.eye(3)), path := tmp_path / "scan.nii")
    assert np.abs(training_volume(path, 1.0, "scan").hu.numpy() - noise()).max() <= 1
