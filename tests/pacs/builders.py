"""Thick series of a made-up patient, as a scanner would send them."""

from pathlib import Path

from tests.scan.conftest import ct_slice

STUDY = {
    "PatientName": "Doe^Jane", "PatientID": "MRN-77", "StudyDate": "20200304", "StudyTime": "101112",
    "StudyID": "S1", "AccessionNumber": "A1", "Manufacturer": "ACME", "SeriesDescription": "Thick 5.0",
}  # fmt: skip


def thick_series(folder: Path, number: int, *, count: int = 6, step_mm: float = 5.0, **tags: object) -> list[Path]:
    """Write a series of 6 x 8 pixels a slice; the number tells series apart and gives each a study of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k in range(count):
        uids = {
            "StudyInstanceUID": f"1.2.840.7.{number}", "SeriesInstanceUID": f"1.2.840.7.{number}.1",
            "FrameOfReferenceUID": f"1.2.840.7.{number}.2", "SOPInstanceUID": f"1.2.840.7.{number}.1.{k + 1}",
        }  # fmt: skip
        values = {**STUDY, **uids, "SliceThickness": step_mm, "InstanceNumber": k + 1, **tags}
        dataset = ct_slice((-10.0, 20.0, 100.0 + step_mm * k), value=10 * k, **values)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.append(folder / f"{number:03d}-{k:03d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files
