"""The procedural patient is a chest, the same for a seed, another for another."""

import hashlib

import numpy as np
import pytest

from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.phantom import phantom
from ctinterp_dagster.scan.phantom.canvas import Canvas, add_noise, ellipsoid
from ctinterp_dagster.scan.volume import Volume

SHAPE, SPACING = (24, 96, 96), (2.0, 4.2, 4.2)


@pytest.fixture(scope="module")
def chest() -> Volume:
    return phantom(7, SHAPE, SPACING, 12.0)


def _bytes(volume: Volume) -> str:
    return hashlib.sha256(volume.hu.tobytes()).hexdigest()


def test_a_seed_gives_the_same_bytes_and_another_seed_another_patient(chest: Volume) -> None:
    assert _bytes(phantom(7, SHAPE, SPACING, 12.0)) == _bytes(chest)
    other = phantom(8, SHAPE, SPACING, 12.0)
    assert np.abs(other.hu - chest.hu).mean() > 40


def test_the_chest_is_a_regular_ct_of_whole_hu(chest: Volume) -> None:
    check_volume(chest, min_slices=24)
    assert chest.hu.dtype == np.float32
    assert (chest.hu.min() >= -1024, chest.hu.max() <= 3071) == (True, True)
    np.testing.assert_array_equal(chest.hu, np.rint(chest.hu))


def test_every_tissue_has_its_share(chest: Volume) -> None:
    inside = chest.hu[:, 20:76, 20:76]
    shares = {
        name: float(((inside >= low) & (inside < high)).mean())
        for name, low, high in (("lung", -950, -700), ("fat", -130, -70), ("soft", 0, 90), ("bone", 250, 1300))
    }
    assert shares["lung"] > 0.15
    assert shares["fat"] > 0.02
    assert shares["soft"] > 0.08
    assert shares["bone"] > 0.02
    corner = chest.hu[:, :6, :6]
    assert corner.mean() == pytest.approx(-1000, abs=3)


def test_anatomy_changes_along_z_so_that_thick_slices_lose_something(chest: Volume) -> None:
    clean = phantom(7, (40, 96, 96), (1.0, 4.2, 4.2), 0.0).hu
    thick = clean.reshape(8, 5, 96, 96).mean(axis=1)
    nearest = np.repeat(thick, 5, axis=0)
    assert np.sqrt(np.mean((nearest - clean) ** 2)) > 30


def test_the_same_patient_at_another_spacing_has_the_same_bones_and_airways() -> None:
    fine = phantom(3, (10, 100, 100), (2.0, 2.0, 2.0), 0.0)
    coarse = phantom(3, (10, 50, 50), (2.0, 4.0, 4.0), 0.0)
    pooled = fine.hu.reshape(10, 50, 2, 50, 2).mean(axis=(2, 4))
    assert np.corrcoef(pooled.ravel(), coarse.hu.ravel())[0, 1] > 0.97


def test_noise_has_the_asked_deviation_and_correlation_between_slices() -> None:
    noise = add_noise(np.zeros((60, 64, 64), np.float32), np.random.default_rng(0), 15.0)
    assert noise.std() == pytest.approx(15.0, rel=1e-3)
    lags = [float(np.mean(noise[k:] * noise[: 60 - k])) / 15.0**2 for k in (1, 2)]
    assert lags == pytest.approx([0.2, 0.0], abs=0.02)
    assert float(np.mean(noise[:, :, 1:] * noise[:, :, :-1])) / 15.0**2 > 0.2


def test_a_soft_edge_keeps_the_volume_of_a_ball() -> None:
    canvas = Canvas((20, 20, 20), (1.0, 1.0, 1.0), np.array([0.2, -0.3, 0.1]))
    box = canvas.box
    share = canvas.coverage(ellipsoid((box.x, box.y, box.z), (6.0, 6.0, 6.0)))
    assert float(share.sum()) == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.02)


def test_the_centre_of_the_field_is_where_the_volume_says() -> None:
    small, large = (phantom(5, (n, 32, 32), (3.0, 12.0, 12.0), 0.0) for n in (5, 9))
    assert small.point_mm((2, 0, 0)) == pytest.approx(large.point_mm((4, 0, 0)), abs=1e-3)
    assert np.corrcoef(small.hu.ravel(), large.hu[2:7].ravel())[0, 1] > 0.95
