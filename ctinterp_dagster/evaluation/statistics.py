"""What the numbers of single cases say about a method: means, paired differences, and how honest its spread is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.metrics import Truth, check_estimate
from ctinterp_dagster.methods import Role, names
from ctinterp_dagster.params import task_name
from ctinterp_dagster.scan.volume import FloatArray

LEVEL = 0.95
DRAWS = 10_000
TASK = ["profile", "factor"]


@dataclass(frozen=True)
class Interval:
    """A mean over cases and its 95 % bootstrap interval.

    Attributes:
        mean: over the cases.
        low: lower bound; None with a single case, which has no interval.
        high: upper bound; None with a single case.
        cases: how many cases.
    """

    mean: float
    low: float | None
    high: float | None
    cases: int


@dataclass(frozen=True)
class Difference:
    """A method against a baseline on the same cases, signed so that more is better for the method.

    Attributes:
        baseline: whom it is compared with.
        interval: mean paired difference.
        wins: cases in which the method is the better one.
        by_case: case ids and differences, in the order of the ids.
    """

    baseline: str
    interval: Interval
    wins: int
    by_case: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Calibration:
    """Whether the standard deviation of posterior samples says how wrong the estimate is.

    Attributes:
        coverage_90: share of body voxels whose truth lies within estimate +- 1.645 std; 0.9 is honest.
        correlation: Pearson's, between std and |error| over the body; None where either is constant.
    """

    coverage_90: float
    correlation: float | None


def without_references(rows: pd.DataFrame) -> pd.DataFrame:
    """Per-case rows of the judged model and its rivals."""
    return rows[~rows["method"].isin(names(Role.REFERENCE))]


def by_task(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the rows of each task, in the order in which tasks first appear."""
    for (profile, factor), group in rows.groupby(TASK, sort=False):
        yield task_name(str(profile), float(str(factor))), group


