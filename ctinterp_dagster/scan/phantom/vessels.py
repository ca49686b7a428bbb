"""Trees that branch from the hilum into the lung: arteries, veins, airways."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctinterp_dagster.scan.phantom.canvas import Canvas, Point
from ctinterp_dagster.scan.volume import FloatArray

# Radius of a daughter against its parent. Source: Murray, 1926, r0^3 = r1^3 + r2^3.
DAUGHTER = 2 ** (-1 / 3)
LEAST_RADIUS_MM = 0.7


@dataclass(frozen=True)
class Branch:
    """One straight piece of a tree: two ends (x, y, z) in mm and a radius."""

    start: Point
    end: Point
    radius_mm: float


def _turned(direction: Point, angle: float, around: float) -> Point:
    """The unit vector at `angle` from `direction`, `around` it (radians)."""
    x, y, z = direction.tolist()
    # Two unit vectors across the direction. Source: Duff et al., 2017, Building an Orthonormal Basis, Revisited.
    sign = math.copysign(1.0, z)
    a, b = -1 / (sign + z), -x * y / (sign + z)
    u = np.array([1 + sign * x * x * a, sign * b, -sign * x])
    v = np.array([b, sign + y * y * a, -y])
    return math.cos(angle) * direction + math.sin(angle) * (math.cos(around) * u + math.sin(around) * v)


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
    front = [(root, direction / math.hypot(*direction), radius_mm, float(rng.uniform(0, math.pi)))]
    while front:
        start, heading, radius, plane = front.pop(0)
        length = radius * rng.uniform(3.2, 5.0) + 5.0
        end = start + length * heading
        yield Branch(start, end, radius)
        away = (end - root) / math.dist(end, root)
        lean = rng.uniform(0.85, 1.12)
        for side, share in ((1.0, lean), (-1.0, 2 - lean)):
            smaller = radius * DAUGHTER * share * 0.97
            if smaller < LEAST_RADIUS_MM:
                continue
            turned = _turned(heading, math.radians(rng.uniform(15, 50)) / share, plane + (math.pi if side < 0 else 0.0))
            turned = turned + 0.35 * away
            front.append((end, turned / math.hypot(*turned), smaller, plane + math.radians(rng.uniform(60, 120))))


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
