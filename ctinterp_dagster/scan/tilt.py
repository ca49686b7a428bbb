"""The slices of a tilted gantry on a straight grid."""

import math

import numpy as np
from scipy.ndimage import affine_transform

from ctinterp_dagster.scan.padding import without_padding
from ctinterp_dagster.scan.volume import Volume

OUTSIDE_HU = -2000.0  # what no tissue has: taken for padding


def straightened(volume: Volume, shift: tuple[float, float]) -> tuple[Volume, tuple[str, ...]]:
    """A sheared stack on the straight grid along its slices' normal, which holds every slice.

    Each slice is shifted in its own plane (cubic B-spline); nothing is resampled from slice to slice. Padding is
    shifted to the nearest pixel. Where a slice shows nothing the grid is padded, with -2000 HU unless the slices are
    padded with another value.

    Args:
        volume: as measured: slice k lies k * `shift` pixels away from where the grid of the first slice has it.
        shift: pixels along y and along x from slice to slice; zeros give the volume back.

    Returns:
        (z, y', x') the straight volume; what was done, in words, with the mean difference of the slices, shifted back,
        from those that were measured.

    Source: Unser 1999, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16(6).
    """
    if not any(shift):
        return volume, ()
    filled, padding = without_padding(volume)
    masks = padding.mask if padding else np.zeros(volume.hu.shape, np.bool_)
    places = np.arange(volume.depth)[:, None] * shift
    first = np.floor(places.min(axis=0))
    places -= first
    size = volume.hu.shape[1:] + np.ceil(places.max(axis=0)).astype(int)
    straight = np.full((volume.depth, *size), padding.value_hu if padding else OUTSIDE_HU, np.float32)
    apart_hu = 0.0
    for plane, place, own, mask in zip(straight, places, filled.hu, masks, strict=True):
        shifted = affine_transform(own, (1, 1), -place, tuple(size), order=3, mode="nearest")
        measured = ~affine_transform(mask, (1, 1), -place, tuple(size), order=0, cval=True)
        back = affine_transform(shifted, (1, 1), place, own.shape, order=3, mode="nearest")
        plane[measured] = shifted[measured]
        apart_hu += float(np.abs(back - own).mean()) / volume.depth
    x, y, z = volume.point_mm((0.0, float(first[0]), float(first[1]))).tolist()
    moved_mm = math.hypot(shift[0] * volume.spacing_mm[1], shift[1] * volume.spacing_mm[2])
    told = (
        f"gantry tilt of {math.degrees(math.atan2(moved_mm, volume.spacing_mm[0])):.2f} degrees: each slice is shifted "
        f"in its plane, by {moved_mm:.3f} mm more than the one before, onto a straight grid along the slice normal; "
        f"shifted back, slices are the measured ones to {apart_hu:.2f} HU on average"
    )
    return Volume(straight, volume.spacing_mm, (x, y, z), volume.direction), (told,)
