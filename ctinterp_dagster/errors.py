"""Every error that ctinterp raises on purpose.

A message says what was wrong, the value got, what was expected, where, and what to do next, on one line.
The command line prints the message without a traceback and exits 1; the ingest stage writes it into quarantine.csv.
"""

import errno
import os
import re

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Of a disk on which nothing more can be written."""
DISK = {*NO_ROOM, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


def disk_problem(error: BaseException) -> str | None:
    """What is wrong with the disk, on one line, if an error came of that.

    torch hides the system's error behind a RuntimeError, safetensors in its text.

    Args:
        error: any.

    Returns:
        The line; None if the error is not of the disk.
    """
    cause: BaseException | None = error
    while cause is not None:
        named = re.search(r"\(os error (\d+)\)", str(cause))
        number = cause.errno if isinstance(cause, OSError) else int(named[1]) if named else None
        if number in DISK:
            place = f" ({cause.filename})" if isinstance(cause, OSError) and cause.filename else ""
            return f"{os.strerror(number)}{place}: make room, or give the permission back, and run again"
        cause = cause.__cause__ or cause.__context__
    return None


class CtinterpError(Exception):
    """Base of the tree: catch it to handle everything that ctinterp refuses."""


class ParamsError(CtinterpError):
    """params.yaml, a preset or an argument has a missing, unknown or impossible value."""


class MissingInputError(CtinterpError):
    """A file that an earlier stage, or the user, should have put in place is not there."""


class MovedInputError(CtinterpError):
    """What a stage reads changed while it ran."""


class CheckpointError(CtinterpError):
    """A weights file is not readable, not safe, or does not fit the architecture."""


class TrainingError(CtinterpError):
    """Training cannot start or go on (no cases, loss not finite, resume state of another run)."""


class EvaluationError(CtinterpError):
    """Two volumes cannot be compared, or a metric is undefined for them."""


class PacsError(CtinterpError):
    """An archive does not answer, or refuses."""


class DoubtfulResultError(CtinterpError):
    """An estimate that cannot be what the thick slices saw."""


class ScanError(CtinterpError):
    """A scan is refused. Its subclasses are the reasons; `reason` is the word in quarantine.csv."""

    reason = "refused"


class UnreadableScanError(ScanError):
    """The file is corrupt, encrypted, or of a format that no reader knows."""

    reason = "unreadable"


class TruncatedScanError(UnreadableScanError):
    """The file ends before its values do."""

    reason = "truncated"


class NotCtError(ScanError):
    """The images are not an axial CT volume: another modality, a localizer, other planes."""

    reason = "not_ct"


class SecondaryCaptureError(NotCtError):
    """Pictures of a screen, whose numbers are grey levels."""

    reason = "secondary_capture"


class DerivedError(NotCtError):
    """Images computed from slices: reformats, projections, perfusion maps, the results of ctinterp."""

    reason = "derived"


class DeviationError(DerivedError):
    """Standard deviations, as `interpolate --std` writes them: in HU, and no HU of a patient."""


class SliceSpacingError(ScanError):
    """Slices do not lie on a regular grid along the slice normal."""

    reason = "slice_spacing"


class MissingSlicesError(SliceSpacingError):
    """A step between neighbours is a multiple of the others."""

    reason = "missing_slices"


class DuplicateSlicesError(SliceSpacingError):
    """Two slices lie at one place."""

    reason = "duplicate_slices"


class UnevenSpacingError(SliceSpacingError):
    """The steps between neighbours differ."""

    reason = "uneven_spacing"


class MixedThicknessError(SliceSpacingError):
    """Slices of one distance differ in thickness, stretch by stretch."""

    reason = "mixed_thickness"


class GantryTiltError(ScanError):
    """Slice positions run off the slice normal: further than any gantry tilts, or the scan is to be thin truth."""

    reason = "gantry_tilt"


class MixedSeriesError(ScanError):
    """One folder or series mixes patients, reconstructions, pixel spacings or sizes."""

    reason = "mixed_series"


class MixedOrientationError(MixedSeriesError):
    """The slices of one series face different ways."""

    reason = "mixed_orientation"


class IntensityError(ScanError):
    """Values are not those of a CT."""

    reason = "intensity"


class WrongUnitsError(IntensityError):
    """Values are not HU: scaled, raw, masked, or out of the range of CT."""

    reason = "wrong_units"


class NotFiniteError(IntensityError):
    """A value is NaN or infinite."""

    reason = "not_finite"


class ConstantError(IntensityError):
    """Every voxel has the same value."""

    reason = "constant"


class ClippedError(IntensityError):
    """Values were cut off at a display window."""

    reason = "clipped"


class TooFewSlicesError(ScanError):
    """The volume has too few slices for the task."""

    reason = "too_few_slices"


class TooThickError(ScanError):
    """The slices are too thick to serve as thin truth."""

    reason = "too_thick"


class DuplicateScanError(ScanError):
    """The same voxels were taken in already, under another name."""

    reason = "duplicate"


class GeometryError(ScanError):
    """Spacing, direction or origin are missing, not finite, or not those of a scanner."""

    reason = "geometry"
