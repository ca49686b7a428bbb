"""Whether a CT series is helical, by its tags."""

KEYWORDS = ("AcquisitionType", "ScanOptions", "SpiralPitchFactor")
HELICAL = ("SPIRAL", "HELI")  # HELIX, HELICAL MODE, HELICAL_CT
STEPPED = ("SEQUENCED", "STATIONARY", "CONSTANT_ANGLE", "AXIAL", "CINE", "NORMAL_CT", "VOLUME_CT")


def is_helical(acquisition_type: str, scan_options: str, pitch: str) -> bool | None:
    """Whether the table moved during a turn.

    Args:
        acquisition_type: AcquisitionType (0018,9302).
        scan_options: ScanOptions (0018,0022), each vendor's own words.
        pitch: SpiralPitchFactor (0018,9311).

    Returns:
        True where it moved; None where no tag tells.

    Source: DICOM PS3.3 C.8.15.3.2 (CT acquisition type); the words of GE, Philips and Canon in ScanOptions.
    """
    words = f"{acquisition_type} {scan_options}".upper()
    if any(word in words for word in HELICAL):
        return True
    if any(word in words for word in STEPPED):
        return False
    return True if pitch.strip("0.") else None
