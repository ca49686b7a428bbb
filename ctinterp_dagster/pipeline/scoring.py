"""Every method on one thin volume that was thickened: what `ctinterp evaluate` and the evaluate stage share."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import psutil
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation.metrics import Scores, Truth, check_size, score
from ctinterp_dagster.interpolation import Aligned, thicken
from ctinterp_dagster.params import Profile
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.operator import PART_OF_A_SLICE, ThickeningOperator, slices_within
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
    thin: Volume, thick: Volume, factor: float, profile: Profile, thin_thickness_mm: float | None = None
) -> Aligned:
    """A thin scan, cut to the slices that reach into whole thick ones, and what `thicken` made of it.

    Args:
        thin: the truth.
        thick: of the truth, or of finer slices behind it.
        factor: thin slices a thick one.
        profile: that it was thickened with.
        thin_thickness_mm: of the thin slices, where they overlap; None where they touch.
    """
    operator = ThickeningOperator.from_factor(slices_within(thick.depth, factor), factor, profile)
    if thin_thickness_mm is not None:
        operator = replace(operator, thin_thickness=thin_thickness_mm / thin.spacing_mm[0])
    kept = thin.with_slices(thin.hu[: operator.n_thin], 0, thin.spacing_mm[0])
    return Aligned(thick, kept, operator, factor)


def slices_a_mean(thin: Volume, spacing_mm: float | None) -> float:
    """How many slices of a scan a slice of `spacing_mm` is the mean of; 1 for None. Whole where it nearly is.

    Raises:
        ParamsError: the scan's own slices are thicker.
    """
    own_mm = thin.spacing_mm[0]
    ratio = (spacing_mm or own_mm) / own_mm
    ratio = float(round(ratio)) if abs(ratio - round(ratio)) < PART_OF_A_SLICE else ratio
    if ratio < 1:
        raise ParamsError(
            f"the truth has a slice every {own_mm:g} mm, and none every {spacing_mm:g} mm is known: give {own_mm:g} mm "
            "or more"
        )
    return ratio


def simulated(
    thin: Volume,
    factor: float,
    profile: Profile,
    spacing_mm: float | None = None,
    thin_thickness_mm: float | None = None,
) -> Aligned:
    """A thin scan as the truth on a grid that may be coarser, and the thick scan that its own slices make.

    On a coarser grid the truth is means of the slices, and the thick slices see what lies within them, as those of a
    scanner do.

    Args:
        thin: the scan.
        factor: slices of the truth a thick one.
        profile: to thicken with.
        spacing_mm: slice distance of the truth; the scan's own where None.
        thin_thickness_mm: of the scan's slices, where they overlap; None where they touch.

    Raises:
        ParamsError: the scan is coarser than `spacing_mm`, or its slices are thinner than their distance or no thinner
            than the thick ones.
        EvaluationError: too few slices or pixels, or a factor that is not above 1.

    Source: the thickness of a mean of slices that overlap: variances of convolved profiles add, so that it is
        sqrt(T^2 + spacing_mm^2 - d^2) for slices of T every d.
    """
    ratio, own_mm = slices_a_mean(thin, spacing_mm), thin.spacing_mm[0]
    truth = thicken(thin, ratio, "box") if ratio > 1 else thin
    check_size(truth.hu.shape, factor)
    truth_mm, thickness_mm = truth.spacing_mm[0], None
    if thin_thickness_mm is not None:
        if not own_mm * (1 - PART_OF_A_SLICE) <= thin_thickness_mm < factor * truth_mm:
            raise ParamsError(
                f"the thin slices must be at least as thick as their distance, {own_mm:g} mm, and thinner than the "
                f"thick ones of {factor * truth_mm:g} mm, got {thin_thickness_mm:g} mm: change --thin-thickness"
            )
        thickness_mm = math.sqrt(thin_thickness_mm**2 + truth_mm**2 - own_mm**2)
    thick = thicken(thin, factor * ratio, profile)
    filled = int((truth.depth + PART_OF_A_SLICE) / factor)
    return synthetic(truth, thick.with_slices(thick.hu[:filled], 0, thick.spacing_mm[0]), factor, profile, thickness_mm)


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
