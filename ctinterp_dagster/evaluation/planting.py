"""Structures that are added to a thin scan before it is thickened, so that it is known what a method loses of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.special import ndtr

from ctinterp_dagster.evaluation.tissue import BoolArray
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, Volume

LUNG, SOFT, BONE = "lung", "soft tissue", "bone"
WITHIN_HU = {LUNG: (-1020.0, -700.0, 120.0), SOFT: (-20.0, 120.0, 60.0), BONE: (250.0, 3000.0, 500.0)}
"""Of a tissue: least and greatest mean, greatest standard deviation around a place. The phantom's lungs are of air."""
CRACKS = ("crack in a slice", "crack across slices")
EDGE_MM = 0.5  # sigma of a structure's edge
PARTS = 5  # of a slice, whose mean a voxel sees
WIDTH_MM = 1.0  # of a crack
MOST_CANDIDATES = 5000
ROD_MM, ROD_HEIGHT_MM, TILT = 7.0, 24.0, 0.5  # radius; height; how far the faces rise, mm a mm
ROD_ENDS_MM = (ROD_HEIGHT_MM / 2 + 12, ROD_MM + 3, ROD_MM + 3)
ROD_BETWEEN_MM = (ROD_HEIGHT_MM + 20, 4 * ROD_MM, 4 * ROD_MM)


@dataclass(frozen=True)
class Structure:
    """What is planted.

    Attributes:
        tissue: that it lies in.
        kind: ball; crack across the slices' axis, or along it.
        size_mm: diameter; a crack is a disc of it, 1 mm wide.
        contrast_hu: that it adds.
    """

    tissue: str
    kind: str
    size_mm: float
    contrast_hu: float

    @property
    def reach_mm(self) -> float:
        """Distance from its centre to where nothing is added."""
        return self.size_mm / 2 + 3 * EDGE_MM

    def share(self, z: DoubleArray, y: DoubleArray, x: DoubleArray) -> DoubleArray:
        """How much of its contrast is added at places about its centre, 0 to 1.

        Args:
            z: mm from its centre, like y and x of shapes that make (z, y, x) together.
            y: mm from its centre.
            x: mm from its centre.

        Returns:
            Shares of the shape that z, y and x make together.
        """
        radius = self.size_mm / 2
        if self.kind == "ball":
            inside: DoubleArray = ndtr((radius - np.sqrt(z**2 + y**2 + x**2)) / EDGE_MM)
            return inside
        normal, others = (z, (y, x)) if self.kind == CRACKS[0] else (x, (z, y))
        band: DoubleArray = ndtr((WIDTH_MM / 2 - normal) / EDGE_MM) + ndtr((WIDTH_MM / 2 + normal) / EDGE_MM) - 1
        disc: DoubleArray = ndtr((radius - np.hypot(*others)) / EDGE_MM)
        return band * disc


Planted = list[tuple[Structure, DoubleArray]]
"""Structures and their places in mm, (z, y, x) from the outer corner of the first voxel."""


def paint(scan: Volume, centre_mm: DoubleArray, structure: Structure) -> None:
    """Add a structure to a scan's values, voxels its mean over their slice.

    Args:
        scan: the thin scan.
        centre_mm: (z, y, x) from the outer corner of its first voxel.
        structure: what to add.
    """
    cut = around(scan.hu.shape, scan.spacing_mm, centre_mm, structure.reach_mm)
    steps = [
        (np.arange(part.start, part.stop) + 0.5) * step - centre
        for part, step, centre in zip(cut, scan.spacing_mm, centre_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*steps, indexing="ij")
    share = np.mean([structure.share(z + part, y, x) for part in _parts(scan)], axis=0)
    scan.hu[cut] += (structure.contrast_hu * share).astype(np.float32)


def _parts(scan: Volume) -> DoubleArray:
    """Where a slice is sampled, mm from its middle."""
    return ((np.arange(PARTS) + 0.5) / PARTS - 0.5) * scan.spacing_mm[0]


def around(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], centre_mm: DoubleArray, reach_mm: float
) -> tuple[slice, ...]:
    """The voxels that a cube around a place reaches into, always as many away from the ends.

    Args:
        shape: (z, y, x) of the volume.
        spacing_mm: distance of voxels along (z, y, x).
        centre_mm: (z, y, x) from the outer corner of the first voxel.
        reach_mm: half the cube's side.

    Returns:
        Slices for z, y and x within the volume.
    """
    halves = [int(np.ceil(reach_mm / step)) for step in spacing_mm]
    middle = [int(centre / step) for centre, step in zip(centre_mm, spacing_mm, strict=True)]
    return tuple(slice(max(0, m - h), min(n, m + h + 1)) for m, h, n in zip(middle, halves, shape, strict=True))