def bootstrap_mean(values: Sequence[float] | npt.NDArray[np.float64], *, seed: int) -> Interval:
    """Mean of values (n,) with a 95 % percentile bootstrap interval over 10,000 resamplings of the cases.

    With the same seed and number of cases the resamplings are the same, so that methods are compared on equal draws.

    Args:
        values: (n,), one a case.
        seed: of the resampling.

    Returns:
        Mean and ends; no ends for a single case.

    Raises:
        EvaluationError: no value, or one that is not finite.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise EvaluationError(f"a mean over cases needs finite numbers, got {array.tolist()}")
    if array.size == 1:
        return Interval(float(array[0]), None, None, 1)
    drawn = bootstrap(
        (array,),
        np.mean,
        n_resamples=DRAWS,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return Interval(float(array.mean()), float(low), float(high), int(array.size))


def summarise(rows: pd.DataFrame, metric: str, *, seed: int) -> dict[str, Interval]:
    """Mean and interval of a metric by method, over the cases of one task.

    Args:
        rows: per-case rows of one profile and factor: columns `case`, `method` and the metric.
        metric: the column.
        seed: of the bootstrap.

    Returns:
        In the order in which methods first appear. A method whose metric is empty for every case is left out.

    Raises:
        EvaluationError: rows of several tasks, or a method was scored on other cases than the rest.
    """
    table = _by_case(rows, metric)
    present = [name for name in table.columns if table[name].notna().any()]
    return {name: bootstrap_mean(table[name].dropna().to_numpy(float), seed=seed) for name in present}


def compare(rows: pd.DataFrame, metric: str, *, method: str, higher_is_better: bool, seed: int) -> list[Difference]:
    """Paired differences of one method against every other, over the cases of one task.

    Args:
        rows: per-case rows of one profile and factor: columns `case`, `method` and the metric.
        metric: the column.
        method: the method whose gain is asked for.
        higher_is_better: False turns the sign, so that a positive difference is always a gain.
        seed: of the bootstrap.

    Returns:
        One difference a baseline, in the order in which the methods first appear.

    Raises:
        EvaluationError: rows of several tasks, an unknown method, or other cases for one method than for the rest.
    """
    table = _by_case(rows, metric)
    if method not in table.columns:
        raise EvaluationError(f"no rows of method {method!r}: expected one of {list(table.columns)}")
    sign = 1.0 if higher_is_better else -1.0
    gains = {name: sign * (table[method] - table[name]) for name in table.columns if name != method}
    return [
        Difference(
            name,
            bootstrap_mean(gain.to_numpy(float), seed=seed),
            int((gain > 0).sum()),
            tuple((str(case), float(value)) for case, value in gain.items()),
        )
        for name, gain in gains.items()
    ]


def best_baseline(rows: pd.DataFrame, metric: str, *, method: str, higher_is_better: bool, seed: int) -> Difference:
    """The comparison of `method` with the strongest of the others: the one it gains least against on average.

    Args:
        rows: of one profile and factor, a row a case and method.
        metric: the column.
        method: the one that is compared.
        higher_is_better: whether a larger value is.
        seed: of the bootstrap.

    Returns:
        The difference of the two with its interval, above 0 where `method` is better.

    Raises:
        EvaluationError: there is no other method, or `compare` refuses the rows.
    """
    differences = compare(rows, metric, method=method, higher_is_better=higher_is_better, seed=seed)
    if not differences:
        raise EvaluationError(f"{method} has no baseline to be compared with: evaluate at least one other method")
    return min(differences, key=lambda difference: difference.interval.mean)


def _by_case(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Cases down in sorted order, methods across in order of appearance.

    Args:
        rows: one a case and method, of one task.
        metric: the column that is shown.

    Returns:
        A table whose values are those of the column.

    Raises:
        EvaluationError: rows of several tasks, a case scored twice, or a method that lacks a case.
    """
    tasks = rows[TASK].drop_duplicates()
    if len(tasks) != 1:
        raise EvaluationError(f"expected rows of one profile and factor, got {tasks.to_numpy().tolist()}")
    if rows.duplicated(["case", "method"]).any():
        raise EvaluationError("a case was scored twice with the same method: keep one row each")
    present = pd.crosstab(rows["case"], rows["method"])
    if (present == 0).to_numpy().any():
        lacking = sorted(str(name) for name in present.columns[(present == 0).any()])
        raise EvaluationError(f"methods {lacking} were not scored on every case: pairs need the same cases for all")
    table = rows.pivot_table(index="case", columns="method", values=metric, aggfunc="first", dropna=False)
    return table.sort_index()[list(dict.fromkeys(rows["method"]))]


def calibrate(estimate_hu: FloatArray, std_hu: FloatArray, truth: Truth) -> Calibration:
    """Coverage and correlation of a posterior's standard deviation, inside the body and without the end slices.

    Args:
        estimate_hu: (z, y, x) posterior mean, HU.
        std_hu: (z, y, x) standard deviation over samples, HU, not negative.
        truth: the thin volume.

    Returns:
        The share within the interval, 0 to 1, and the correlation, -1 to 1, None where either is constant.

    Raises:
        EvaluationError: shapes differ, a value is not finite, or a standard deviation is negative.

    Source: a Gaussian's central 90 % lies within 1.645 standard deviations.
    """
    check_estimate(estimate_hu, truth)
    check_estimate(std_hu, truth)
    if std_hu.min() < 0:
        raise EvaluationError(
            f"a standard deviation must not be negative, got {std_hu.min():g} HU: is it the mean that was given?"
        )
    body = truth.body[truth.kept]
    error = np.abs(estimate_hu[truth.kept][body] - truth.hu[truth.kept][body]).astype(np.float64)
    spread = std_hu[truth.kept][body].astype(np.float64)
    covered = float(np.mean(error <= NormalDist().inv_cdf(0.95) * spread))
    if np.ptp(spread) == 0 or np.ptp(error) == 0:
        return Calibration(covered, None)
    return Calibration(covered, float(np.corrcoef(spread, error)[0, 1]))
