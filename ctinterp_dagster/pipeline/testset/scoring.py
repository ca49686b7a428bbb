"""Every method on one thin volume that was thickened: what `ctinterp evaluate` and the evaluate stage share."""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from ctinterp_dagster.evaluation.metrics import Scores, Truth, score
from ctinterp_dagster.physics.measurement import Measurement, Method


class ResourceMeter:
    """Wall time and peak resident memory of a block, sampled every 20 ms."""

    def __init__(self) -> None:
        """Prepare; nothing is measured yet."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._peak_bytes = 0
        self.seconds = 0.0

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.02):
            self._peak_bytes = max(self._peak_bytes, process.memory_info().rss)

    def __enter__(self) -> Self:
        self._peak_bytes = psutil.Process().memory_info().rss
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()

    @property
    def peak_mib(self) -> float:
        """Peak resident set size in MiB."""
        return self._peak_bytes / 2**20


@dataclass(frozen=True)
class Scored:
    """One method on one case.

    Attributes:
        method: its name in the table.
        scores: against the truth.
        seconds: of restoring.
        peak_rss_mib: peak resident set size of the process meanwhile, MiB.
    """

    method: str
    scores: Scores
    seconds: float
    peak_rss_mib: float


def score_methods(measurement: Measurement, methods: Mapping[str, Method]) -> Iterator[Scored]:
    """Restore a thick scan with every method, one after the other, and score the results against the truth.

    Args:
        measurement: with its truth.
        methods: by name.

    Yields:
        Scores, seconds and peak memory of each method, in the order of `methods`.

    Raises:
        EvaluationError: the truth is too small, or an estimate is not finite.
    """
    truth = Truth.of(measurement.known.hu, factor=measurement.factor)
    for name, method in methods.items():
        with ResourceMeter() as meter:
            estimate = method(measurement)
        scores = score(estimate.mean.hu, truth, residual_hu=estimate.residual_hu)
        yield Scored(name, scores, meter.seconds, meter.peak_mib)
