"""A DVC project in Dagster: DVC makes the graph, Dagster shows and drives it.

Nothing here knows what the stages compute.
"""

from ctinterp_dagster.orchestration.dvc.assets import build_dvc_assets
from ctinterp_dagster.orchestration.dvc.component import DvcProjectComponent
from ctinterp_dagster.orchestration.dvc.project import DvcProject
from ctinterp_dagster.orchestration.dvc.resource import DvcCliResource
from ctinterp_dagster.orchestration.dvc.selection import select_stages
from ctinterp_dagster.orchestration.dvc.sensor import build_dvc_sensor
from ctinterp_dagster.orchestration.dvc.stage import (
    DvcIndex,
    DvcInput,
    DvcOutput,
    DvcProjectError,
    DvcSource,
    DvcStage,
)
from ctinterp_dagster.orchestration.dvc.translator import DvcTranslator

__all__ = [
    "DvcCliResource",
    "DvcIndex",
    "DvcInput",
    "DvcOutput",
    "DvcProject",
    "DvcProjectComponent",
    "DvcProjectError",
    "DvcSource",
    "DvcStage",
    "DvcTranslator",
    "build_dvc_assets",
    "build_dvc_sensor",
    "select_stages",
]
