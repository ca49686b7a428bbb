"""A cohort that needs no download: procedural chests, a different patient for each seed."""

from ctinterp_dagster.scan.phantom.patient import phantom

__all__ = ["phantom"]
