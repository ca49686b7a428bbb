import numpy as np
import pytest

from benchmarks.dose import by_tissue
from ctinterp_dagster.evaluation.structures import noisy, tissue_errors
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.volume import Volume


def halves() -> Volume:
    hu = np.full((40, 40, 40), 40, np.float32)
    hu[..., :20] = -850
    return Volume(hu, (1.0, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3))


def test_noise_has_its_deviation_a_grain_in_plane_and_none_across_slices() -> None:
    scan = halves()
    noise = noisy(scan.hu, 25) - scan.hu
    assert noise.std() == pytest.approx(25, rel=1e-3)
    along = [
        np.corrcoef(noise[1:].ravel(), noise[:-1].ravel()),
        np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel()),
    ]
    assert abs(along[0][0, 1]) < 0.02
    assert along[1][0, 1] > 0.5
    assert np.array_equal(noisy(scan.hu, 0), scan.hu)


def test_the_error_is_that_of_the_tissue() -> None:
    scan = halves()
    estimate = scan.hu + np.where(scan.hu > 0, 10, -3)
    errors = tissue_errors(estimate.astype(np.float32), scan.hu, scan.spacing_mm)
    assert errors["soft tissue"][0] == pytest.approx(10)
    assert errors["air and lung"][0] == pytest.approx(3)
    assert "bone" not in errors


def test_the_table_names_the_few_and_takes_the_best_that_interpolates() -> None:
    errors = {"air and lung": 9.0, "edges of lung": 9.0, "soft tissue": 9.0, "bone": 9.0}
    smaller = {"nearest": 1.0, "tv_projected": 7.0, "model": 5.0}
    records = [
        {"case": "a", "noise_hu": noise, "method": name, **errors, "bone": smaller.get(name, 9.0)}
        for noise in (0, 25, 50)
        for name in (*METHODS, "model")
    ]
    shown = str(by_tissue(records))
    assert "fewer than 3" in shown
    assert "training volume" not in shown
    limb = [{k: v for k, v in record.items() if k != "air and lung"} | {"case": "limb"} for record in records]
    assert "| air and lung, limb" not in str(by_tissue([*records, *limb]))
    assert "| bone, limb |" in str(by_tissue([*records, *limb]))
    assert "| bone, a (training volume) |" in str(by_tissue([record | {"training": True} for record in records]))
    assert "| bone, a | 1.0 / 7.0 / 5.0 | 1.0 / 7.0 / 5.0 | 1.0 / 7.0 / 5.0 |" in shown
