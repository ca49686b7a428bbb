"""Trees that branch from the hilum into the lung: arteries, veins, airways."""

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ctinterp_dagster.scan.phantom.canvas import Canvas, Point
from ctinterp_dagster.scan.volume import FloatArray

# Radius of a daughter against its parent. Source: Murray, 1926, r0^3 = r1^3 + r2^3.
DAUGHTER = 2 ** (-1 / 3)
LEAST_RADIUS_MM = 0.7

Place = tuple[float, float, float]  # three numbers of Python are added faster than an array of three


class Branch(NamedTuple):
    """One straight piece of a tree: two ends (x, y, z) in mm and a radius."""

    start: Place
    end: Place
    radius_mm: float


def _turned(direction: Place, angle: float, around: float) -> Place:
    """The unit vector at `angle` from `direction`, `around` it (radians)."""
    x, y, z = direction
    # Two unit vectors across the direction. Source: Duff et al., 2017, Building an Orthonormal Basis, Revisited.
    sign = math.copysign(1.0, z)
    a, b = -1 / (sign + z), -x * y / (sign + z)
    u = (1 + sign * x * x * a, sign * b, -sign * x)
    v = (b, sign + y * y * a, -y)
    ahead, aside, p, q = math.cos(angle), math.sin(angle), math.cos(around), math.sin(around)
    return (
        ahead * x + aside * (p * u[0] + q * v[0]),
        ahead * y + aside * (p * u[1] + q * v[1]),
        ahead * z + aside * (p * u[2] + q * v[2]),
    )


def _from(start: Place, length: float, heading: Place) -> Place:
    """The point `length` along `heading` from `start`."""
    return start[0] + length * heading[0], start[1] + length * heading[1], start[2] + length * heading[2]


def _unit(x: float, y: float, z: float) -> Place:
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def grow(rng: np.random.Generator, root: Point, direction: Point, radius_mm: float) -> Iterator[Branch]:
    """Yield the branches of a tree, parents before daughters.

    Daughters leave in opposite directions, 15 to 50 degrees off, in a plane that turns from fork to fork, and bend
    away from the root. The thicker daughter turns less, as in Murray's law.

    Args:
        rng: of all chance.
        root: (x, y, z) mm, where the first branch begins.
        direction: of the first branch, a unit vector.
        radius_mm: of the first branch.

    Source: radii and angles of a fork by least work, Murray 1926, PNAS 12(3) and J. Gen. Physiol. 9(6).
    """
    x, y, z = root.tolist()
    first = (x, y, z)
    front = deque([(first, _unit(*direction.tolist()), radius_mm, float(rng.uniform(0, math.pi)))])
    while front:
        start, heading, radius, plane = front.popleft()
        length = radius * rng.uniform(3.2, 5.0) + 5.0
        end = _from(start, length, heading)
        yield Branch(start, end, radius)
        far = math.dist(end, first)
        away = ((end[0] - x) / far, (end[1] - y) / far, (end[2] - z) / far)
        lean = rng.uniform(0.85, 1.12)
        for side, share in ((1.0, lean), (-1.0, 2 - lean)):
            smaller = radius * DAUGHTER * share * 0.97
            if smaller < LEAST_RADIUS_MM:
                continue
            turned = _turned(heading, math.radians(rng.uniform(15, 50)) / share, plane + (math.pi if side < 0 else 0.0))
            bent = _unit(*_from(turned, 0.35, away))
            front.append((end, bent, smaller, plane + math.radians(rng.uniform(60, 120))))


def paint_vessels(canvas: Canvas, branches: Iterator[Branch], hu: float, within: FloatArray) -> None:
    """Paint a tree of vessels; thin ones are the same blood, and fill less of their voxels.

    Args:
        canvas: where.
        branches: of the tree.
        hu: of blood.
        within: (z, y, x), share of each voxel that may be painted, 0 to 1.
    """
    for branch in branches:
        canvas.capsule((branch.start, branch.end), branch.radius_mm, hu, within)


def paint_airways(canvas: Canvas, branches: Iterator[Branch], within: FloatArray) -> None:
    """Paint a tree of air tubes with walls of a quarter of the radius, as far as a scan shows them (1.2 mm).

    Args:
        canvas: painted on.
        branches: of the tree.
        within: (z, y, x), the share of each voxel that may be painted, 0 to 1.
    """
    shown = [b for b in branches if b.radius_mm > 1.2]
    for branch in shown:
        canvas.capsule((branch.start, branch.end), branch.radius_mm + max(0.6, branch.radius_mm / 4), 10.0, within)
    for branch in shown:
        canvas.capsule((branch.start, branch.end), branch.radius_mm, -990.0, within)
