"""Painting shapes with soft edges, so that voxels on a border hold the mixture that a scanner would see."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctinterp_dagster.scan.volume import FloatArray

Point = npt.NDArray[np.float64]
Field = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Box:
    """Coordinates of a part of the canvas in mm, shaped to broadcast: x to the left, y to the back, z to the head."""

    x: FloatArray
    y: FloatArray
    z: FloatArray


class Canvas:
    """A volume under construction.

    Shapes are given as signed distances in mm, negative inside. A voxel whose centre lies on the border gets half.
    """

    def __init__(
        self, shape_zyx: tuple[int, int, int], spacing_mm: tuple[float, float, float], centre_mm: Point
    ) -> None:
        """Start with air around `centre_mm` (x, y, z).

        Args:
            shape_zyx: voxels.
            spacing_mm: (z, y, x).
            centre_mm: of the canvas, (x, y, z).
        """
        self.hu = np.full(shape_zyx, -1000.0, dtype=np.float32)
        self.spacing_mm = spacing_mm
        self.axes_mm = [
            ((np.arange(n) - (n - 1) / 2) * s + c).astype(np.float32)
            for n, s, c in zip(shape_zyx, spacing_mm, centre_mm[::-1], strict=True)
        ]
        self.places_mm = [axis.tolist() for axis in self.axes_mm]
        # Borders are as wide as a voxel on average over directions.
        self.edge_mm = float(np.sqrt(np.mean(np.square(spacing_mm))))

    @property
    def box(self) -> Box:
        """The whole canvas."""
        return self._part((slice(None), slice(None), slice(None)))

    def _part(self, part: tuple[slice, slice, slice]) -> Box:
        z, y, x = (axis[s] for axis, s in zip(self.axes_mm, part, strict=True))
        return Box(x[None, None, :], y[None, :, None], z[:, None, None])

    def coverage(self, distance_mm: Field) -> FloatArray:
        """The share of each voxel (z, y, x) that lies inside, 0 to 1, by the signed distance in mm, below 0 inside."""
        share: FloatArray = (0.5 - distance_mm / np.float32(self.edge_mm)).clip(0, 1).astype(np.float32)
        return share

    def paint(self, share: Field, hu: Field | float) -> None:
        """Mix `hu` into the canvas by the share (z, y, x) of each voxel, 0 to 1."""
        self.hu += share * (np.asarray(hu, dtype=np.float32) - self.hu)

    def texture(self, rng: np.random.Generator, grain_mm: float) -> FloatArray:
        """A smooth random field (z, y, x) of mean 0 and deviation about 1, whose features are `grain_mm` large."""
        shape = self.hu.shape
        coarse = [max(4, round(n * s / grain_mm) + 3) for n, s in zip(shape, self.spacing_mm, strict=True)]
        field = rng.standard_normal(coarse).astype(np.float32)
        for axis, (n, m) in enumerate(zip(shape, coarse, strict=True)):
            at = np.linspace(1, m - 2, n)
            low = at.astype(int)
            weight = (at - low).astype(np.float32)
            weight = weight * weight * (3 - 2 * weight)
            weight = weight.reshape([-1 if k == axis else 1 for k in range(3)])
            field = field.take(low, axis) * (1 - weight) + field.take(np.minimum(low + 1, m - 1), axis) * weight
        return field * np.float32(1.6)

    def capsule(
        self, ends: Sequence[Iterable[float]], radius_mm: float, hu: float, within: FloatArray | None = None
    ) -> None:
        """Paint a rod with round ends, touching only the voxels near it.

        Args:
            ends: two points (x, y, z), mm in patient coordinates.
            radius_mm: a rod thinner than a voxel fills a share of it.
            hu: what to mix in, HU.
            within: (z, y, x) share of each voxel that the rod may take.
        """
        (x0, y0, z0), (x1, y1, z1) = ([float(c) for c in end] for end in ends)
        reach = radius_mm + self.edge_mm
        part = (self._near(0, z0, z1, reach), self._near(1, y0, y1, reach), self._near(2, x0, x1, reach))
        if any(near.start == near.stop for near in part):
            return
        allowed = np.float32(1.0) if within is None else within[part]
        if not allowed.any():
            return
        region, box = self.hu[part], self._part(part)
        x, y, z = box.x - np.float32(x0), box.y - np.float32(y0), box.z - np.float32(z0)
        dx, dy, dz = step = np.array((x1 - x0, y1 - y0, z1 - z0), dtype=np.float32)
        along = ((x * dx + y * dy + z * dz) / max(float(step @ step), 1e-6)).clip(0, 1)
        distance = np.sqrt((x - along * dx) ** 2 + (y - along * dy) ** 2 + (z - along * dz) ** 2)
        share = self.coverage(distance - np.float32(radius_mm)) * np.float32(min(1.0, 2 * radius_mm / self.edge_mm))
        region += share * allowed * (np.float32(hu) - region)

    def _near(self, axis: int, a: float, b: float, reach: float) -> slice:
        """The voxels along an axis from `reach` mm before the lower of two places to `reach` behind the higher."""
        places = self.places_mm[axis]
        return slice(bisect_left(places, min(a, b) - reach), bisect_left(places, max(a, b) + reach))

    def tube(self, points: Sequence[Point], radius_mm: float, hu: float, within: FloatArray | None = None) -> None:
        """Paint a bent tube through the points.

        Args:
            points: (x, y, z) mm.
            radius_mm: of the tube.
            hu: of what is painted.
            within: (z, y, x), share of each voxel that may be painted, 0 to 1; None for all.
        """
        for a, b in pairwise(points):
            self.capsule((a, b), radius_mm, hu, within)


@dataclass(frozen=True)
class Frame(Box):
    """The canvas in the patient's own, leaning coordinates, with the distances that several organs share.

    Attributes:
        x: mm to the left of the midline.
        y: mm behind the middle of the chest.
        z: mm above the carina.
        cage_mm: signed distance from the inner face of the rib cage.
        lungs: share of each voxel that is lung.
    """

    cage_mm: Field
    lungs: Field


def add_noise(hu: FloatArray, rng: np.random.Generator, noise_hu: float) -> FloatArray:
    """Add noise that is correlated in the plane as a reconstruction leaves it, and by 0.2 along z.

    A moving average of white slices e_k + t e_(k-1) has lag-1 correlation t / (1 + t^2), which is 0.2 at t = 0.2087.

    Args:
        hu: (z, y, x).
        rng: of the noise.
        noise_hu: its standard deviation.

    Returns:
        (z, y, x) HU; `hu` is not changed.
    """
    white = rng.standard_normal((hu.shape[0] + 1, *hu.shape[1:]), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, (0, 0.7, 0.7), truncate=3)
    smooth -= ndimage.gaussian_filter(white, (0, 1.6, 1.6), truncate=3) * np.float32(0.8)
    noise: FloatArray = smooth[1:] + np.float32(0.2087) * smooth[:-1]
    return hu + noise * np.float32(noise_hu / float(noise.std(dtype=np.float64)))


def ellipse(u: Field, v: Field, radii_mm: tuple[float, float], power: float = 2.0) -> Field:
    """Signed distance in mm, roughly, from a (super)ellipse; below 0 inside.

    Args:
        u: mm along the first axis; any shape.
        v: mm along the second; a shape that fits `u`.
        radii_mm: half axes.
        power: 2 for an ellipse, more for a rounder rectangle.

    Returns:
        mm; of the shape that `u` and `v` make together.
    """
    a, b = (np.float32(r) for r in radii_mm)
    ratio = (np.abs(u / a) ** power + np.abs(v / b) ** power) ** np.float32(1 / power)
    distance: Field = (ratio - 1) * np.sqrt(u * u + v * v) / np.maximum(ratio, np.float32(1e-3))
    return distance


def ellipsoid(at: tuple[Field, Field, Field], radii_mm: tuple[float, float, float]) -> Field:
    """Signed distance in mm, roughly, from an ellipsoid at the origin of `at`, (x, y, z) in mm; below 0 inside."""
    x, y, z = at
    a, b, c = (np.float32(r) for r in radii_mm)
    ratio = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    distance: Field = (ratio - 1) * np.sqrt(x * x + y * y + z * z) / np.maximum(ratio, np.float32(1e-3))
    return distance
