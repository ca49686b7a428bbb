"""Labels of a thick scan on its thin grid, by the edges of the estimate."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctinterp_dagster.errors import GeometryError
from ctinterp_dagster.scan.volume import FloatArray, Volume

LabelArray = npt.NDArray[np.integer]
Places = npt.NDArray[np.float64]

PRIOR_MM = 1.0  # distance from an edge between slices that weighs as much as one unit of log-likelihood
REACH_MM = 5.0  # from its voxels in both neighbouring thick slices, beyond which a label is not looked for
OVERLAP = 0.1  # of the voxels on one side of an edge that may lie on the wrong side of its value
LEAST_AGREEING = 0.8  # of the pairs of neighbours, which differ the same way: else the edge has no one value
LEAST_NOISE_HU = 10.0


@dataclass(frozen=True)
class Edges:
    """What the thick slices show of the edges between labels.

    Attributes:
        value_hu: (n, n) the value that parts label i from label j.
        contrast_hu: (n, n) mean of i less that of j, beside the edge; 0 of labels that do not touch, or differ now this
            way, now that.
    """

    value_hu: FloatArray
    contrast_hu: FloatArray

    @classmethod
    def of(cls, indices: LabelArray, hu: FloatArray, count: int) -> "Edges":
        """Learn them from neighbours in the plane.

        The value parts the highest of the lower side from the lowest of the higher side, each but for a tenth: of
        labels by a threshold it is that threshold, of others about half of the step.

        Args:
            indices: (k, y, x) of the labels, 0 to `count` - 1.
            hu: (k, y, x).
            count: of labels.

        Returns:
            Values and contrasts, (count, count) HU.
        """
        pairs = []
        for before, after in (((..., slice(-1)), (..., slice(1, None))), (np.s_[:, :-1], np.s_[:, 1:])):
            apart = indices[before] != indices[after]
            values = [own[side][apart] for own in (indices, hu) for side in (before, after)]
            pairs.append(np.stack(values))
        one, other, own_hu, its_hu = np.concatenate(pairs, axis=1)
        value, contrast = np.zeros((count, count), np.float32), np.zeros((count, count), np.float32)
        key = np.minimum(one, other) * count + np.maximum(one, other)
        low_hu, high_hu = np.where(one < other, (own_hu, its_hu), (its_hu, own_hu))
        for found in np.unique(key):
            i, j = divmod(int(found), count)
            own, its = low_hu[key == found], high_hu[key == found]
            step = float(own.mean() - its.mean())
            if np.mean((own - its) * np.sign(step) > 0) < LEAST_AGREEING:
                continue  # one label has several neighbours of the other name, brighter and darker ones
            tails = (OVERLAP, 1 - OVERLAP) if step > 0 else (1 - OVERLAP, OVERLAP)
            value[i, j] = value[j, i] = (np.quantile(own, tails[0]) + np.quantile(its, tails[1])) / 2
            contrast[i, j], contrast[j, i] = step, -step
        return cls(value, contrast)


def thin_labels(labels: LabelArray, thick: Volume, thin_hu: FloatArray, positions: Places) -> LabelArray:
    """Bring labels of the voxels of a thick scan to thin slices.

    Labels are compared two by two at each thin voxel: by the signed distances from their edges in the plane,
    interpolated linearly between slices (shape-based interpolation), and by how far the estimate lies on either side
    of the value that parts them in the thick slices, times the contrast there, over the variance of the noise. That is
    the log-likelihood ratio of two Gaussians of equal variance.

    Args:
        labels: (k, y, x), one integer a thick voxel; 0 is a label as the others.
        thick: the scan that they are of, (k, y, x) HU.
        thin_hu: the estimate, (z, y, x) HU.
        positions: (z,) the thin slices in indices of the thick ones.

    Returns:
        (z, y, x) of the same type; no label further than 5 mm in the plane from where a neighbouring slice has it.

    Raises:
        GeometryError: labels and scan differ in shape.

    Source: Raya and Udupa 1990, Shape-based interpolation of multidimensional objects, IEEE TMI 9(1).
    """
    if labels.shape != thick.hu.shape:
        raise GeometryError(f"labels of shape {labels.shape}: expected those of the scan, {thick.hu.shape}")
    names, indices = np.unique(labels, return_inverse=True)
    indices = indices.reshape(labels.shape)
    edges, variance = Edges.of(indices, thick.hu, len(names)), noise_hu(thin_hu) ** 2
    winner = np.zeros(thin_hu.shape, np.intp)
    distance = np.full(thin_hu.shape, -np.inf, np.float32)
    for index in range(len(names)):
        place = _place(indices == index, thick.spacing_mm[1:])
        mine = np.stack([_signed_mm(plane, thick.spacing_mm[1:]) for plane in (indices[place] == index)])
        between, near = _between(mine, positions)
        there = (slice(None), *place[1:])
        other = winner[there]
        margin = (between - distance[there]) / (2 * PRIOR_MM)
        margin += edges.contrast_hu[index][other] * (thin_hu[there] - edges.value_hu[index][other]) / variance
        wins = near & (margin > 0)
        winner[there][wins], distance[there][wins] = index, between[wins]
    return names[winner].astype(labels.dtype)


def noise_hu(hu: FloatArray) -> float:
    """Standard deviation of the noise of (z, y, x) HU from second differences along rows.

    Args:
        hu: (z, y, x) HU, three columns at least.

    Returns:
        HU, 10 or more.

    Source: Donoho and Johnstone 1994, Biometrika 81(3): the median absolute deviation.
    """
    return max(LEAST_NOISE_HU, 1.4826 * float(np.median(np.abs(np.diff(hu, 2, axis=2)))) / 6**0.5)


def _place(mask: npt.NDArray[np.bool_], pixel_mm: tuple[float, ...]) -> tuple[slice, ...]:
    """All slices, and the part of the plane in which a label may lie."""
    spans = [slice(None)]
    for axes, mm in zip(((0, 2), (0, 1)), pixel_mm, strict=True):
        own, far = np.flatnonzero(mask.any(axis=axes)), int(np.ceil(REACH_MM / mm)) + 1
        spans.append(slice(max(0, int(own[0]) - far), int(own[-1]) + 1 + far))
    return tuple(spans)


def _signed_mm(plane: npt.NDArray[np.bool_], pixel_mm: tuple[float, ...]) -> FloatArray:
    """Distance from the edge in a plane, positive inside; a size of the plane where there is no edge."""
    if plane.all() or not plane.any():
        size_mm = float(np.hypot(*np.multiply(plane.shape, pixel_mm)))
        return np.full(plane.shape, size_mm if plane.any() else -size_mm, np.float32)
    half = min(pixel_mm) / 2
    inner, outer = (ndimage.distance_transform_edt(it, sampling=pixel_mm) for it in (plane, ~plane))
    signed: FloatArray = np.where(plane, inner - half, half - outer).astype(np.float32)
    return signed


def _between(distance: FloatArray, positions: Places) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Distances interpolated linearly along z, the outer ones held; whether a neighbouring slice has the label near."""
    places = positions.clip(0, len(distance) - 1)
    low = np.minimum(places.astype(int), max(len(distance) - 2, 0))
    high = np.minimum(low + 1, len(distance) - 1)
    part = (places - low)[:, None, None].astype(np.float32)
    near = np.maximum(distance[low], distance[high]) >= -REACH_MM
    return distance[low] * (1 - part) + distance[high] * part, near
