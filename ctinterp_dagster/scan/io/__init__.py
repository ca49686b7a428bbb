"""Scans in and out of files. The coordinate systems of DICOM, NIfTI and ITK meet here and nowhere else."""

from ctinterp_dagster.scan.io.find import find_scans, read_scan, read_stretches
from ctinterp_dagster.scan.io.found_scan import Found, Scan
from ctinterp_dagster.scan.io.images import stored_hu
from ctinterp_dagster.scan.io.labels import read_labels
from ctinterp_dagster.scan.io.output import check_folder, check_output, check_overwriting, input_files, write_result
from ctinterp_dagster.scan.io.volume_files import WRITABLE_SUFFIXES, nifti_bytes, write_volume

__all__ = [
    "WRITABLE_SUFFIXES",
    "Found",
    "Scan",
    "check_folder",
    "check_output",
    "check_overwriting",
    "find_scans",
    "input_files",
    "nifti_bytes",
    "read_labels",
    "read_scan",
    "read_stretches",
    "stored_hu",
    "write_result",
    "write_volume",
]
