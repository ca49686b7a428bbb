"""Scans from a PACS and results to it, by DICOM networking or DICOMweb."""

from ctinterp_dagster.pacs.archive import Archive, Images, Query, Series
from ctinterp_dagster.pacs.connect import connect
from ctinterp_dagster.pacs.settings import Rule, Settings, load_pacs

__all__ = ["Archive", "Images", "Query", "Rule", "Series", "Settings", "connect", "load_pacs"]
