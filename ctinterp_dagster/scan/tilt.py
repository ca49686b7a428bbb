"""The slices of a tilted gantry on a straight grid."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform

from ctinterp_dagster.errors import GeometryError
from ctinterp_dagster.scan.padding import OUTSIDE_HU, without_padding
from ctinterp_dagster.scan.volume import RemarkedVolume, Volume


def straightened(volume: Volume, shift: tuple[float, float]) -> RemarkedVolume:
    """A sheared stack on the straight grid along its slices' normal, which holds every slice.

    Each slice is shifted in its own plane (cubic B-spline); nothing is resampled from slice to slice. Padding is
    shifted to the nearest pixel. Where a slice shows nothing the grid is padded, with -2000 HU unless the slices are
    padded with another value. Pixels lie at whole multiples of their size from the patient's origin, so that stretches
    of one scan share them.

    Args:
        volume: the slices, HU: slice k lies k * `shift` pixels away from where the grid of the first slice has it.
        shift: pixels along y and along x from slice to slice; zeros give the volume back.

    Returns:
        (z, y', x') the straight volume; what was done, in words, with the mean difference of the slices, shifted back,
        from those that were measured.

    Source: Unser 1999, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16(6).
    """
    if not any(shift):
        return RemarkedVolume(volume, ())
    filled, padding = without_padding(volume)
    masks = padding.mask if padding else np.zeros(volume.hu.shape, np.bool_)
    anchor = (np.asarray(volume.origin_mm) @ volume.direction)[1::-1] / volume.spacing_mm[1:]
    places = anchor + np.arange(volume.depth)[:, None] * shift
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
    x, y, z = volume.point_mm((0.0, *(first - anchor).tolist())).tolist()
    moved_mm = math.hypot(shift[0] * volume.spacing_mm[1], shift[1] * volume.spacing_mm[2])
    remark = (
        f"gantry tilt of {math.degrees(math.atan2(moved_mm, volume.spacing_mm[0])):.2f} degrees: each slice is shifted "
        f"in its plane, by {moved_mm:.3f} mm more than the one before, onto a straight grid along the slice normal; "
        f"shifted back, slices are the measured ones to {apart_hu:.2f} HU on average"
    )
    return RemarkedVolume(Volume(straight, volume.spacing_mm, (x, y, z), volume.direction), (remark,))


def on_one_grid(volumes: Sequence[Volume]) -> list[Volume]:
    """Volumes of one orientation and pixel size, padded with -2000 HU to the rows and columns that all of them cover.

    Args:
        volumes: one at least; the first one's grid is that of all.

    Returns:
        Volumes of one size (y, x), in the same order.

    Raises:
        GeometryError: their pixels do not lie on one grid, to a tenth of a pixel.
    """
    first = volumes[0]
    pixel_mm = np.array(first.spacing_mm[1:])
    apart = (
        np.array([np.subtract(v.origin_mm, first.origin_mm) @ first.direction for v in volumes])[:, 1::-1] / pixel_mm
    )
    places = np.rint(apart).astype(int)
    same = all(
        np.allclose([*v.direction.ravel(), *v.spacing_mm[1:]], [*first.direction.ravel(), *pixel_mm], rtol=0, atol=1e-3)
        for v in volumes
    )
    if not same or np.abs(apart - places).max() > 0.1:
        raise GeometryError(
            "the stretches of this scan have no common grid of pixels: expected one orientation, pixel size and place "
            "in the plane; give one of them with --series"
        )
    low, sizes = places.min(axis=0), np.array([v.hu.shape[1:] for v in volumes])
    high = (places + sizes).max(axis=0)
    padded = []
    for volume, before, after in zip(volumes, places - low, high - places - sizes, strict=True):
        widths = ((0, 0), *zip(before, after, strict=True))
        hu = np.pad(volume.hu, widths, constant_values=np.float32(OUTSIDE_HU))
        x, y, z = volume.point_mm((0.0, *(-before.astype(float)).tolist())).tolist()
        padded.append(Volume(hu, volume.spacing_mm, (x, y, z), volume.direction))
    return padded
