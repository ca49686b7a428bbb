"""Thick volume in, thin volume out."""

from ctinterp_dagster.interpolation.interpolator import RELEASED, Interpolator, load_checkpoint, model_file
from ctinterp_dagster.interpolation.selfcheck import CheckedEstimate, SelfCheck, doubts, refuse_doubtful
from ctinterp_dagster.model.restore_settings import MixedPrecision, Settings
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.grids import operator_for, thicken, thin_volume
from ctinterp_dagster.physics.measurement import Estimate, Measurement, Method, measure, paired, simulated, synthetic

__all__ = [
    "RELEASED",
    "Acquisition",
    "CheckedEstimate",
    "Estimate",
    "Interpolator",
    "Measurement",
    "Method",
    "MixedPrecision",
    "SelfCheck",
    "Settings",
    "Tags",
    "doubts",
    "load_checkpoint",
    "measure",
    "model_file",
    "operator_for",
    "paired",
    "refuse_doubtful",
    "simulated",
    "synthetic",
    "thicken",
    "thin_volume",
]
