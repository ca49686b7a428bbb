from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from ctinterp_dagster.evaluation.evidence import (
    EVIDENCE_COLUMNS,
    MeasuredValue,
    Trial,
    balls,
    cube,
    findings,
    ranked,
    row,
    summary,
)
from ctinterp_dagster.evaluation.evidence_tables import CommandRun, Measured, Table, run_tables, shown
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import Estimate, Measurement, simulated
from ctinterp_dagster.scan.volume import Volume

SPACING = (1.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str, str], MeasuredValue]:
    """Of a scan of soft tissue beside lung: a method that gives the truth, and the thick slices."""
    hu = np.full((100, 100, 100), 40.0, np.float32)
    hu[:, :50] = -850
    hu += np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32)
    thin = Volume(hu, SPACING, (0.0, 0.0, 0.0), np.eye(3))

    def perfect(measurement: Measurement) -> Estimate:
        return Estimate(measurement.known, None, 0.0)

    methods = {"nearest": METHODS["nearest"], "model": perfect}
    return {
        (it.method, it.measure, it.at): it
        for it in findings(thin, Trial(partial(simulated, factor=5, profile="box"), methods))
    }


def test_a_method_that_knows_the_scan_keeps_all_and_invents_nothing(
    found: dict[tuple[str, str, str], MeasuredValue],
) -> None:
    for size in ("2 mm", "4 mm", "8 mm"):
        assert found["model", "kept", size].value == pytest.approx(1)
        assert found["model", "lost_balls", size].value == 0
        assert found["model", "kept", size].count >= 2
    assert found["model", "error_hu", "soft tissue, +0 HU"].value == 0
    truth = found["truth", "width_mm", "200 HU"]
    assert found["model", "width_mm", "200 HU"] == replace(truth, method="model")


def test_thick_slices_are_as_wide_as_a_box_of_5_mm_and_keep_less_of_small_balls(
    found: dict[tuple[str, str, str], MeasuredValue],
) -> None:
    width = found["nearest", "width_mm", "800 HU"].value
    # the box of 5 mm twice, as values are held, a slice of 1 mm and the rod's own edge; what is repeated is no Gaussian
    assert width == pytest.approx(2.355 * np.sqrt(2 * 25 / 12 + 1 / 12 + 0.25), rel=0.08)
    kept = [found["nearest", "kept", size].value for size in ("2 mm", "4 mm", "8 mm")]
    assert kept == sorted(kept)
    assert kept[0] < 0.75 < kept[2]


def test_a_ball_that_is_smaller_than_a_pixel_is_not_planted() -> None:
    coarse = Volume(np.full((60, 30, 30), 40, np.float32), (1.0, 2.5, 2.5), (0.0, 0.0, 0.0), np.eye(3))
    assert {structure.size_mm for structure, _ in balls(coarse)} == {4, 8}


def test_added_noise_is_an_error_as_large_as_it_is(found: dict[tuple[str, str, str], MeasuredValue]) -> None:
    noisy = found["model", "error_hu", "soft tissue, +25 HU"].value
    assert noisy == pytest.approx(25 * np.sqrt(2 / np.pi), rel=0.02)


def test_the_cube_is_the_middle_100_mm() -> None:
    assert cube((300, 512, 50), (1.0, 0.5, 0.8)) == (slice(100, 200), slice(156, 356), slice(0, 50))


def test_a_deviation_that_is_the_error_ranks_without_fault() -> None:
    error = np.random.default_rng(0).normal(0, 10, (30, 20, 20)).astype(np.float32)
    best, chance = (ranked("model", std, error, 5) for std in (np.abs(error), np.ones_like(error)))
    assert best is not None
    assert chance is not None
    assert (best.value, chance.value) == (1, 0.5)
    assert ranked("model", np.abs(error), np.zeros_like(error), 5) is None


def lines(cases: int) -> pd.DataFrame:
    rows = []
    for case in range(cases):
        for method, width in (("truth", 1.5), ("nearest", 5.0), ("cubic", 4.5), ("model", 3.0)):
            rows += [row(f"c{case}", MeasuredValue(method, "width_mm", "200 HU", width + case, 2))]
            if method != "truth":
                rows += [
                    row(f"c{case}", MeasuredValue(method, "invented", "100 HU", 0.25, 8)),
                    row(f"c{case}", MeasuredValue(method, "error_hu", "soft tissue, +0 HU", 10 * width, 1000)),
                ]
        rows += [row(f"c{case}", MeasuredValue("model", "ranking", "worst 10%", 0.8, 1000))]
    return pd.DataFrame(rows, columns=list(EVIDENCE_COLUMNS))


def test_two_cases_have_no_interval_and_it_is_said() -> None:
    tables = [str(table) for table in run_tables(lines(2), seed=0)]
    assert sum("2 cases: fewer than 3, no interval" in text for text in tables) == 3
    assert "| ctinterp model | \N{EN DASH} | 3.5 | \N{EN DASH} |" in tables[0]
    assert "| ctinterp model | 4 of 16 | \N{EN DASH} |" in tables[3]
    assert "| soft tissue, +0 HU | 50.0 | 45.0 | 30.0 |" in tables[4]


def test_three_cases_have_an_interval() -> None:
    widths, _, _, blobs, _, ranking = (str(table) for table in run_tables(lines(3), seed=0))
    assert "4.0 (3.0\N{EN DASH}5.0)" in widths
    assert "| ctinterp model | 6 of 24 |" in blobs
    assert "interval" not in ranking  # it has a line a case


def test_a_mean_and_its_interval_are_of_the_same_cases_whatever_their_counts() -> None:
    values = {"a": (2.0, 1), "b": (4.0, 1), "c": (6.0, 98)}
    rows = [row(case, MeasuredValue("model", "width_mm", "50 HU", mm, rods)) for case, (mm, rods) in values.items()]
    widths = next(run_tables(pd.DataFrame(rows, columns=list(EVIDENCE_COLUMNS)), seed=0))
    assert "| ctinterp model | 4.0 (2.0\N{EN DASH}6.0) |" in str(widths)


def test_the_metrics_are_means_weighted_by_counts() -> None:
    rows = pd.DataFrame(
        [
            row("a", MeasuredValue("model", "kept", "2 mm", 0.5, 1)),
            row("b", MeasuredValue("model", "kept", "2 mm", 0.8, 3)),
        ]
    )
    assert summary(rows) == {"kept": {"2 mm": pytest.approx(0.725)}}


def test_where_a_longer_measurement_comes_from_is_said() -> None:
    assert shown(None, "dose", "a" * 64)[0].startswith("Not measured: run python -m benchmarks.dose")
    runs = (CommandRun("python -m benchmarks.dose dose.json a.nii", "2026-11-28", "b" * 64),)
    said = shown(Measured(runs, (Table("", ("a",), (("1",),)),)), "dose", "a" * 64)
    assert said == [
        "2026-11-28: python -m benchmarks.dose dose.json a.nii", "Of another model than this run's: bbbbbbbbbbbb.",
    ]  # fmt: skip
