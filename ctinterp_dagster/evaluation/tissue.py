"""Where one tissue is alone in a scan, where the patient is, and how noisy soft tissue is along z."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import BODY_ABOVE_HU

BoolArray = npt.NDArray[np.bool_]

# Ranges that stand for a tissue. Fat and muscle are those of body-composition analysis, which leave out
# voxels that mix with lung or bone; bone starts where segmentation software sets its bone threshold.
# Source: Aubrey et al. 2014, Acta Physiologica 210(3) (fat, muscle).
TISSUES_HU: dict[str, tuple[float, float]] = {
    "air": (-1024.0, -900.0),
    "fat": (-190.0, -30.0),
    "muscle": (-29.0, 150.0),
    "bone": (226.0, 3071.0),
}

LEAST_NOISE_HU = 10.0
QUIET_HU = (-50.0, 120.0)
QUIET_MINIMUM = 500  # voxels; a median over fewer says little about the noise


def body_mask(hu: FloatArray) -> BoolArray:
    """Where the patient is: in each axial slice what exceeds -500 HU, opened by 2 pixels, holes filled.

    The opening removes the sheets of the table and of clothes; filling takes in lungs and bowel gas.

    Args:
        hu: (z, y, x) HU.

    Returns:
        (z, y, x).
    """
    solid = (ndimage.binary_opening(plane > BODY_ABOVE_HU, iterations=2) for plane in hu)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in solid])


def quiet_tissue(hu: FloatArray) -> BoolArray:
    """Homogeneous soft tissue: [z] holds where slices z to z + 3 are -50 to 120 HU within 3 pixels.

    Args:
        hu: (z, y, x) HU.

    Returns:
        (z - 3, y, x).
    """
    soft = ((hu > QUIET_HU[0]) & (hu < QUIET_HU[1])).astype(np.uint8)
    # a window of even size 4 centred on z reaches from z - 2 to z + 1
    inside = ndimage.minimum_filter(soft, size=(4, 7, 7), mode="constant", cval=0)[2:-1]
    return np.asarray(inside.astype(bool))


def noise_along_z_hu(hu: FloatArray, quiet: BoolArray) -> float | None:
    """Deviation of white noise along z of (z, y, x), HU, from third differences, which no smooth anatomy survives.

    Noise that correlates along z makes it too small, and the noise floor too high a PSNR: a bound still.

    Args:
        hu: (z, y, x) HU.
        quiet: (z - 3, y, x), homogeneous soft tissue (`quiet_tissue`).

    Returns:
        None where fewer than 500 quiet voxels, or no noise, leave nothing to be measured.

    Source: 1.4826 MAD (Rousseeuw and Croux 1993); var(x0 - 3 x1 + 3 x2 - x3) = 20 sigma^2.
    """
    parts = [(d - 3 * c + 3 * b - a)[q] for a, b, c, d, q in zip(hu, hu[1:], hu[2:], hu[3:], quiet, strict=False)]
    third = np.concatenate(parts)
    if third.size < QUIET_MINIMUM:
        return None
    sigma = float(1.4826 * np.median(np.abs(third)) / np.sqrt(20))
    return sigma if sigma > 0 else None


def interiors(hu: FloatArray, ends: int, noise_hu: float | None) -> dict[str, BoolArray]:
    """Where one tissue is alone: no edge within a thick slice and 3 pixels.

    A voxel counts if the mean of the box around it lies in the tissue's window, and its standard deviation is at most
    twice the noise, or 20 HU. Chosen by their own value, voxels of a smoother estimate would seem shifted.

    Args:
        hu: (z, y, x) HU, the truth.
        ends: slices on either side of a voxel that its box takes in.
        noise_hu: of the truth; None for none.

    Returns:
        Boolean (z, y, x) by tissue; a tissue that is nowhere alone is all False.
    """
    size = (2 * ends + 1, 7, 7)
    mean = ndimage.uniform_filter(hu, size, mode="nearest")
    variance = ndimage.uniform_filter(np.square(hu), size, mode="nearest") - np.square(mean)
    even = variance <= (2 * max(noise_hu or 0.0, LEAST_NOISE_HU)) ** 2
    return {name: even & (mean >= low) & (mean <= high) for name, (low, high) in TISSUES_HU.items()}