def tissue_around(hu: FloatArray, spacing_mm: tuple[float, ...], around_mm: float) -> dict[str, BoolArray]:
    """Where a tissue is alone in the cube around a voxel, by the mean and the standard deviation of HU there.

    Args:
        hu: (z, y, x) HU.
        spacing_mm: distance of voxels along (z, y, x).
        around_mm: side of the cube.

    Returns:
        (z, y, x) by the name of the tissue, as in `WITHIN_HU`.
    """
    size = [max(1, round(around_mm / step)) for step in spacing_mm]
    mean = uniform_filter(hu, size, mode="nearest")
    deviation = np.sqrt(np.maximum(uniform_filter(np.square(hu), size, mode="nearest") - np.square(mean), 0))
    return {name: (mean > low) & (mean < high) & (deviation < most) for name, (low, high, most) in WITHIN_HU.items()}


def candidates(
    thin: Volume,
    inside: BoolArray,
    ends_mm: Sequence[float],
    rng: np.random.Generator,
    within: DoubleArray | float = 0.5,
) -> DoubleArray:
    """Places in random order, at most 5000.

    Args:
        thin: the scan.
        inside: the voxels (z, y, x) that they lie in.
        ends_mm: how far from the ends of the scan they are, (z, y, x).
        rng: of the order.
        within: the voxel, where they lie, 0 to 1.

    Returns:
        (n, 3) mm, n at most 5000.
    """
    places = (np.argwhere(inside) + within) * thin.spacing_mm
    size_mm = np.array(thin.hu.shape) * thin.spacing_mm
    return rng.permutation(places[((places > ends_mm) & (places < size_mm - ends_mm)).all(axis=1)])[:MOST_CANDIDATES]


def is_apart(place: DoubleArray, others: Iterable[DoubleArray], between_mm: Sequence[float]) -> bool:
    """Whether a place is as far from all others as told, along at least one axis.

    Args:
        place: (z, y, x) mm.
        others: the same each.
        between_mm: least distances along (z, y, x).

    Returns:
        True also where there are no others.
    """
    return all((np.abs(place - other) > between_mm).any() for other in others)


class PlantedRods(NamedTuple):
    """A scan with rods.

    Attributes:
        scan: with the rods in it.
        places_mm: (z, y, x) of their middles by contrast, from the outer corner of the first voxel; no place where
            there is no room.
    """

    scan: Volume
    places_mm: dict[float, list[DoubleArray]]


def rods(thin: Volume, contrasts_hu: Sequence[float]) -> PlantedRods:
    """A scan with upright rods in soft tissue or lung whose faces are tilted.

    Args:
        thin: the scan.
        contrasts_hu: that rods add, by turns.

    Returns:
        The scan and the places of the rods.
    """
    where = tissue_around(thin.hu, thin.spacing_mm, ROD_MM)
    chosen: list[DoubleArray] = []
    for place in candidates(thin, where[LUNG] | where[SOFT], ROD_ENDS_MM, np.random.default_rng(0))[:3000]:
        if is_apart(place, chosen, ROD_BETWEEN_MM):
            chosen.append(place)
    by_contrast = {hu: chosen[k :: len(contrasts_hu)] for k, hu in enumerate(contrasts_hu)}
    scan = thin.with_hu(thin.hu.copy())
    z, y, x = ((np.arange(n) + 0.5) * step for n, step in zip(thin.hu.shape, thin.spacing_mm, strict=True))
    for contrast, places in by_contrast.items():
        for place in places:
            across = ndtr((ROD_MM - np.hypot((y - place[1])[:, None], (x - place[2])[None])) / EDGE_MM)
            heights = (z - place[0])[:, None, None] + _parts(thin)[None, :, None] - TILT * (x - place[2])[None, None]
            along = (ndtr((ROD_HEIGHT_MM / 2 - np.abs(heights)) / EDGE_MM)).mean(axis=1)
            scan.hu[:] += (contrast * along[:, None, :] * across[None]).astype(np.float32)
    return PlantedRods(scan, by_contrast)


def rod_edges(
    places_mm: Sequence[DoubleArray], spacing_mm: tuple[float, ...], contrast_hu: float
) -> Mapping[str, DoubleArray]:
    """Both faces of rods, 5 mm around their axes, for `resolution.edge_spread` of what the rods add to a volume.

    Args:
        places_mm: (z, y, x) of their middles.
        spacing_mm: distance of voxels along (z, y, x).
        contrast_hu: that they add.

    Returns:
        (n,) each: pixel `y` and `x`, height `at_mm` of the face, and the values `low` below and `high` above it, HU.
    """
    rows = []
    for place in places_mm:
        reach = [int(5 / step) for step in spacing_mm[1:]]
        middle = [int(mm / step) for mm, step in zip(place[1:], spacing_mm[1:], strict=True)]
        y, x = (np.arange(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))
        y, x = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
        rise = TILT * ((x + 0.5) * spacing_mm[2] - place[2])
        for side in (-1, 1):
            at = place[0] + side * ROD_HEIGHT_MM / 2 + rise - spacing_mm[0] / 2
            ends = (0.0, contrast_hu) if side < 0 else (contrast_hu, 0.0)
            rows.append([y, x, at, *(np.full(len(y), end) for end in ends)])
    joined = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return dict(zip(("y", "x", "at_mm", "low", "high"), joined, strict=True))
