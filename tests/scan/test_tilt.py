"""A tilted gantry: every slice in its place on a straight grid."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from scipy.ndimage import label, sum_labels

from ctinterp_dagster.errors import GantryTiltError
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import measure
from ctinterp_dagster.physics.stretches import measure_stretches
from ctinterp_dagster.scan.io import Scan, read_scan, read_stretches
from ctinterp_dagster.scan.padding import OUTSIDE_HU, find_padding
from ctinterp_dagster.scan.tilt import straightened
from ctinterp_dagster.scan.volume import Volume

from .conftest import plain_volume

Series = Callable[..., Path]

PIXEL_MM, SIZE, SLICES, STEP_MM, CORNER_MM = (0.7, 0.9), (64, 48), 18, 3.0, np.array([-20.0, -24.0, 100.0])
BALLS_MM = np.array([[-9.0, -8.3, 123.0], [3.4, 8.1, 126.7], [11.0, -7.7, 130.3]])  # LPS
SIGMA_MM = 2.2


def tissue(points_mm: np.ndarray) -> np.ndarray:
    """Soft balls in air, (..., 3) LPS to HU."""
    far = ((points_mm[..., None, :] - BALLS_MM) ** 2).sum(axis=-1)
    return 1200 * np.exp(-far / (2 * SIGMA_MM**2)).sum(axis=-1) - 1000


def tilted(
    angle_deg: float,
    swivel_deg: float = 0.0,
    *,
    decimals: int = 6,
    places_mm: Sequence[float] = STEP_MM * np.arange(SLICES),
) -> Callable[[int, FileDataset], None]:
    """Slices as thick as STEP_MM, their planes turned about x and about y, at places along z."""
    c, s, t = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg)), np.tan(np.radians(swivel_deg))
    row = np.array([1.0, 0.0, t]) / np.hypot(1, t)
    down = np.array([0.0, c, s])
    down -= row * (row @ down)
    down /= np.linalg.norm(down)
    normal = np.cross(row, down)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    within = np.linspace(-0.5, 0.5, 9) * STEP_MM * normal[2]  # of the slab that a slice sees, along its normal

    def edit(k: int, dataset: FileDataset) -> None:
        corner = CORNER_MM + np.array([0, 0, places_mm[k]])
        plane = corner + x[..., None] * PIXEL_MM[1] * row + y[..., None] * PIXEL_MM[0] * down
        hu = np.mean([tissue(plane + t * normal) for t in within], axis=0)
        dataset.ImagePositionPatient = np.round(corner, decimals).tolist()
        dataset.ImageOrientationPatient = [round(float(v), 9) for v in (*row, *down)]
        dataset.PixelSpacing = list(PIXEL_MM)
        dataset.Rows, dataset.Columns = SIZE
        dataset.PixelData = np.rint(hu + 1024).astype(np.int16).tobytes()

    return edit


def read_tilted(series: Series, angle_deg: float, swivel_deg: float = 0.0) -> Scan:
    return read_scan(series(n=SLICES, edit=tilted(angle_deg, swivel_deg)))


def centres_mm(volume: Volume) -> np.ndarray:
    """(n, 3) LPS centres of mass of what is bright, in the order of the balls."""
    bright = np.where(volume.hu > -950, volume.hu + 1000.0, 0.0)
    parts, count = label(bright)
    assert count == len(BALLS_MM)
    indices = np.indices(bright.shape)
    mass = sum_labels(bright, parts, range(1, count + 1))
    found = np.stack([sum_labels(bright * axis, parts, range(1, count + 1)) / mass for axis in indices], axis=1)
    points = np.array([volume.point_mm((float(z), float(y), float(x))) for z, y, x in found])
    return points[points[:, 2].argsort()]


@pytest.mark.parametrize(("angle", "swivel"), [(16.5, 0.0), (-18.5, 0.0), (30.0, 0.0), (10.0, -8.0)])
def test_the_slices_of_a_tilted_gantry_lie_where_they_were_measured(
    series: Series, angle: float, swivel: float
) -> None:
    scan = read_tilted(series, angle, swivel)
    assert scan.tilted
    np.testing.assert_allclose(centres_mm(scan.volume), BALLS_MM, atol=0.05)


def test_thin_slices_of_a_tilted_scan_lie_in_their_place_and_give_the_slices_back(series: Series) -> None:
    scan = read_tilted(series, -18.5)
    measurement = measure(scan.volume, 1.0, Acquisition("box"))
    estimate = METHODS["cubic_projected"](measurement)
    assert estimate.residual_hu < 1e-3
    np.testing.assert_allclose(centres_mm(measurement.padded(estimate).mean), BALLS_MM, atol=0.05)


def test_the_slice_distance_of_a_tilted_scan_is_that_across_its_slices(series: Series) -> None:
    scan = read_tilted(series, 20.0)
    assert scan.volume.spacing_mm == pytest.approx((STEP_MM * np.cos(np.radians(20)), *PIXEL_MM), abs=1e-5)
    assert "tilt of 20.00 degrees" in scan.warnings[0]
    assert f"by {STEP_MM * np.sin(np.radians(20)):.3f} mm more" in scan.warnings[0]


def test_positions_rounded_to_a_tenth_of_a_millimetre_do_not_move_a_tilted_scan(series: Series) -> None:
    places = 3.03 * np.arange(SLICES)
    scan = read_scan(series(n=SLICES, edit=tilted(16.5, decimals=1, places_mm=places)))
    np.testing.assert_allclose(centres_mm(scan.volume), BALLS_MM, atol=0.05)


def test_a_tilt_that_no_gantry_has_is_refused_with_its_angle(series: Series) -> None:
    with pytest.raises(GantryTiltError, match=r"run 36\.50 degrees off the slice normal"):
        read_tilted(series, 36.5)


def test_what_no_slice_shows_is_padding_and_every_measured_pixel_is_kept() -> None:
    hu = np.random.default_rng(0).normal(40, 10, (5, 12, 10)).astype(np.float32)
    straight, told = straightened(plain_volume(hu), (-2.0, 1.0))
    assert straight.hu.shape == (5, 20, 14)
    assert np.count_nonzero(straight.hu != OUTSIDE_HU) == hu.size
    for k in range(5):
        kept = straight.hu[k, 8 - 2 * k : 20 - 2 * k, k : k + 10]
        np.testing.assert_allclose(kept, hu[k], atol=1e-3)
    padding = find_padding(straight.hu)
    assert padding is not None
    assert padding.value_hu == OUTSIDE_HU
    assert "measured ones to 0.00 HU" in told[0]


def test_padding_of_a_tilted_scan_is_moved_with_its_slices_and_leaves_no_ring() -> None:
    hu = np.full((6, 30, 20), 40.0, np.float32)
    hu[:, :6] = -3024
    straight, _ = straightened(plain_volume(hu), (1.5, 0.0))
    assert set(np.unique(straight.hu.round(3))) == {-3024.0, 40.0}
    for k in range(6):
        assert np.flatnonzero(straight.hu[k, :, 0] > 0)[[0, -1]] == pytest.approx([6 + 1.5 * k, 29 + 1.5 * k], abs=0.6)


@pytest.mark.parametrize("angle", [0.0, -18.5])
def test_stretches_of_a_tilted_scan_are_joined_in_their_place(series: Series, angle: float) -> None:
    """Slices every 3 mm, then every 4 mm, with one missing between."""
    places = [*(3.0 * k for k in range(8)), *(26.0 + 4 * k for k in range(6))]
    scans = read_stretches(series(n=len(places), edit=tilted(angle, places_mm=places)))
    assert [scan.volume.depth for scan in scans] == [8, 6]
    stretches = measure_stretches([scan.volume for scan in scans], 1.0, [Acquisition("box", tags=Tags(STEP_MM))] * 2)
    joined = stretches.join([METHODS["cubic_projected"](part) for part in stretches.parts])
    assert joined.residual_hu < 1e-3
    np.testing.assert_allclose(centres_mm(joined.mean), BALLS_MM, atol=0.3)


def test_a_scan_that_is_not_tilted_is_given_back() -> None:
    volume = plain_volume(np.zeros((4, 5, 6)))
    assert straightened(volume, (0.0, 0.0)) == (volume, ())
