"""Every method on one thin volume that was thickened: what `ctinterp evaluate` and the evaluate stage share."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import psutil
import torch
from torch import Tensor

from ctinterp_dagster.evaluation.metrics import Scores, Truth, score
from ctinterp_dagster.interpolation import Aligned
from ctinterp_dagster.params import Profile
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import Volume

Restore = Callable[[Tensor, ThickeningOperator], Tensor]


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
    """One method on one case."""

    method: str
    scores: Scores
    seconds: float
    peak_rss_mib: float


def synthetic(
    thin: Volume, thick: Volume, factor: int, profile: Profile, thin_thickness_mm: float | None = None
) -> Aligned:
    """A thin scan, cut to whole groups of `factor` slices, and what `thicken` made of it.

    Args:
        thin: the truth.
        thick: of the truth.
        factor: thin slices a thick one.
        profile: that it was thickened with.
        thin_thickness_mm: of the thin slices, where they overlap; None where they touch.
    """
    operator = ThickeningOperator.from_factor(thick.depth * factor, factor, profile)
    if thin_thickness_mm is not None:
        operator = replace(operator, thin_thickness=thin_thickness_mm / thin.spacing_mm[0])
    kept = thin.with_slices(thin.hu[: operator.n_thin], 0, thin.spacing_mm[0])
    return Aligned(thick, kept, operator, factor)


def score_aligned(pair: Aligned, *, baselines: tuple[str, ...], models: Mapping[str, Restore]) -> Iterator[Scored]:
    """Restore a thick scan with every method, one after the other, and score the results against the truth.

    Args:
        pair: thick scan, truth, and how they are related.
        baselines: names of classical methods.
        models: restore with what was learned, by the name of the table's row.
    """
    thin, operator = pair.thin, pair.operator
    truth = Truth.of(thin.hu, factor=pair.factor)
    thick_hu = torch.from_numpy(pair.thick.hu)
    aspect = thin.spacing_mm[0] / ((thin.spacing_mm[1] + thin.spacing_mm[2]) / 2)
    classical = {name: lambda y, a, method=METHODS[name]: method(y, a, aspect) for name in baselines}
    for method, restore in {**classical, **models}.items():
        with ResourceMeter() as meter:
            estimate = restore(thick_hu, operator)
        residual_hu = float((operator.forward(estimate) - thick_hu).abs().mean())
        scores = score(estimate.numpy(), truth, residual_hu=residual_hu)
        yield Scored(method, scores, meter.seconds, meter.peak_mib)
