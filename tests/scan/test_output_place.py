"""Results out: the right place in space in every format."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from ctinterp_dagster.physics.grids import operator_for, thin_volume
from ctinterp_dagster.physics.interpolators import linear
from ctinterp_dagster.scan.io import read_scan, write_result
from ctinterp_dagster.scan.volume import Volume

from .conftest import plain_volume, rotation
from .test_output import SAID, corners, no_scan, points_mm


def _value_at(volume: Volume, point_mm: np.ndarray) -> float:
    index = np.linalg.solve(volume.direction * volume.spacing_mm[::-1], point_mm - volume.origin_mm)
    x, y, z = np.rint(index).astype(int)
    np.testing.assert_allclose(volume.point_mm((z, y, x)), point_mm, atol=1e-3)
    return float(volume.hu[z, y, x])


# Thick spacing, thickness of the slices, thin spacing, mm: touching, overlapping and gapped slices; factors 4, 3.75, 3.
# And whether the axes are left-handed.
GRIDS = ((5.0, 5.0, 1.25, "left"), (3.0, 3.0, 0.8, "left"), (3.0, 5.0, 0.8, "right"), (4.0, 2.5, 4 / 3, "right"))
CENTRE_MM = np.array([-123.4567, 210.9876, -1233.5432])


def _ramp_hu(points_mm: np.ndarray) -> np.ndarray:
    """HU that tell where in the patient a voxel lies, whatever the order of axes: mirrors and swaps show."""
    return (points_mm - CENTRE_MM) @ np.array([20.0, -31.0, 43.0])


def _write_source(volume: Volume, path: Path, thickness_mm: float) -> None:
    if path.name == "2.nii":
        write_result(volume, path, no_scan(volume), SAID)
        image = nib.Nifti1Image.from_bytes(path.read_bytes())
        nib.save(nib.Nifti2Image(np.asarray(image.dataobj), image.affine, image.header), path)
        return
    write_result(volume, path, no_scan(volume), SAID)
    for file in path.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.SliceThickness = thickness_mm
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.save_as(file)


SOURCES, TARGETS = ("s", "1.nii", "2.nii", "s.mha", "s.nrrd"), ("t", "t.nii.gz", "t.mha", "t.nrrd")


@pytest.mark.parametrize(
    ("source", "target", "grid"),
    [(s, t, GRIDS[(i + k) % 4]) for (i, s), (k, t) in product(enumerate(SOURCES), enumerate(TARGETS))],
)
def test_thin_lies_where_thick_lay_between_every_two_formats(
    tmp_path: Path, source: str, target: str, grid: tuple[float, float, float, str]
) -> None:
    """Oblique, off-centre, non-square pixels, both hands: edges and centres agree to 1e-3 mm, values with places.

    Each source meets each grid, and so does each target.
    """
    thick_mm, thickness_mm, thin_mm, hand = grid
    turn = rotation(14, -9, 21) @ np.diag([1, 1, -1 if hand == "left" else 1])
    empty = Volume(np.zeros((4, 7, 9), np.float32), (thick_mm, 0.7, 0.9), tuple(CENTRE_MM), turn)
    made = empty.with_hu(_ramp_hu(points_mm(empty)).round().astype(np.float32))
    _write_source(made, tmp_path / source, thickness_mm)
    scan = read_scan(tmp_path / source)
    thick = scan.volume
    assert scan.thickness_mm == (thickness_mm if source == "s" else None)
    operator = operator_for(thick.depth, thick.spacing_mm[0], thickness_mm, thin_mm, "box")
    thin = thin_volume(thick, operator, linear(torch.from_numpy(thick.hu), operator.thin_positions))
    write_result(thin, tmp_path / target, scan, SAID)
    back = read_scan(tmp_path / target).volume
    np.testing.assert_allclose(corners(thick), corners(made), atol=1e-3)
    np.testing.assert_allclose(corners(back), corners(made), atol=1e-3)
    assert sorted(back.spacing_mm) == pytest.approx(sorted((thin_mm, 0.7, 0.9)), rel=1e-6)
    for index in [(0, 0, 0), (3, 2, 5), (thin.depth - 1, 6, 8)]:
        assert _value_at(back, thin.point_mm(index)) == pytest.approx(thin.hu[index], abs=0.5)
    measured = (operator.thin_positions >= 0) & (operator.thin_positions <= thick.depth - 1)
    away_hu = thin.hu - _ramp_hu(points_mm(thin))
    assert np.abs(away_hu[measured]).max() < 0.6  # thick values are rounded to whole HU


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_sform_and_qform_of_a_written_nifti_are_both_right(oblique: Volume, tmp_path: Path, suffix: str) -> None:
    for mirror in ([1, 1, 1], [1, 1, -1]):
        volume = replace(oblique, direction=oblique.direction * np.array(mirror))
        write_result(volume, tmp_path / f"v{suffix}", no_scan(volume), SAID)
        header = nib.load(tmp_path / f"v{suffix}").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        for affine in (header.get_sform(), header.get_qform()):
            for z, y, x in product((0, 4), (0, 6), (0, 8)):
                ras = affine @ [x, y, z, 1]
                np.testing.assert_allclose(ras[:3] * [-1, -1, 1], volume.point_mm((z, y, x)), atol=1e-3)


def test_a_target_that_does_not_divide_the_extent_leaves_less_than_half_a_thin_slice_at_each_end() -> None:
    thick = plain_volume(np.zeros((5, 3, 4)), spacing_mm=(3.0, 0.8, 0.8))
    operator = operator_for(5, 3.0, 3.0, 0.8, "box")
    thin = thin_volume(thick, operator, torch.zeros(operator.n_thin, 3, 4))
    edges = [thin.point_mm((-0.5, 0, 0))[2], thin.point_mm((thin.depth - 0.5, 0, 0))[2]]
    assert edges == pytest.approx([-1.5 + 0.3, 13.5 - 0.3])
    assert thin.spacing_mm[0] == pytest.approx(0.8)
