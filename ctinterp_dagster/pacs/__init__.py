"""Scans from a PACS and results to it, by DICOM networking or DICOMweb."""

from ctinterp_dagster.pacs.archive import Archive, Images, Query, Series
from ctinterp_dagster.pacs.connect import connect
from ctinterp_dagster.pacs.settings import PacsSettings, WatchRule, load_pacs

__all__ = ["Archive", "Images", "PacsSettings", "Query", "Series", "WatchRule", "connect", "load_pacs"]
