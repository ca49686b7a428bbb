"""Whether a volume is an axial CT in HU."""

from dataclasses import dataclass

import numpy as np

from ctinterp_dagster.errors import (
    ClippedError,
    ConstantError,
    GeometryError,
    NotFiniteError,
    ScanError,
    TooFewSlicesError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.padding import edge_of, find_padding
from ctinterp_dagster.scan.volume import FloatArray, Volume, refuse_reformat

# The widest range that scanners write, Siemens' extended CT scale, padding left out.
RANGE_HU = (-10240.0, 30710.0)
# Air, lung or bowel gas; fat, water and organs; cancellous, then dense bone. HU + 1024 puts organs where dense bone is.
GAS_HU = (-1250.0, -500.0)
TISSUE_HU = (-200.0, 300.0)
BONE_HU = (300.0, 824.0)
DENSE_HU = (824.0, 1324.0)
LEAST_SHARE = 1e-4
LITTLE = 1e-3
LEAST_SPAN_HU = 30.0  # water with its noise spans more
SAMPLE = 1 << 20  # voxels that are looked at, spread over the volume
# Values cut off at a window pile up at its ends. Scanners cut off too, at the ends of their scale: air at -1024 or
# -1000 HU, metal at 3071. Between these the lowest and the highest value of a scan are those of a few voxels.
WINDOW_HU = (-900.0, 1000.0)
PILE_SHARE = 2e-4
PILE_VOXELS = 20
MIN_SLICES = 3  # what can be interpolated at all; ingest asks for more
SLICE_SPACING_MM = (0.1, 20.0)
SLICE_THICKNESS_MM = (0.1, 50.0)  # scanners reconstruct 0.2 to 20 mm; slabs of their workstations are thicker
PIXEL_SPACING_MM = (0.05, 10.0)


@dataclass(frozen=True)
class _Values:
    """What the values of a volume, without padding, tell.

    Attributes:
        hu: (n,) float32, a sample.
        low, high: the least and the greatest value.
        floor, most, top: 0.01, 95 and 99.99 % of the sample lie below.
    """

    hu: FloatArray
    low: float
    high: float
    floor: float
    most: float
    top: float

    def share(self, low: float, high: float) -> float:
        """Part of the voxels within [low, high]."""
        return float(np.count_nonzero((self.hu >= low) & (self.hu <= high))) / self.hu.size

    @property
    def range_words(self) -> str:
        """The least and the largest value in words, for messages."""
        return f"values run from {self.low:g} to {self.high:g}"


def _values_of(hu: FloatArray) -> _Values:
    """Refuse voxels that are no image.

    Args:
        hu: (z, y, x) HU.

    Returns:
        A sample of the voxels, and their range, HU.

    Raises:
        NotFiniteError: a voxel is NaN or infinite.
        ConstantError: all measured voxels have one value.
    """
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite([low, high]).all():
        raise NotFiniteError(
            f"{np.count_nonzero(~np.isfinite(hu))} of {hu.size} voxels are NaN or infinite: expected finite HU; "
            "set them to -1024, or give the original"
        )
    if low == high:
        raise ConstantError(f"every voxel is {low:g}: expected an image; export the scan again")
    step = (hu.size // SAMPLE) | 1  # odd, so that it does not pick one column
    sample, padding = hu.reshape(-1)[::step], find_padding(hu)
    if padding is not None:
        measured = ~padding.mask
        if not measured.any():
            raise ConstantError(f"every voxel is padding ({padding.value_hu:g}): expected an image; export again")
        sample = sample[measured.reshape(-1)[::step]]
        low = float(hu.min(where=measured, initial=np.inf))
        high = float(hu.max(where=measured, initial=-np.inf))
    floor, most, top = (float(q) for q in np.quantile(sample, [LEAST_SHARE, 0.95, 1 - LEAST_SHARE]))
    return _Values(sample, low, high, floor, most, top)


def _looks_like(v: _Values, hu: FloatArray) -> str | None:
    """What values that are not HU probably are, and what tells so; None if they may be HU."""
    return _looks_out_of_range(v) or _looks_shifted(v) or _looks_stretched(v, hu) or _looks_masked(v, hu)


def _looks_out_of_range(v: _Values) -> str | None:
    if v.low < RANGE_HU[0] or v.high > RANGE_HU[1]:
        return f"numbers outside of {RANGE_HU}, which no scanner writes as HU: rescale them"
    if v.top - v.floor < LEAST_SPAN_HU:
        return f"0 to 1, a normalised image or 1/cm: nearly all lie within {v.floor:.3g} and {v.top:.3g}"
    if (share := v.share(-np.inf, GAS_HU[0])) > 0.01:
        return f"HU - 1024, or HU times 10: {share:.1%} lie below {GAS_HU[0]:g}, where air never does"
    return None


def _looks_shifted(v: _Values) -> str | None:
    """Any scan that shows no gas shows fat, or water with its noise: values below -30 HU."""
    gas, bone, dense = v.share(*GAS_HU), v.share(*BONE_HU), v.share(*DENSE_HU)
    bright = dense > bone or float(np.median(v.hu)) > 80  # a brain within its skull has neither fat nor gas
    if gas < LITTLE and v.floor > -30 and v.share(500, np.inf) > 0.01 and bright:
        tissue = float(np.median(v.hu[v.hu > 500]))
        least = "0 or more" if v.low >= 0 else f"{v.low:g} or more"
        return f"HU + 1024: every voxel is {least} and organs lie near {tissue:.0f}, not near 50; subtract 1024"
    if gas < LITTLE and v.floor > -20 and v.most < 260 and (v.most - v.floor > 100 or v.floor > 60):
        return f"grey values of 0 to 255: 95 % lie within {v.floor:g} and {v.most:g}, and there is neither air nor fat"
    if dense > 0.2 and dense > bone:
        return f"HU + 1024, or inverted: {dense:.0%} lie within {DENSE_HU}, and only {bone:.0%} within {BONE_HU}"
    return None


def _looks_stretched(v: _Values, hu: FloatArray) -> str | None:
    gas, tissue, bone = v.share(*GAS_HU), v.share(*TISSUE_HU), v.share(*BONE_HU)
    if gas > 0.01 and bone > 2 * tissue:  # dry bones and skulls of plastic in air have as much of both
        return f"HU times 10 or so: {bone:.0%} lie within {BONE_HU}, and only {tissue:.0%} within {TISSUE_HU}"
    noise = float(np.median(np.abs(np.diff(hu[len(hu) // 2]))))
    if gas < LITTLE and v.top - v.floor < 300 and noise < 0.01 * (v.top - v.floor):
        return f"HU scaled down: all lie within {v.floor:.4g} and {v.top:.4g}, nearly without noise"
    return None


def _looks_masked(v: _Values, hu: FloatArray) -> str | None:
    if (zeros := float(np.mean(edge_of(hu) == 0))) > 0.5:
        return f"a masked image: {zeros:.0%} of the voxels at the edge are exactly 0, which is water"
    if (share := v.share(*TISSUE_HU)) < LEAST_SHARE:
        return f"no tissue: {share:.4%} lie within {TISSUE_HU}, expected at least {LEAST_SHARE:.2%}"
    return None


def _check_values(volume: Volume) -> None:
    v = _values_of(volume.hu)
    if kind := _looks_like(v, volume.hu):
        raise WrongUnitsError(f"{v.range_words}: expected HU, looks like {kind}; give the original")
    for value, inside in ((v.low, (v.low, v.low + 10)), (v.high, (v.high - 10, v.high))):
        pile = np.count_nonzero(v.hu == value)
        beside = v.share(*inside) * v.hu.size - pile
        many = pile >= max(PILE_VOXELS, PILE_SHARE * v.hu.size, 2 * beside)
        if many and WINDOW_HU[0] < value < WINDOW_HU[1]:
            raise ClippedError(
                f"{pile / v.hu.size:.2%} of the voxels are {value:g}, and none lies beyond: values were cut off at a "
                f"display window, expected at most {PILE_SHARE:.2%} at either end; give the original"
            )


def _check_geometry(volume: Volume) -> None:
    refuse_reformat(volume.direction[:, 2])
    for what, spacing, (low, high) in (
        ("slice", volume.spacing_mm[0], SLICE_SPACING_MM),
        ("row", volume.spacing_mm[1], PIXEL_SPACING_MM),
        ("column", volume.spacing_mm[2], PIXEL_SPACING_MM),
    ):
        if not low <= spacing <= high:
            raise GeometryError(f"{what} spacing is {spacing:g} mm: expected {low} to {high}; check the file's units")


def _check_depth(volume: Volume, min_slices: int) -> None:
    if volume.depth < min_slices:
        raise TooFewSlicesError(
            f"the volume has {volume.depth} slices: expected at least {min_slices}; give the whole series"
        )


def check_volume(volume: Volume, *, min_slices: int, force: bool = False, name: str = "") -> tuple[str, ...]:
    """Refuse what is not an axial CT in HU: the one check of every way in, before anything is computed.

    Call it with what a reader gives, before `without_padding`: padding is found and left out here too. Values need no
    air and no bone; what tells against HU is listed in docs/scans.md. Nothing is changed.

    Args:
        volume: (z, y, x) in what should be HU, with its padding.
        min_slices: of what is to be done with it.
        force: take what looks wrong all the same, and return what would have been said, for the user to see. Too few
            slices, NaN and constants are refused even so.
        name: of the file or folder, put before each message.

    Returns:
        What was forced, one line each; nothing without `force`.

    Raises:
        TooFewSlicesError: fewer than `min_slices` slices.
        NotFiniteError: a voxel is NaN or infinite.
        ConstantError: all voxels are equal.
        ClippedError: values pile up at the lowest or the highest one, which lies in (-900, 1000) HU.
        WrongUnitsError: the values are not HU.
        DerivedError: sagittal or coronal slices.
        GeometryError: spacing that no scanner has (0.1 to 20 mm between slices, 0.05 to 10 mm between pixels).
    """
    forced: list[str] = []
    for check in (lambda v: _check_depth(v, min_slices), _check_geometry, _check_values):
        try:
            check(volume)
        except ScanError as error:
            located = type(error)(f"{name}: {error}" if name else str(error))
            if not force or isinstance(error, TooFewSlicesError | NotFiniteError | ConstantError):
                raise located from error
            forced.append(str(located))
    return tuple(forced)
