"""Scans in and out of files. The coordinate systems of DICOM, NIfTI and ITK meet here and nowhere else."""

from ctinterp_dagster.scan.io.files import nifti_bytes, write_volume
from ctinterp_dagster.scan.io.find import find_scans, read_scan, read_stretches
from ctinterp_dagster.scan.io.output import check_output, check_overwriting, write_result
from ctinterp_dagster.scan.io.source import Found, Scan

__all__ = [
    "Found",
    "Scan",
    "check_output",
    "check_overwriting",
    "find_scans",
    "nifti_bytes",
    "read_scan",
    "read_stretches",
    "write_result",
    "write_volume",
]
