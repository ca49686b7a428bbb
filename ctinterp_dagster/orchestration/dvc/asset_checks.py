"""Asset checks from the thresholds that a stage declares for its metrics in `meta.dagster.checks`."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dagster as dg

from .metadata import stage_metrics
from .stage import DvcProjectError, DvcStage

_FIELDS = {"metric", "min", "max", "blocking", "severity", "description"}


@dataclass(frozen=True)
class Threshold:
    """One entry of `meta.dagster.checks`: numbers that must be there, finite, and within bounds.

    Attributes:
        metric: dotted name in one of the stage's metrics files; `*` stands for any text.
        low: smallest value allowed, None for no bound.
        high: largest value allowed, None for no bound.
        blocking: whether downstream assets of the same run wait for it and do not run when it fails.
        severity: whether a failure is an error or a warning.
        description: what the check is for.
    """

    metric: str
    low: float | None
    high: float | None
    blocking: bool
    severity: dg.AssetCheckSeverity
    description: str

    @property
    def name(self) -> str:
        """The metric's name in letters, digits and underscores."""
        return re.sub(r"\W+", "_", self.metric).strip("_") or "metrics"

    def judge(self, metrics: Mapping[str, float]) -> dg.AssetCheckResult:
        """Whether every number that the metric's name fits is within the bounds."""
        found = {name: value for name, value in metrics.items() if fnmatch(name, self.metric)}
        bad = {name: value for name, value in found.items() if not self._allows(value)}
        numbers = ", ".join(f"{name} = {value:.6g}" for name, value in (bad or found).items())
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=bool(found) and not bad,
            severity=self.severity,
            description=f"{numbers or f'no metric is named {self.metric}'}; {self.bounds}",
            metadata={name: dg.MetadataValue.float(value) for name, value in found.items()},
        )

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        low = [f"at least {self.low:g}"] if self.low is not None else []
        high = [f"at most {self.high:g}"] if self.high is not None else []
        return "expected " + (" and ".join(low + high) or "a finite number")

    def _allows(self, value: float) -> bool:
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        return math.isfinite(value) and above and below


def thresholds(stage: DvcStage) -> tuple[Threshold, ...]:
    """What `meta.dagster.checks` of a stage declares.

    Args:
        stage: of a dvc.yaml.

    Returns:
        Thresholds in their order; empty where none is declared.

    Raises:
        DvcProjectError: an entry has no metric, an unknown field, or a severity that is neither warn nor error.
    """
    return tuple(_threshold(stage, entry) for entry in stage.settings.get("checks", []))


def check_results(stages: Sequence[DvcStage], root: Path) -> Iterator[dg.AssetCheckResult]:
    """What the checks of one asset say of the metrics files that are there now; of several stages, the worst."""
    found: dict[str, list[dg.AssetCheckResult]] = {}
    for stage in stages:
        metrics = {metric.name: metric.value for metric in stage_metrics(stage, root)}
        for threshold in thresholds(stage):
            found.setdefault(threshold.name, []).append(threshold.judge(metrics))
    yield from (min(results, key=lambda result: result.passed) for results in found.values())


def _threshold(stage: DvcStage, entry: Mapping[str, Any]) -> Threshold:
    unknown = sorted(set(entry) - _FIELDS)
    severity = str(entry.get("severity", "error")).upper()
    if unknown or "metric" not in entry or severity not in {"WARN", "ERROR"}:
        raise DvcProjectError(
            f"{stage.file}: {stage.name}: meta.dagster.checks: got {dict(entry)}, expected a mapping with metric and "
            f"any of {', '.join(sorted(_FIELDS - {'metric'}))} (severity is warn or error)"
        )
    bound = {side: None if entry.get(side) is None else float(entry[side]) for side in ("min", "max")}
    return Threshold(
        metric=str(entry["metric"]),
        low=bound["min"],
        high=bound["max"],
        blocking=bool(entry.get("blocking", False)),
        severity=dg.AssetCheckSeverity[severity],
        description=str(entry.get("description", "")),
    )
