"""What lies outside of the field of view: constants far below air, which a scanner or a resampling put there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctinterp_dagster.scan.volume import FloatArray, Volume

# Air is -1000 HU and noise takes it lower, but never to one value that many voxels at the edge of the planes share.
BELOW_AIR_HU = -1200.0
OUTSIDE_HU = -2000.0  # of padding that is put where nothing was measured
LEAST_SHARE = 0.01  # of the voxels at the edge of the planes
AIR_HU = -900.0  # no padding above it is told from air by its value alone
LEAST_OF_EDGE = 0.1  # of a plane, that a tag's padding fills: tissue has any value now and then
LEAST_OF_BELOW = 0.5  # of those that are below air: noise is spread over many values
RIM = 8  # voxels; a cubic resampling rings so far


@dataclass(frozen=True)
class Padding:
    """Where a volume is padded, and with what.

    Attributes:
        mask: (z, y, x) bool, true where the volume is padded.
        hu: (z, y, x) float32, the volume as it was.
        value_hu: the most common value of the padding.
    """

    mask: npt.NDArray[np.bool_]
    hu: FloatArray
    value_hu: float

    def put_back(self, thin_hu: FloatArray, positions: npt.ArrayLike) -> FloatArray:
        """Thin slices with the padding of the nearest thick slice, value by value as it was.

        Args:
            thin_hu: (z', y, x) HU.
            positions: (z',) centres of the thin slices in indices of the thick ones.

        Returns:
            (z', y, x) HU, a new array.
        """
        nearest = np.floor(np.asarray(positions) + 0.5).astype(int).clip(0, len(self.mask) - 1)
        out = thin_hu.copy()
        for plane, k in zip(out, nearest, strict=True):
            plane[self.mask[k]] = self.hu[k][self.mask[k]]
        return out


def edge_of(hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n,) values of the outermost rows and columns of a volume (z, y, x)."""
    return np.concatenate([part.ravel() for part in (hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1])])


def tagged_padding(plane: FloatArray, value_hu: float) -> npt.NDArray[np.bool_] | None:
    """Where a plane (y, x) is padded with a value that its tags name: what has it and reaches the plane's edge.

    Args:
        plane: HU.
        value_hu: what PixelPaddingValue comes to.

    Returns:
        (y, x) bool; None where the value is that of air or below, which harms nothing, or less than a tenth of the
        plane's edge has it, so that the tag is not believed.
    """
    same = plane == value_hu
    if value_hu < AIR_HU or edge_of(same[None]).mean() < LEAST_OF_EDGE:
        return None
    edge = np.ones_like(same)
    edge[1:-1, 1:-1] = False
    return np.asarray(ndimage.binary_propagation(same & edge, mask=same))


def find_padding(hu: FloatArray) -> Padding | None:
    """Padding: values below -1200 HU that at least 1 % of the voxels at the edge of the planes share, to half a HU.

    Values below -1200 HU within 8 voxels of padding are padding too: a resampling mixes it with its neighbours.

    Args:
        hu: (z, y, x) HU.

    Returns:
        Where padding is and its values; None where there is none.
    """
    edge = edge_of(hu)
    below = np.rint(edge[edge < BELOW_AIR_HU])
    values, counts = np.unique(below, return_counts=True)
    shared = counts >= LEAST_SHARE * edge.size
    if not shared.any() or counts[shared].sum() < LEAST_OF_BELOW * below.size:
        return None
    mask = np.zeros(hu.shape, np.bool_)
    for value in values[shared]:
        mask |= (hu >= value - 0.5) & (hu <= value + 0.5)
    low = hu < BELOW_AIR_HU
    if np.count_nonzero(low) > np.count_nonzero(mask):
        mask = ndimage.binary_dilation(mask, iterations=RIM, mask=low)
    return Padding(mask, hu, float(values[counts.argmax()]))


def without_padding(volume: Volume) -> tuple[Volume, Padding | None]:
    """A volume whose padding is replaced by the nearest value of its plane, and the padding, if there is any.

    The nearest value leaves no edge for a network to blur: docs/scans.md compares it with air and with padding.

    Args:
        volume: HU, as a reader gives it.

    Returns:
        (volume, padding), the same volume and None where there is none.
    """
    padding = find_padding(volume.hu)
    if padding is None or padding.mask.all():
        return volume, None
    return volume.with_hu(_filled(volume.hu, padding.mask)), padding


def _filled(hu: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    """(z, y, x) with masked voxels filled from their plane, wholly masked planes from the nearest plane."""
    out = hu.copy()
    whole = mask.all(axis=(1, 2))
    before, nearest = None, np.empty(0)
    for k in np.flatnonzero(mask.any(axis=(1, 2)) & ~whole):
        if before is None or not np.array_equal(mask[k], mask[before]):
            nearest = ndimage.distance_transform_edt(mask[k], return_distances=False, return_indices=True)
        rows, columns = nearest[:, mask[k]]
        out[k][mask[k]] = hu[k][rows, columns]
        before = k
    measured = np.flatnonzero(~whole)
    for k in np.flatnonzero(whole):
        out[k] = out[measured[np.abs(measured - k).argmin()]]
    return out
