"""A series of CT images as one multi-frame file."""

from collections.abc import Sequence
from importlib.util import find_spec

from pydicom.dataset import Dataset

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.scan.io.derived_series import uid_of

# highdicom makes these anew on each call, and the name longer.
CLOCK = ("InstanceCreationDate", "InstanceCreationTime")
KEPT = ("SeriesDescription", "SeriesDate", "SeriesTime", "DerivationDescription")


def require_highdicom() -> None:
    """Refuse, before the work, where the library that writes multi-frame files is not installed.

    Raises:
        MissingInputError: it is not.
    """
    if find_spec("highdicom") is None:
        raise MissingInputError(
            "a multi-frame file needs highdicom: install ctinterp with its extra, pip install '.[multiframe]'"
        )


def _evidence(slices: Sequence[Dataset], series: str) -> list[Dataset]:
    """The source images of all slices, by study and series. Source: DICOM PS3.3, table C.17-3."""
    items = {item.ReferencedSOPInstanceUID: item for one in slices for item in one.get("SourceImageSequence", [])}
    if not items or not series:
        return []
    study, listed = Dataset(), Dataset()
    listed.SeriesInstanceUID, listed.ReferencedSOPSequence = series, []
    for uid, item in items.items():
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = item.ReferencedSOPClassUID, uid
        listed.ReferencedSOPSequence.append(image)
    study.StudyInstanceUID, study.ReferencedSeriesSequence = slices[0].StudyInstanceUID, [listed]
    return [study]


def multiframe(slices: Sequence[Dataset], source_series: str) -> Dataset:
    """One Legacy Converted Enhanced CT image of the slices of a derived series, in the order of their InstanceNumber.

    It is a series of its own, with UIDs that follow from that of the slices.

    Args:
        slices: CT images of one series, with their pixels.
        source_series: SeriesInstanceUID (0020,000E) of the source images, empty where they have none.

    Returns:
        A data set with all frames.

    Source: DICOM PS3.3 A.70 (Legacy Converted Enhanced CT).
    """
    from highdicom.legacy import LegacyConvertedEnhancedCTImage  # noqa: PLC0415 (an extra)

    first = slices[0]
    laterality = first.get_item("Laterality") if first.get("Laterality", "unpaired") in {None, ""} else None
    for one in slices if laterality else ():  # a paired part has to say its side
        for keyword in ("Laterality", "BodyPartExamined"):
            one.pop(keyword, None)
    series, instance, dimensions = (
        uid_of(first.SeriesInstanceUID.encode(), word) for word in (b"series", b"instance", b"dimensions")
    )
    out = LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid=series,
        series_number=int(first.SeriesNumber),
        sop_instance_uid=instance,
        instance_number=1,
    )
    for keyword in CLOCK:
        out.pop(keyword, None)
    for keyword in KEPT:
        if keyword in first:
            out[keyword] = first[keyword]
    out.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimensions
    for index in out.DimensionIndexSequence:
        index.DimensionOrganizationUID = dimensions
    contrast = first.ImageType[3]
    for image in (out, out.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]):
        keyword = "ImageType" if image is out else "FrameType"
        setattr(image, keyword, [*image[keyword].value[:3], contrast])
    if laterality is not None:
        out[laterality.tag] = laterality
    if evidence := _evidence(slices, source_series):
        out.SourceImageEvidenceSequence = evidence
    return out
