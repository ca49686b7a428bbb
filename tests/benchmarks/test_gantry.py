import math

import numpy as np
import pytest

from benchmarks.gantry import explained
from benchmarks.tilt import Array

TILTS = tuple(map(math.radians, (-18.5, 16.5)))


def by_headers(points: Array, tilt: float, less: float, lower_mm: float) -> Array:
    """Where headers place points (n, 3) of a gantry whose angle and pivot are others than theirs."""
    angle, centre = tilt - less, 125.0  # along y, mm: the middle of the gantry, about which the headers have it turn
    columns = lower_mm + (points[:, 1] - centre - lower_mm) / math.cos(angle)  # in its plane, from its middle
    table = points[:, 2] - (columns - lower_mm) * math.sin(angle)
    return np.column_stack([points[:, 0], centre + columns * math.cos(tilt), table + columns * math.sin(tilt)])


def test_an_object_that_moved_is_told_from_a_pivot_and_from_an_angle() -> None:
    places = np.random.default_rng(0).uniform((-60, 50, 700), (60, 170, 800), (80, 3))
    moved = places + np.array([0.1, -0.8, -0.2])
    found = [by_headers(moved, tilt, less, -1.5) for tilt, less in zip(TILTS, (0.0, 0.006), strict=True)]
    best, left = explained(9, TILTS, [places, places], found)
    assert best[:3] == pytest.approx([0.1, -0.8, -0.2], abs=0.12)
    assert best[6] == pytest.approx(-1.5, abs=0.1)
    assert best[7:] == pytest.approx([0.0, 0.006], abs=5e-4)
    assert np.abs(left).max() < 0.02
