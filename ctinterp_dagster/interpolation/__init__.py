"""Thick volume in, thin volume out."""

from ctinterp_dagster.interpolation.grid import Aligned, aligned, operator_for, thicken
from ctinterp_dagster.interpolation.interpolator import (
    RELEASED,
    Interpolation,
    Interpolator,
    load_checkpoint,
    thin_volume,
)
from ctinterp_dagster.interpolation.settings import MixedPrecision, Settings

__all__ = [
    "RELEASED",
    "Aligned",
    "Interpolation",
    "Interpolator",
    "MixedPrecision",
    "Settings",
    "aligned",
    "load_checkpoint",
    "operator_for",
    "thicken",
    "thin_volume",
]
