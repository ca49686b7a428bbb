"""How wide an edge across the slices is drawn."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.optimize import curve_fit
from scipy.special import ndtr

from ctinterp_dagster.scan.volume import DoubleArray, FloatArray

BIN_MM, REACH_MM = 0.25, 12.0


def edge_spread(hu: FloatArray, step_mm: float, edges: Mapping[str, DoubleArray]) -> DoubleArray:
    """Mean edge spread function over columns along z, in bins of 0.25 mm from -12 to 12 mm; 0 below, 1 above.

    Args:
        hu: (z, y, x).
        step_mm: distance of slices.
        edges: y, x: columns; at_mm: where the edge lies, from the first slice's centre; low, high: HU on either side.

    Returns:
        (96,), a value a bin; bins that no column reaches are interpolated.

    Source: Richard et al. 2012, Med. Phys. 39(7): the task transfer function of an edge, over-sampled by its tilt.
    """
    columns = (hu[:, edges["y"].astype(int), edges["x"].astype(int)] - edges["low"]) / (edges["high"] - edges["low"])
    from_edge = np.arange(len(hu))[:, None] * step_mm - edges["at_mm"]
    bins = np.floor((from_edge + REACH_MM) / BIN_MM).astype(int)
    count = round(2 * REACH_MM / BIN_MM)
    inside = (bins >= 0) & (bins < count)
    sums, samples = (np.bincount(bins[inside], weights, count) for weights in (columns[inside], None))
    filled = samples > 0
    return np.interp(np.arange(count), np.flatnonzero(filled), sums[filled] / samples[filled])


class Resolution(NamedTuple):
    """How wide an edge is drawn.

    Attributes:
        width_mm: full width at half maximum of the Gaussian line spread that fits best.
        half_per_mm: frequency at which the transfer of the measured line spread, without a model, is a half.
    """

    width_mm: float
    half_per_mm: float


def resolution(spread: DoubleArray) -> Resolution:
    """How wide the edge of an edge spread function is.

    Args:
        spread: (96,), as `edge_spread` gives it: bins of 0.25 mm about the edge, 0 below and 1 above.

    Returns:
        Full width at half maximum in mm, and the frequency in 1/mm at which the transfer is a half.

    Raises:
        RuntimeError: no Gaussian fits.

    Source: Richard et al. 2012, Med. Phys. 39(7): the transfer function of the derivative of an edge.
    """
    at = (np.arange(len(spread)) + 0.5) * BIN_MM - REACH_MM
    (_, sigma), _ = curve_fit(lambda z, middle, width: ndtr((z - middle) / width), at, spread, p0=(0.0, 2.0))
    line = np.diff(spread)
    padded = np.zeros(4096)
    padded[: len(line)] = line
    transfer = np.abs(np.fft.rfft(padded)) / abs(line.sum())
    frequencies = np.fft.rfftfreq(len(padded), BIN_MM)
    below = int(np.argmax(transfer < 0.5))
    share = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
    width_mm = float(2 * np.sqrt(2 * np.log(2)) * abs(sigma))
    return Resolution(width_mm, float(frequencies[below - 1] + share * frequencies[1]))
