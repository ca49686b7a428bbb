"""Whether an estimate can be what the thick slices saw: a look at each result before it is written."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.errors import DoubtfulResultError
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.measurement import Estimate, Measurement
from ctinterp_dagster.physics.operator import ThickeningOperator

# Thresholds and what results have that are right or wrong: docs/experiments.md, entry 17.
RANGE_MARGIN = 0.1  # of the range of the thick slices, by which thin slices may leave it
MOST_OUTSIDE = 0.003  # of the voxels
MOST_STRIPES = 0.4
MOST_RESIDUAL = 0.1  # of the mean distance of the thick slices from their median; right results have below 0.03
BLOCK_PIXELS = 8  # pixels; means over blocks leave stripes and take most of the noise away
BLOCK_NOISE_HU = 5.0  # of a block: what is below is no stripe
ANATOMY = (0.2, 0.25, 0.3)  # cycles a slice distance: detail that the thick slices show
PERIODS = (0.5, 1.0)  # cycles a slice distance: their sampling rate and half of it
LEAST_THICK_SLICES = 8


def doubts(measurement: Measurement, thin_hu: Tensor) -> tuple[str, ...]:
    """What is wrong with an estimate, a clause each.

    Args:
        measurement: what was restored.
        thin_hu: (n, y, x) HU on the CPU.

    Returns:
        Clauses; empty where nothing is seen.
    """
    thick_hu, operator = measurement.thick_hu, measurement.operator
    if not torch.isfinite(thin_hu).all():
        return ("some values are no numbers",)
    low, high = float(thick_hu.min()), float(thick_hu.max())
    margin = RANGE_MARGIN * (high - low)
    outside = float(((thin_hu < low - margin) | (thin_hu > high + margin)).double().mean())
    found = []
    if outside > MOST_OUTSIDE:
        found.append(
            f"{outside:.1%} of the voxels lie outside of what the thick slices allow, {low - margin:.0f} to "
            f"{high + margin:.0f} HU; they run from {float(thin_hu.min()):.0f} to {float(thin_hu.max()):.0f}"
        )
    residual = float((operator.forward(thin_hu) - thick_hu).abs().mean())
    if residual > MOST_RESIDUAL * float((thick_hu - thick_hu.median()).abs().mean()):
        width_mm = operator.thick_thickness_mm
        found.append(f"slices {width_mm:g} mm thick made of it miss those measured by {residual:.0f} HU")
    if (power := stripes(thick_hu, thin_hu, operator)) > MOST_STRIPES:
        found.append(
            f"there are stripes at the distance of the thick slices, {power:.2g} times the power of the anatomy"
        )
    return tuple(found)


def stripes(thick_hu: Tensor, thin_hu: Tensor, operator: ThickeningOperator) -> float:
    """Power at the thick slices' period that projected cubic interpolation lacks, over that of slower anatomy.

    Means over blocks of 8x8 pixels are compared; right results have below 0.1, the truth itself below 0.2. 0 where
    there are fewer than 8 thick slices.

    Args:
        thick_hu: (k, y, x) HU.
        thin_hu: (n, y, x) HU, the estimate.
        operator: (n, y, x) to (k, y, x).

    Returns:
        A ratio from 0 up.
    """
    if len(thick_hu) < LEAST_THICK_SLICES:
        return 0.0
    base = cubic_projected(_blocks(thick_hu), operator)
    positions = torch.from_numpy(operator.thin_positions)
    window = torch.hann_window(len(positions), dtype=torch.float64)

    def power(values: Tensor, frequency: float) -> float:
        wave = window * torch.exp(-2j * math.pi * frequency * positions)
        return float((wave @ values.flatten(1).to(wave.dtype)).abs().square().mean())

    added, anatomy = _blocks(thin_hu) - base, base - base.mean()
    slow = sum(power(anatomy, f) for f in ANATOMY) / len(ANATOMY)
    return max(power(added, f) for f in PERIODS) / (slow + BLOCK_NOISE_HU**2 * float(window.square().sum()))


def _blocks(hu: Tensor) -> Tensor:
    """(z, y, x) to means of blocks, (z, y / 8, x / 8), in float64; of the whole plane where it is smaller."""
    height, width = hu.shape[1:]
    return functional.avg_pool2d(hu, (min(BLOCK_PIXELS, height), min(BLOCK_PIXELS, width))).double()


class CheckedEstimate(NamedTuple):
    """An estimate, and a clause for each doubt about it."""

    estimate: Estimate
    doubts: tuple[str, ...]


@dataclass
class SelfCheck:
    """The look at the mean of a measurement before any sample is drawn, by `refuse_doubtful`.

    Attributes:
        measurement: what is restored.
        force: whether doubts are told and not refused.
        doubts: what was found.
    """

    measurement: Measurement
    force: bool
    doubts: tuple[str, ...] = ()

    def check(self, thin_hu: Tensor) -> None:
        """Look at an estimate (z, y, x) HU."""
        self.doubts = refuse_doubtful(self.measurement, thin_hu, force=self.force)


def refuse_doubtful(measurement: Measurement, thin_hu: Tensor, *, force: bool) -> tuple[str, ...]:
    """The doubts of an estimate, if they are forced.

    Args:
        measurement: what was restored.
        thin_hu: (z, y, x) HU, the estimate.
        force: whether doubts are told and not refused.

    Returns:
        A clause for each doubt; empty where nothing is seen.

    Raises:
        DoubtfulResultError: there are some, and they are not forced.
    """
    found = doubts(measurement, thin_hu)
    if found and not force:
        raise DoubtfulResultError(
            f"the result cannot be right and is not written: {'; '.join(found)}; look at the scan and its --thickness, "
            "try --method cubic_projected, tv_projected or registration_projected, or write it with --force"
        )
    return found
