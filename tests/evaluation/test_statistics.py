import numpy as np
import pandas as pd
import pytest

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.metrics import Truth
from ctinterp_dagster.evaluation.statistics import best_baseline, bootstrap_mean, calibrate, compare, summarise


def rows(**psnr: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"case": f"c{i}", "method": method, "factor": 5, "profile": "box", "psnr_db": value}
            for method, values in psnr.items()
            for i, value in enumerate(values)
        ]
    )


def test_a_bootstrap_repeats_itself_and_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(4, 1, 30)
    first, second = bootstrap_mean(values, seed=3), bootstrap_mean(values, seed=3)
    assert first == second
    assert first.low < first.mean < first.high
    assert first.mean == pytest.approx(values.mean())
    assert first != bootstrap_mean(values, seed=4)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    interval = bootstrap_mean(values, seed=0)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_a_single_case_has_a_mean_but_no_interval() -> None:
    interval = bootstrap_mean([3.0], seed=0)
    assert (interval.mean, interval.low, interval.high, interval.cases) == (3.0, None, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_a_mean_of_nothing_or_of_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(EvaluationError, match="needs finite numbers"):
        bootstrap_mean(values, seed=0)


def test_differences_are_paired_by_case_whatever_the_order_of_the_rows() -> None:
    table = rows(model=[30, 33, 36], cubic=[29, 31, 33]).sample(frac=1, random_state=1)
    (difference,) = compare(table, "psnr_db", method="model", higher_is_better=True, seed=0)
    assert difference.by_case == (("c0", 1.0), ("c1", 2.0), ("c2", 3.0))
    assert difference.interval.mean == 2.0
    assert difference.wins == 3


def test_lower_is_better_turns_the_sign() -> None:
    (difference,) = compare(rows(model=[1, 2], cubic=[3, 3]), "psnr_db", method="model", higher_is_better=False, seed=0)
    assert difference.interval.mean == 1.5


def test_the_best_baseline_is_the_one_with_the_smallest_gain() -> None:
    table = rows(cubic=[28, 28], tv_projected=[29, 30], model=[30, 30])
    best = best_baseline(table, "psnr_db", method="model", higher_is_better=True, seed=0)
    assert best.baseline == "tv_projected"
    assert best.interval.mean == 0.5


def test_a_summary_keeps_the_order_of_the_methods_and_leaves_out_empty_ones() -> None:
    table = rows(nearest=[1, 3], cubic=[np.nan, np.nan], model=[5, 7])
    means = summarise(table, "psnr_db", seed=0)
    assert [(name, interval.mean) for name, interval in means.items()] == [("nearest", 2.0), ("model", 6.0)]


def test_rows_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"methods \['model'\] were not scored on every case"):
        summarise(rows(cubic=[1, 2], model=[1]), "psnr_db", seed=0)
    with pytest.raises(EvaluationError, match="one profile and factor"):
        summarise(rows(cubic=[1, 2]).assign(factor=[2, 5]), "psnr_db", seed=0)
    with pytest.raises(EvaluationError, match="scored twice"):
        summarise(pd.concat([rows(cubic=[1, 2])] * 2), "psnr_db", seed=0)
    with pytest.raises(EvaluationError, match="no rows of method 'model'"):
        compare(rows(cubic=[1, 2]), "psnr_db", method="model", higher_is_better=True, seed=0)
    with pytest.raises(EvaluationError, match="no baseline"):
        best_baseline(rows(model=[1, 2]), "psnr_db", method="model", higher_is_better=True, seed=0)


@pytest.fixture(scope="module")
def truth() -> Truth:
    hu = np.full((24, 32, 32), 40, np.float32)
    return Truth.of(hu + np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32), factor=3)


def test_an_honest_spread_covers_nine_tenths_and_follows_the_error(truth: Truth) -> None:
    rng = np.random.default_rng(1)
    std = rng.uniform(2, 30, truth.hu.shape).astype(np.float32)
    result = calibrate(truth.hu + std * rng.standard_normal(std.shape, np.float32), std, truth)
    assert result.coverage_90 == pytest.approx(0.9, abs=0.01)
    assert result.correlation > 0.4


def test_a_spread_that_is_too_small_covers_less(truth: Truth) -> None:
    rng = np.random.default_rng(1)
    error = rng.normal(0, 10, truth.hu.shape).astype(np.float32)
    result = calibrate(truth.hu + error, np.full(error.shape, 5, np.float32), truth)
    assert result.coverage_90 == pytest.approx(0.589, abs=0.01)
    assert result.correlation is None


def test_a_negative_spread_is_refused(truth: Truth) -> None:
    with pytest.raises(EvaluationError, match="must not be negative, got -1 HU"):
        calibrate(truth.hu, np.full(truth.hu.shape, -1, np.float32), truth)
