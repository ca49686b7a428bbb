"""Which slice profile a stack has: told by the noise that its slices share, else by the tags."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ctinterp_dagster.physics.acquisition import UNTOLD, Acquisition, Tags
from ctinterp_dagster.physics.noise import RealArray, SharedNoise, shared_noise
from ctinterp_dagster.physics.profile import Profile, SampledProfile, slice_weights
from ctinterp_dagster.physics.thickness import Thickness, judge_thickness, lags_for
from ctinterp_dagster.scan.volume import DoubleArray

Confidence = Literal["told", "measured", "tagged", "guessed"]
Shape = tuple[Profile, float]  # with its width over the slice thickness

BOX: Shape = ("box", 1.0)
BELL: Shape = ("gaussian", 1.0)  # docs/experiments.md entry 20
NARROWEST: Shape = ("triangle", 0.9)  # of the bells that real scanners have
UNKNOWN: Shape = ("gaussian", 0.9)  # loses least where it is wrong, entry 20
LIMIT = 0.5  # of a bell's share: half way from what a box shares to what the narrowest bell does
SURE = 2.0  # standard errors
MOST_ERROR = 0.05  # standard error of a correlation that tells something
LEAST_CONTRAST = 0.1  # of the correlations of a box and a bell, where noise can tell them apart
STEP = 0.01  # of a slice distance
THINNEST = 10 * STEP  # whatever is thinner shares as little: nothing
BY_TAGS = {True: (BELL, "a helical scan"), False: (BOX, "an axial scan"), None: (UNKNOWN, "nothing of the scan")}


@dataclass(frozen=True)
class SliceProfile:
    """The slice profile to be used, and why.

    Attributes:
        profile: its shape.
        thickness_mm: its full width at half maximum.
        confidence: told by the user, measured in the stack's noise, told by the tags, or guessed.
        reason: what speaks for it, with numbers.
        noise: what was measured; None where it was not needed or cannot be.
        warnings: what a user should know, a sentence each.
    """

    profile: Profile
    thickness_mm: float
    confidence: Confidence
    reason: str
    noise: SharedNoise | None = None
    warnings: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, object]:
        """What a record of a run says of it."""
        return (self.profile.record if isinstance(self.profile, SampledProfile) else {}) | {
            "profile": str(self.profile),
            "profile_fwhm_mm": self.thickness_mm,
            "profile_confidence": self.confidence,
            "profile_reason": self.reason,
            "profile_correlation": self.noise.correlation if self.noise else None,
            "profile_standard_error": self.noise.standard_error if self.noise else None,
        }

    def __str__(self) -> str:
        """What a user is to know of it, in one line."""
        return f"{self.profile}, {self.thickness_mm:.3g} mm wide, {self.confidence} ({self.reason})"


def expected_semivariogram(shape: Shape, width: float, lags: int) -> DoubleArray:
    """(lags,) half the mean squared difference of noise of variance 1, of slices 1 to `lags` apart.

    Args:
        shape: of slices `width` slice distances thick.
        width: slice thickness over slice distance.
        lags: 1 or more.

    Returns:
        0 to 1.

    Source: white noise, averaged with weights w, has the autocorrelation of w; Papoulis 1991, Probability, Random
        Variables, and Stochastic Processes, 3rd ed., section 10-2.
    """
    profile, part = shape
    width = max(width, THINNEST)
    reach = 2 * width + lags
    weights = slice_weights(
        profile,
        np.arange(-reach, reach, STEP),
        thin_spacing_mm=STEP,
        thin_thickness_mm=STEP,
        thick_thickness_mm=part * width,
    )
    shifts = (round(lag / STEP) for lag in range(1, lags + 1))
    return 1 - np.array([weights[shift:] @ weights[:-shift] for shift in shifts]) / (weights @ weights)


def expected_correlation(shape: Shape, width: float, lags: int) -> float:
    """The noise that neighbours share, as `SharedNoise.correlation`.

    Args:
        shape: of slices `width` slice distances thick.
        width: slice thickness over slice distance.
        lags: slices this far apart are taken to share no noise, 2 or more.

    Returns:
        0 to 1.
    """
    expected = expected_semivariogram(shape, width, lags)
    return float(1 - expected[0] / expected[-1])


class BellShare(NamedTuple):
    """How much of a stack's noise is that of the narrowest bell, the rest that of a box, and its standard error.

    Anatomy that is taken for noise makes it too high, above 1 in places.
    """

    share: float
    standard_error: float

    @property
    def is_low(self) -> bool:
        """Whether it is surely less than half."""
        return self.share < LIMIT - SURE * self.standard_error

    @property
    def is_high(self) -> bool:
        """Whether it is surely more than half."""
        return self.share > LIMIT + SURE * self.standard_error


def bell_share(noise: SharedNoise, width: float, *, anatomy: bool) -> BellShare | None:
    """Fit the semivariogram of a stack by those of a box and of the narrowest bell (least squares).

    Args:
        noise: measured at 3 lags or more.
        width: slice thickness over slice distance.
        anatomy: fit a line too: slices differ in anatomy, too fine to be kept out, the more the further apart they
            are.

    Returns:
        None where no positive noise is left.

    Source: nested variogram models, Journel and Huijbregts 1978, Mining Geostatistics, chapter III; the delta method
        for the error.
    """
    shapes = [expected_semivariogram(shape, width, noise.lags) for shape in (BOX, NARROWEST)]
    line = [np.arange(1.0, noise.lags + 1)] if anatomy else []
    to_box, to_bell = np.linalg.pinv(np.stack([*shapes, *line], axis=1))[:2]
    box, bell = to_box @ noise.semivariogram, to_bell @ noise.semivariogram
    if box + bell <= 0:
        return None
    slope = (box * to_bell - bell * to_box) / (box + bell) ** 2
    return BellShare(float(bell / (box + bell)), float(np.sqrt(slope @ noise.scatter @ slope)))


class _Recognised(NamedTuple):
    shape: Shape
    confidence: Confidence
    reason: str


def _shape_by(noise: SharedNoise, width: float) -> Shape | None:
    """Box or bell, where noise can tell.

    Anatomy only adds to a bell's share: without a line fitted to it, a low share is a box's. A high one is a bell's
    if the fit with the line says so too.

    Args:
        noise: of the stack.
        width: slice thickness over slice distance.

    Returns:
        `BOX` or `BELL`; None where noise cannot tell.
    """
    box, bell = (expected_correlation(shape, width, noise.lags) for shape in (BOX, NARROWEST))
    plain, less = (bell_share(noise, width, anatomy=anatomy) for anatomy in (False, True))
    if bell - box < LEAST_CONTRAST or noise.standard_error > MOST_ERROR or plain is None or less is None:
        return None
    if plain.is_low or (less.is_low and not plain.is_high):
        return BOX
    return BELL if plain.is_high and less.share > LIMIT else None


def _shape_of(noise: SharedNoise | None, width: float, tags: Tags) -> _Recognised:
    """Shape, confidence and reason: the tags where noise cannot tell, and neither where anatomy may pass for noise."""
    (by_tags, tagged), by_noise, evidence = BY_TAGS[tags.helical], None, "there is too little flat tissue with noise"
    if noise is not None:
        box, bell = (expected_correlation(shape, width, noise.lags) for shape in (BOX, NARROWEST))
        evidence = (
            f"noise of neighbouring slices correlates {noise.correlation:.2f} +- {noise.standard_error:.2f}, expected "
            f"{box:.2f} of a box and at least {bell:.2f} of a triangle or a Gaussian"
        )
        by_noise = _shape_by(noise, width)
    reason = f"tags say {tagged}, {evidence}"
    if by_noise is None:
        return _Recognised(by_tags, "guessed" if tags.helical is None else "tagged", reason)
    if by_noise == BELL and tags.helical is False:
        return _Recognised(UNKNOWN, "guessed", reason)
    return _Recognised(by_noise, "measured", reason)


def recognise(
    hu: RealArray,
    distance_mm: float,
    acquisition: Acquisition = UNTOLD,
    *,
    thin_mm: float = 0.0,
    of_scan: SliceProfile | None = None,
) -> SliceProfile:
    """Slice profile and thickness of a stack, as far as they are not told.

    A box is told from a bell; a triangle from a Gaussian is not, they share as much noise.

    Args:
        hu: (z, y, x) thick slices, HU.
        distance_mm: of the slices.
        acquisition: what user and tags say of the slices.
        thin_mm: thickness of the thin slices that are asked for; of slices no thicker than these there is no Gaussian,
            and a box is taken.
        of_scan: what was measured in other slices of the scan, which then counts in the place of the stack's own noise.

    Returns:
        Shape and thickness in mm, how sure they are and why, and warnings.
    """
    profile, thickness_mm, tags = acquisition.profile, acquisition.thickness_mm, acquisition.tags
    if isinstance(profile, SampledProfile):
        return SliceProfile(profile, profile.fwhm_mm, "told", "by the user")
    judged = Thickness(thickness_mm) if thickness_mm else judge_thickness(hu, distance_mm, tags.mean_thickness_mm)
    warnings = (judged.warning,) if judged.warning else ()
    if profile != "auto":
        return SliceProfile(profile, judged.thickness_mm, "told", "by the user", None, warnings)
    width = judged.thickness_mm / distance_mm
    noise = judged.noise or shared_noise(hu, lags_for(width, len(hu)))
    (shape, part), confidence, reason = _shape_of(noise, width, tags)
    if of_scan:
        (shape, part), confidence = BOX if of_scan.profile == "box" else BELL, of_scan.confidence
        reason = f"of other slices of this scan: {of_scan.reason}"
    if part * judged.thickness_mm <= thin_mm:
        (shape, part), reason = BOX, f"the thin slices are to be as thick, {reason}"
    used_mm = part * judged.thickness_mm
    if confidence == "guessed":
        guess = f"the slice profile is not known ({reason}): {shape}, {used_mm:.3g} mm wide, is used; give --profile"
        warnings = (*warnings, guess)
    return SliceProfile(shape, used_mm, confidence, reason, noise, warnings)
