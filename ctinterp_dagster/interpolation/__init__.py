"""Thick volume in, thin volume out."""

from ctinterp_dagster.interpolation.grid import Aligned, aligned, operator_for, thicken, thin_volume
from ctinterp_dagster.interpolation.interpolator import (
    RELEASED,
    ClassicalInterpolator,
    Interpolation,
    Interpolator,
    load_checkpoint,
)
from ctinterp_dagster.interpolation.measurement import Measurement, measure
from ctinterp_dagster.interpolation.selfcheck import doubts, refuse_doubtful
from ctinterp_dagster.interpolation.settings import MixedPrecision, Settings

__all__ = [
    "RELEASED",
    "Aligned",
    "ClassicalInterpolator",
    "Interpolation",
    "Interpolator",
    "Measurement",
    "MixedPrecision",
    "Settings",
    "aligned",
    "doubts",
    "load_checkpoint",
    "measure",
    "operator_for",
    "refuse_doubtful",
    "thicken",
    "thin_volume",
]
