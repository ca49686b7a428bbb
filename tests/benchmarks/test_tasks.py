import numpy as np
import pandas as pd
import pytest

from benchmarks.tasks import planted_volumes, surface_distance, surfaces, vessel_recall, vesselness, volume_mm3
from ctinterp_dagster.evaluation.planting import Structure, paint
from ctinterp_dagster.scan.volume import FloatArray, Volume

SPACING = (1.0, 0.8, 0.8)


def lung() -> Volume:
    return Volume(np.full((40, 50, 50), -850, np.float32), SPACING, (0.0, 0.0, 0.0), np.eye(3))


@pytest.mark.parametrize("size", [6, 10])
def test_the_volume_of_a_ball_is_measured_whatever_lies_beside_it(size: float) -> None:
    scan, centre = lung(), np.array([20.3, 19.8, 20.4])
    paint(scan, centre, Structure("lung", "ball", size, 870))
    scan.hu[:, :3] = 40
    assert volume_mm3(scan.hu, SPACING, centre, size) == pytest.approx(np.pi / 6 * size**3, rel=0.06)
    assert volume_mm3(lung().hu, SPACING, centre, size) == 0


def ball(radius_mm: float) -> FloatArray:
    axes = [(np.arange(n) - 24.5) * step for n, step in zip((50, 60, 60), SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.float32(1000 * (radius_mm - np.sqrt(z**2 + y**2 + x**2)))


def test_surfaces_of_balls_are_as_far_apart_as_their_radii() -> None:
    assert surface_distance(ball(12), ball(12), SPACING, 300)["far_mm"] == 0
    distances = surface_distance(ball(13.5), ball(12), SPACING, 300)
    assert [distances["mean_mm"], distances["far_mm"]] == pytest.approx([1.5, 1.5], abs=0.12)


def test_vessels_that_an_estimate_lacks_are_missed() -> None:
    z = np.arange(40)
    truth = np.full((40, 50, 50), -850, np.float32) + np.random.default_rng(0).normal(0, 5, (40, 50, 50))
    half = truth.copy()
    for column in (8, 15, 22, 29, 36, 43):
        truth[z, 15:17, column] = truth[z, 34:36, column] = 0
        half[z, 15:17, column] = 0
    inside = np.ones(truth.shape, bool)
    ridges = [vesselness(hu.astype(np.float32), (1.0, 1.0, 1.0)) for hu in (truth, half)]
    assert vessel_recall(ridges[0], ridges[0], inside) > 0.98
    assert vessel_recall(ridges[1], ridges[0], inside) == pytest.approx(0.5, abs=0.08)


def test_bias_and_spread_are_against_the_same_nodule_in_the_truth() -> None:
    true, estimated = {4: (40, 50), 6: (100, 130), 8: (250, 260), 10: (500, 520), 12: (900, 950)}, (0.8, 1.0)
    rows = [
        {"case": "a", "nodule": f"{size}{k}", "method": method, "size_mm": size, "mm3": mm3 * share}
        for size, volumes in true.items()
        for k, (mm3, own) in enumerate(zip(volumes, estimated, strict=True))
        for method, share in (("truth", 1), ("model", own))
    ]
    table = str(planted_volumes(pd.DataFrame(rows)))
    assert "| truth | +0 (+0 to +0), 0 % |" in table
    assert "| model | -10 (-20 to +0), 14 % |" in table


def test_a_distance_has_its_mean_over_scans_and_an_interval() -> None:
    rows = [
        {"case": case, "task": "bone", "method": "model", "mean_mm": mm, "far_mm": 2 * mm}
        for case, mm in {"a": 1.0, "b": 2.0, "c": 3.0}.items()
    ]
    assert "| model | 1.00, 2.00 | 2.00, 4.00 | 3.00, 6.00 | 2.00 (1.00 to 3.00) |" in str(surfaces(pd.DataFrame(rows)))
    assert "| model | 1.00, 2.00 | 1.00 |" in str(surfaces(pd.DataFrame(rows[:1])))
